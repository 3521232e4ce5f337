"""What happens when real mail servers stop and start, other programs use the mailbox, and the collector is killed."""

import contextlib
import imaplib
import os
import random
import re
import shutil
import subprocess
import unittest
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from tests.real.scenario import ticket_of
from tests.real.workplace import Script, Workplace
from tests.support.realservers import ADMINISTRATOR, Dovecot, postfix_and_dovecot, requires
from tests.support.waiting import wait_until

# How often the collector is killed, and how many mails come in meanwhile.
KILLS, MAILS = (200, 2000) if os.environ.get("MAILER_LONG") else (10, 100)


def mail(number: int, subject: str | None = None, size: int = 0) -> bytes:
    """The mail with this number: a ticket mail with this ticket, unless it is given another subject."""
    subject = subject or f"[Ticket #{number}] Mailer"
    filling = "".join(f"line {line} of {number}\r\n" for line in range(size // 20))
    return (f"From: sender{number}@example.net\r\nTo: helpdesk@example.com\r\nSubject: {subject}\r\n"
            f"Message-ID: <{number}@example.net>\r\n\r\nmail {number}\r\n{filling}").encode()


def numbers(records: list[dict]) -> list[int]:
    """The numbers of the mails that these records are of, sorted."""
    return sorted(int(record["text"].split()[1]) for record in records)


def troubles(script: Script) -> list[str]:
    """The warnings and errors that it has logged."""
    return [line for line in script.said().splitlines() if " WARNING " in line or " ERROR " in line]


@requires("dovecot")
class CollectorTest(unittest.TestCase):
    dovecot: Dovecot

    @classmethod
    def setUpClass(cls) -> None:
        cls.dovecot = Dovecot()
        cls.addClassCleanup(cls.dovecot.close)
        cls.dovecot.start()

    def setUp(self) -> None:
        self.address = f"{self._testMethodName.replace('_', '-')[:60]}@example.com"
        self.workplace = Workplace(EMAIL_LOGIN=self.address, IMAP_PORT=self.dovecot.imap_port)
        self.addCleanup(self.workplace.close)

    def collect(self) -> None:
        done = self.workplace.run("collector.py", "--once")
        self.assertEqual(done.returncode, 0, done)

    def session(self) -> imaplib.IMAP4:
        """Another mail program at work in the same mailbox."""
        session = self.dovecot.login(self.address)
        self.addCleanup(session.shutdown)
        return session

    def test_mails_over_which_the_server_ends_the_connection_hide_none_of_the_others(self) -> None:
        damaged = {2, 5, 6, 7}  # by a size in their names that is not theirs
        self.dovecot.deliver(self.address, mail(0))
        for number in range(1, 12):
            name = f"{1_700_000_000 + number}.M{number}P1.host{',S=100' if number in damaged else ''}:2,"
            place = self.dovecot.maildir(self.address) / "cur" / name
            place.write_bytes(mail(number, size=2_000).replace(b"\r\n", b"\n"))
            shutil.chown(place, "nobody", "nogroup")
        with self.workplace.running("collector.py") as collector:
            given = [number for number in range(12) if number not in damaged]
            collector.wait_until(lambda: numbers(self.workplace.successes()) == given, 60)
            self.assertIn("the server refuses the mail with UID", collector.said())
            self.assertEqual(collector.end(), 0)

    def test_goes_on_after_the_mail_server_was_away(self) -> None:
        with self.workplace.running("collector.py") as collector:
            self.dovecot.deliver(self.address, *map(mail, range(3)))
            collector.wait_until(lambda: numbers(self.workplace.successes()) == [0, 1, 2], 20)
            self.dovecot.stop()
            collector.wait_until(lambda: len(troubles(collector)) == 1)  # it has noticed
            self.dovecot.start()
            self.dovecot.deliver(self.address, *map(mail, range(3, 6)))
            collector.wait_until(lambda: len(self.workplace.successes()) >= 6, 60)
            self.assertEqual(numbers(self.workplace.successes()), [0, 1, 2, 3, 4, 5])
            collector.wait_until(lambda: len(troubles(collector)) == 2)  # it works again
            self.assertEqual(collector.end(), 0)
        self.assertEqual(len(troubles(collector)), 2, collector.said())
        self.assertNotIn("Traceback", collector.said())

    def test_waits_for_a_mail_server_that_is_not_there_yet(self) -> None:
        self.dovecot.stop()
        with self.workplace.running("collector.py") as collector:
            collector.wait_until(collector.said, 20)
            self.dovecot.start()
            self.dovecot.deliver(self.address, mail(1))
            collector.wait_until(lambda: numbers(self.workplace.successes()) == [1], 60)
            self.assertEqual(collector.end(), 0)

    def test_a_changed_uidvalidity_repeats_nothing_and_loses_nothing(self) -> None:
        self.dovecot.deliver(self.address, *map(mail, range(3)))
        self.collect()
        self.dovecot.stop()
        self.dovecot.change_uidvalidity(self.address, 4_000_000_000)
        self.dovecot.start()
        self.dovecot.deliver(self.address, *map(mail, range(3, 5)))
        self.collect()
        self.assertEqual(numbers(self.workplace.successes()), [0, 1, 2, 3, 4])
        uidvalidities = [record["uidvalidity"] for record in self.workplace.successes()]
        self.assertEqual(uidvalidities[3:], [4_000_000_000] * 2)
        self.assertNotIn(4_000_000_000, uidvalidities[:3])

    def test_a_mailbox_restored_from_a_backup_loses_no_mail_that_comes_after_it(self) -> None:
        maildir = self.dovecot.maildir(self.address)
        self.dovecot.deliver(self.address, *map(mail, range(3)))
        self.collect()
        self.dovecot.stop()
        subprocess.run(["cp", "-a", str(maildir), f"{maildir}.backup"], check=True)
        self.dovecot.start()
        self.dovecot.deliver(self.address, *map(mail, range(3, 7)))
        self.collect()
        self.dovecot.stop()
        shutil.rmtree(maildir)
        shutil.move(f"{maildir}.backup", maildir)
        self.dovecot.start()
        self.dovecot.deliver(self.address, *map(mail, range(7, 9)))
        self.collect()
        self.dovecot.deliver(self.address, *map(mail, range(9, 13)))
        self.collect()
        records = self.workplace.successes()
        self.assertEqual(numbers(records), list(range(13)))
        self.assertGreater(len(records), len({record["uid"] for record in records}), "numbers were given again")

    def test_another_program_marks_moves_and_deletes(self) -> None:
        self.dovecot.deliver(self.address, mail(0))
        self.collect()
        self.dovecot.deliver(self.address, *map(mail, range(1, 6)))
        other = self.session()
        other.create("Archive")
        other.store("3", "+FLAGS", r"\Seen")  # mail 2: read by a person before the collector came
        other.copy("4", "Archive")
        other.store("2,4", "+FLAGS", r"\Deleted")  # mails 1 and 3
        other.expunge()
        self.collect()
        self.assertEqual(numbers(self.workplace.successes()), [0, 2, 4, 5])

        other.noop()
        other.store("2,3", "-FLAGS", r"\Seen")  # a person marks mails 2 and 4 as unread again
        other.store("4", "+FLAGS", r"\Deleted")
        other.expunge()
        self.collect()
        self.assertEqual(numbers(self.workplace.successes()), [0, 2, 4, 5])

    def test_marks_as_read_what_it_has_logged(self) -> None:
        self.dovecot.deliver(self.address, mail(1), mail(2, "Hello"))
        self.collect()
        self.assertEqual(self.session().search(None, "UNSEEN"), ("OK", [b""]))

    def test_mark_seen_no_leaves_the_mail_unread_and_still_reads_it_once(self) -> None:
        self.workplace.configure(MARK_SEEN="no")
        self.dovecot.deliver(self.address, mail(1), mail(2, "Hello"))
        self.collect()
        self.collect()
        self.assertEqual(self.session().search(None, "UNSEEN"), ("OK", [b"1 2"]))
        self.assertEqual(numbers(self.workplace.successes() + self.workplace.errors()), [1, 2])

    def test_another_folder_named_in_cyrillic(self) -> None:
        other = self.session()
        other.create("&BB8EPgRHBEIEMA-")  # Почта in modified UTF-7 (RFC 3501, section 5.1.3)
        other.append("&BB8EPgRHBEIEMA-", "", "", mail(7))
        self.dovecot.deliver(self.address, mail(8))
        self.workplace.configure(IMAP_FOLDER="Почта")
        self.collect()
        self.assertEqual(numbers(self.workplace.successes()), [7])

    def test_every_mail_once_however_often_it_is_killed(self) -> None:
        moments = random.Random(4)
        with ThreadPoolExecutor(1) as another_program:
            for kill in range(KILLS):
                batch = range(kill * MAILS // KILLS, (kill + 1) * MAILS // KILLS)
                another_program.submit(self.deliver_slowly, batch)
                if kill % 2:
                    self.run_and_kill(moments.uniform(0.1, 1.2))
                else:
                    self.run_and_kill(moments.uniform(0, 0.02), after_a_write=True)
        self.collect()
        successes, errors = numbers(self.workplace.successes()), numbers(self.workplace.errors())
        self.assertEqual(successes, [number for number in range(MAILS) if number % 3])
        self.assertEqual(errors, [number for number in range(MAILS) if number % 3 == 0])
        self.assertEqual(self.session().search(None, "UNSEEN"), ("OK", [b""]))

    def deliver_slowly(self, batch: range) -> None:
        """One LMTP session a mail, so that they arrive one by one; every seventh is large."""
        for number in batch:
            size = 300_000 if number % 7 == 0 else 100
            self.dovecot.deliver(self.address, mail(number, None if number % 3 else "Hello", size))

    def run_and_kill(self, seconds: float, *, after_a_write: bool = False) -> None:
        """Kill the collector so many seconds after its start, or after it has written to a log."""
        before = self.log_sizes()
        with self.workplace.running("collector.py") as collector:
            if after_a_write:
                collector.wait_until(lambda: self.log_sizes() != before)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.fail(f"ended by itself with {collector.process.wait(seconds)}: {collector.said()}")
            collector.kill()

    def log_sizes(self) -> list[int]:
        logs = (self.workplace.success_log, self.workplace.error_log)
        return [log.stat().st_size if log.exists() else 0 for log in logs]


_SUBJECT = re.compile(rb"^Subject: ([^\r]*)", re.MULTILINE)
_QUEUE_ID = re.compile(rb"\(Postfix\) with E?SMTP\w* id (\w+)")


@requires("postfix", "dovecot")
class ServerTest(unittest.TestCase):
    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.system = stack.enter_context(postfix_and_dovecot())
        self.workplace = Workplace(SMTP_PORT=self.system.smtp_port)
        stack.callback(self.workplace.close)
        stack.enter_context(self.workplace.serving())

    def send(self, text: str) -> int:
        """The ticket of a message that was sent, and has arrived at both addresses."""
        done = self.workplace.ask("person@example.org", text)
        self.assertEqual(done.returncode, 0, done)
        ticket = ticket_of(done.stdout)
        for address in ("person@example.org", ADMINISTRATOR):
            wait_until(partial(self.has, address, ticket), 60)  # or Postfix, ended in mid-delivery, would deliver twice
        return ticket

    def has(self, address: str, ticket: int) -> bool:
        return self.subjects(address)[f"Subject: [Ticket #{ticket}] Mailer"] > 0

    def subjects(self, address: str) -> Counter:
        """How often each subject was sent to this address: what Postfix, being ended, delivers twice was sent once."""
        headers = {raw.partition(b"\r\n\r\n")[0] for raw in self.system.messages(address)}
        sent = {(_SUBJECT.findall(header)[0], *_QUEUE_ID.findall(header)) for header in headers}
        return Counter(f"Subject: {subject.decode()}" for subject, *_ in sent)

    def test_goes_on_after_the_mail_server_was_away(self) -> None:
        tickets = [self.send("before")]
        self.system.smtp.stop()
        refused = self.workplace.ask("person@example.org", "during")
        self.assertEqual(refused.returncode, 75, refused)
        self.system.smtp.start()
        tickets.append(self.send("after"))
        self.system.smtp.stop()  # a restart that nobody notices: the session kept is stale
        self.system.smtp.start()
        tickets.append(self.send("after a restart"))
        expected = Counter(f"Subject: [Ticket #{ticket}] Mailer" for ticket in tickets)
        for address in ("person@example.org", ADMINISTRATOR):
            self.assertEqual(self.subjects(address), expected)
