"""The whole main job over real mail servers: client.py → server.py → SMTP server → IMAP server → collector.py.

Subclasses of EndToEnd say over which servers.
"""

import email
import email.policy
import re
import unittest
from contextlib import AbstractContextManager, ExitStack
from email.message import EmailMessage

from tests.real.workplace import Workplace
from tests.support.realservers import ADMINISTRATOR, REFUSED, MailSystem
from tests.support.waiting import wait_until

# Texts that mail software is known to damage; each has to arrive exactly as given.
TEXTS = {
    "Cyrillic": "Принтер горит, помогите!\nС уважением, Ёжик",
    "emoji": "It burns 🔥👩‍💻🇺🇦 — and 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 too\nq\u0308 stays decomposed",
    "90,000 characters": "".join(f"строка {number:06d} 🖨\n" for number in range(5625)),
    "lines that hold only a dot": "before\n.\n..\n.\nQUIT\n...after\n.",
    "lines longer than 998 bytes": "x" * 5000 + "\n" + "ы" * 3000 + " " + "z" * 1000,
    "trailing blanks": "two blanks  \ntab\t\n \n\n\nand at the end \t \n\n",
    "looks like headers and an mbox": "Subject: [Ticket #1] Mailer\n\nFrom here\n>From quoted\n=3D =\n-- \nTo: a@b.c",
}


def ticket_of(output: str) -> int:
    """The number that client.py told the person."""
    found = re.search(r"\b(\d{5,})\b", output)
    assert found, output
    return int(found[1])


class EndToEnd(unittest.TestCase):
    """The scenario; a subclass says on which mail servers."""

    system: MailSystem
    workplace: Workplace
    kept: ExitStack

    @classmethod
    def servers(cls) -> AbstractContextManager[MailSystem]:
        raise NotImplementedError

    @classmethod
    def setUpClass(cls) -> None:
        with ExitStack() as stack:
            cls.system = stack.enter_context(cls.servers())
            cls.workplace = Workplace(SMTP_PORT=cls.system.smtp_port, IMAP_PORT=cls.system.imap_port)
            stack.callback(cls.workplace.close)
            stack.enter_context(cls.workplace.serving())
            cls.kept = stack.pop_all()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.kept.close()

    def test_a_message_arrives_exactly_as_given(self) -> None:
        tickets = {name: self.ask("exact@example.org", text) for name, text in TEXTS.items()}
        for address in ("exact@example.org", ADMINISTRATOR):
            for name, text in TEXTS.items():
                with self.subTest(name, address=address):
                    self.assertEqual(self.text_in_mailbox(address, tickets[name]), text)
        self.collect()
        for name, text in TEXTS.items():
            with self.subTest(name, log="success"):
                mine = [record for record in self.workplace.successes() if record["ticket"] == tickets[name]]
                self.assertEqual([record["text"] for record in mine], [text])

    def test_the_person_and_the_administrator_get_the_same_mail(self) -> None:
        ticket = self.ask("same@example.org", "hello")
        for address in ("same@example.org", ADMINISTRATOR):
            mail = self.mail_in_mailbox(address, ticket)
            self.assertEqual(mail["From"], ADMINISTRATOR)
            self.assertEqual(mail["To"], "same@example.org")
            self.assertEqual(mail["Cc"], ADMINISTRATOR)
            self.assertEqual(mail.get_content_type(), "text/plain")
            self.assertIn(str(ticket), mail["Message-ID"])

    def test_a_refused_recipient_means_no_mail_for_anybody(self) -> None:
        before = len(self.system.messages(ADMINISTRATOR))
        refused = self.workplace.ask(REFUSED, "never sent")
        self.assertEqual(refused.returncode, 1, refused)
        ticket = self.ask("next@example.org", "sent after it")  # the same session, so the order is kept
        self.mail_in_mailbox(ADMINISTRATOR, ticket)
        self.assertEqual(len(self.system.messages(ADMINISTRATOR)), before + 1)

    def test_a_reply_is_filed_under_its_ticket_and_other_mail_as_an_error(self) -> None:
        ticket = self.ask("replier@example.org", "My chair is broken")
        self.mail_in_mailbox(ADMINISTRATOR, ticket)  # before there is a reply to it
        reply = self.mail("replier@example.org", f"Re: [Ticket #{ticket}] Mailer", "Он уже починен, спасибо 👍")
        other = self.mail("stranger@example.net", f"Скидки! {ticket}", "Buy now")
        self.system.send(reply)
        self.system.send(other)
        wait_until(lambda: {"Он уже починен, спасибо 👍\n", "Buy now\n"} <= self.texts(ADMINISTRATOR), 60)

        records = self.collected(ticket)
        self.assertEqual([record["from"] for record in records], [ADMINISTRATOR, "replier@example.org"])
        self.assertEqual(records[1]["subject"], f"Re: [Ticket #{ticket}] Mailer")
        self.assertEqual(records[1]["text"].strip(), "Он уже починен, спасибо 👍")
        errors = [record for record in self.workplace.errors() if record["subject"] == f"Скидки! {ticket}"]
        origins = [(record["from"], record["reason"]) for record in errors]
        self.assertEqual(origins, [("stranger@example.net", "subject")])

    def test_a_second_pass_adds_nothing(self) -> None:
        ticket = self.ask("once@example.org", "only once")
        self.mail_in_mailbox(ADMINISTRATOR, ticket)
        self.assertEqual(len(self.collected(ticket)), 1)
        before = [log.read_bytes() for log in (self.workplace.success_log, self.workplace.error_log)]
        self.assertEqual(self.collect().returncode, 0)
        self.assertEqual([log.read_bytes() for log in (self.workplace.success_log, self.workplace.error_log)], before)

    def ask(self, address: str, text: str) -> int:
        """Send a message with client.py; the ticket it was given."""
        done = self.workplace.ask(address, text)
        self.assertEqual(done.returncode, 0, done)
        return ticket_of(done.stdout)

    def collect(self):
        """One pass of collector.py."""
        done = self.workplace.run("collector.py", "--once")
        self.assertEqual(done.returncode, 0, done)
        return done

    def collected(self, ticket: int) -> list[dict]:
        """The success records of this ticket after one more pass."""
        self.collect()
        return [record for record in self.workplace.successes() if record["ticket"] == ticket]

    def mail_in_mailbox(self, address: str, ticket: int) -> EmailMessage:
        """The mail of this ticket, as a mail program reads it; waits until it has arrived."""
        wait_until(lambda: self.mails(address, ticket), 60)
        (mail,) = self.mails(address, ticket)
        return mail

    def mails(self, address: str, ticket: int) -> list[EmailMessage]:
        mails = [email.message_from_bytes(raw, policy=email.policy.default) for raw in self.system.messages(address)]
        return [mail for mail in mails if mail["Subject"] == f"[Ticket #{ticket}] Mailer"]

    def text_in_mailbox(self, address: str, ticket: int) -> str:
        return str(self.mail_in_mailbox(address, ticket).get_content()).replace("\r\n", "\n")

    def texts(self, address: str) -> set[str]:
        mails = [email.message_from_bytes(raw, policy=email.policy.default) for raw in self.system.messages(address)]
        return {str(mail.get_content()).replace("\r\n", "\n") for mail in mails}

    def mail(self, sender: str, subject: str, text: str) -> EmailMessage:
        """A mail to the administrator, as another mail program would make it."""
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = sender, ADMINISTRATOR, subject
        mail.set_content(text)
        return mail
