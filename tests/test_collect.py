"""Collecting: every mail exactly once in exactly one log, whatever fails and wherever it ends."""

import errno
import itertools
import json
import logging
import shutil
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from mailer import collect, reading
from mailer.collect import Collector, polling, refusals
from mailer.errors import ExitCode, MailboxError, StateError
from mailer.imap import Mailbox
from mailer.journal import Journal, keep
from mailer.position import Position
from mailer.progress import Logged, Mail, Mark, Progress
from mailer.reading import Reading
from mailer.sandbox.mail import MailServer
from mailer.sandbox.store import Message
from mailer.sasl import Login
from mailer.settings import Endpoint, Security
from mailer.tls import client_context

CONTEXT = client_context(None)


class Crash(BaseException):
    """The process ends here, as by `kill -9`."""


def mail(number: int, subject: str | None = None) -> bytes:
    """A mail: those with even numbers belong to a ticket."""
    subject = subject or (f"Re: [Ticket #{number}] Mailer" if number % 2 == 0 else "Hello")
    return f"From: a@example.net\r\nSubject: {subject}\r\nMessage-ID: <{number}@x>\r\n\r\ntext {number}\r\n".encode()


class Effects:
    """Counts the effects of the order in `collect`, and crashes or fails at the one that it is told."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.fail_at: dict[int, BaseException] = {}

    def happen(self, name: str) -> None:
        self.log.append(name)
        if failure := self.fail_at.pop(len(self.log), None):
            raise failure


class WatchedJournal(Journal):
    """A journal whose appends are effects, before and after."""

    effects: Effects

    def append(self, lines: bytes) -> None:
        self.effects.happen("append")
        super().append(lines)
        self.effects.happen("appended")


class WatchedPosition(Position):
    """A position whose saves are effects."""

    effects: Effects

    def begin(self, progress: Progress) -> None:
        self.effects.happen("begin")
        super().begin(progress)
        self.effects.happen("begun")

    def save(self, progress: Progress) -> None:
        self.effects.happen("save")
        super().save(progress)
        self.effects.happen("saved")


class WatchedMailbox(Mailbox):
    """A mailbox whose answers are effects."""

    effects: Effects
    refusing: frozenset[int] = frozenset()   # UIDs that get NO for their FETCH
    stingy: frozenset[int] = frozenset()     # UIDs of which only the beginning is given
    breaking: frozenset[int] = frozenset()   # UIDs whose FETCH ends the connection
    breaks_over_marks: bool = False          # whether STORE ends the connection
    refused_marks: int = 0                   # how many STOREs get NO for now, as with [INUSE]
    away: frozenset[int] = frozenset()       # UIDs that get NO for now, as with [UNAVAILABLE]
    tells_next_uid: bool = True
    fragile: bool = False                    # whether the beginnings of those come before that
    on_fetch: Callable[[], None] = staticmethod(lambda: None)

    def open(self) -> Any:
        self.effects.happen("open")
        selected = super().open()
        return selected if self.tells_next_uid else selected._replace(next_uid=self._highest() + 1, told=False)

    def fetch(self, uids: Sequence[int], wants_more: Callable[[bytes], bool]) -> Iterator[Mail]:
        self.effects.happen("fetch")
        self.on_fetch()
        if self.breaking.intersection(uids):
            if self.fragile:
                for found in super().fetch(uids, wants_more):
                    yield Mail(found.uid, found.raw, complete=False, refused=True)
            self.close()
            raise MailboxError("the connection broke")
        if self.away.intersection(uids):
            raise MailboxError("mail.example: [UNAVAILABLE] try again later", ExitCode.TEMPORARY)
        for found in super().fetch(uids, wants_more):
            if found.uid in self.stingy:
                found = Mail(found.uid, found.raw, complete=False, refused=True)
            yield Mail(found.uid, None) if found.uid in self.refusing else found

    def mark(self, uids: Sequence[int]) -> bool:
        if not uids:
            return False
        self.effects.happen("mark")
        if self.breaks_over_marks:
            self.close()
            raise MailboxError("the connection broke")
        self.refused_marks -= 1
        done = self.refused_marks < 0 and super().mark(uids)
        self.effects.happen("marked")
        return done


class CollectCase(unittest.TestCase):
    server: ClassVar[MailServer]
    accounts: ClassVar[Iterator[int]] = itertools.count()

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = MailServer()
        cls.server.start()
        cls.addClassCleanup(cls.server.stop)

    def setUp(self) -> None:
        self.position: WatchedPosition | None = None
        self.mark_seen = True
        self.begin()
        self.addCleanup(self.end)

    def begin(self) -> None:
        """An empty mailbox, an empty folder, no collector."""
        self.end()
        self.address = f"helpdesk{next(self.accounts)}@example.com"
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-collect-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.effects = Effects()
        self.number = 0
        self.stop = False

    def start(self) -> Collector:
        """A collector on the folder and the mail server, as after a start of the process."""
        self.end()
        endpoint = Endpoint("127.0.0.1", self.server.imap_port, Security.PLAIN)
        self.mailbox = WatchedMailbox(
            endpoint, Login(self.address, lambda _: "sandbox"), "INBOX", context=CONTEXT, timeout=5.0,
            mark_seen=self.mark_seen,
        )
        self.position = WatchedPosition(self.folder / "state", "mailbox")
        success, error = (WatchedJournal(self.folder / f"{name}.log") for name in ("success", "error"))
        self.mailbox.effects = self.position.effects = success.effects = error.effects = self.effects
        return Collector(
            self.mailbox, success, error, self.position, stopping=lambda: self.stop,
            keep=lambda name, raw: keep(self.folder / "state" / "unreadable" / name, raw),
        )

    def end(self) -> None:
        """What the end of a process does by itself."""
        if self.position is not None:
            self.position.close()
            self.mailbox.close()
        self.position = None

    def deliver(self, count: int = 1) -> list[int]:
        uids = []
        for _ in range(count):
            self.number += 1
            uids.append(self.server.deliver(self.address, mail(self.number)))
        return uids

    def rotate(self, number: int) -> None:
        for name in ("success", "error"):
            with suppress(FileNotFoundError):
                (self.folder / f"{name}.log").rename(self.folder / f"{name}.log.{number}")

    def records(self, name: str) -> list[dict[str, Any]]:
        files = sorted(self.folder.glob(f"{name}.log*"))
        return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]

    def uids(self) -> list[int]:
        """The UIDs in both logs, sorted; ticket mail in the one and other mail in the other."""
        success, error = self.records("success"), self.records("error")
        self.assertTrue(all("ticket" in record for record in success))
        self.assertFalse(any("ticket" in record for record in error))
        return sorted(record["uid"] for record in success + error)

    def seen(self, uids: Sequence[int]) -> list[bool]:
        return [r"\Seen" in self.server.flags(self.address, uid) for uid in uids]


class Passes(CollectCase):
    def test_a_pass_takes_what_is_new_and_the_next_one_nothing(self) -> None:
        uids = self.deliver(5)
        collector = self.start()
        self.assertEqual(collector.run_pass(), (2, 3))
        self.assertEqual(collector.run_pass(), (0, 0))
        self.assertEqual(self.uids(), uids)
        self.assertEqual(self.seen(uids), [True] * 5)
        self.assertEqual([record["ticket"] for record in self.records("success")], [2, 4])
        self.assertEqual({record["reason"] for record in self.records("error")}, {"subject"})
        self.assertEqual({record["uidvalidity"] for record in self.records("error")}, {1})

    def test_the_effects_come_in_their_order(self) -> None:
        self.deliver(2)
        self.start().run_pass()
        self.assertEqual(self.effects.log, [
            "open", "begin", "begun", "save", "saved", "fetch",
            "append", "appended", "append", "appended", "save", "saved", "mark", "marked", "save", "saved",
        ])

    def test_the_first_pass_takes_the_unseen_and_later_ones_everything(self) -> None:
        uids = self.deliver(4)
        for uid in uids[:2]:
            self.server.set_flags(self.address, uid, [r"\Seen"])
        collector = self.start()
        collector.run_pass()
        self.assertEqual(self.uids(), uids[2:])
        read_elsewhere = self.deliver(2)
        for uid in read_elsewhere:
            self.server.set_flags(self.address, uid, [r"\Seen"])
        collector.run_pass()
        self.assertEqual(self.uids(), uids[2:] + read_elsewhere)

    def test_what_was_unseen_at_the_first_pass_is_taken_even_when_read_meanwhile(self) -> None:
        uids = self.deliver(4)
        collector = self.start()
        self.effects.fail_at[4] = Crash()  # at the first fetch
        with suppress(Crash):
            collector.run_pass()
        for uid in uids:
            self.server.set_flags(self.address, uid, [r"\Seen"])
        self.start().run_pass()
        self.assertEqual(self.uids(), uids)

    def set_back(self, uids: Sequence[int]) -> list[Message]:
        """Take mails and their numbers out of the mailbox, as an older backup of it does; these mails."""
        inbox = self.server.store.folders(self.address)["INBOX"]
        lost = [message for message in inbox.messages if message.uid in uids]
        self.server.expunge(self.address, uids[0])
        inbox.remove(lambda message: message in lost)
        inbox.next_uid = uids[0]
        self.mailbox.close()
        return lost

    def test_a_mailbox_that_was_restored_from_a_backup_is_read_from_what_is_unseen(self) -> None:
        uids = self.deliver(10)
        collector = self.start()
        collector.run_pass()
        self.set_back(uids[5:])
        self.assertEqual(self.deliver(2), uids[5:7])
        with self.assertLogs("mailer.collect", "WARNING") as log:
            self.assertEqual(sum(collector.run_pass()), 2)
        self.assertIn("set back", log.output[0])
        self.assertEqual(sorted(record["message_id"] for record in self.records("success") + self.records("error")),
                         sorted(f"<{number}@x>" for number in range(1, 13)))  # fmt: skip
        self.assertEqual(self.seen(uids[5:7]), [True, True])
        self.assertEqual(collector.run_pass(), (0, 0))
        uids += self.deliver(1)
        self.assertEqual(sum(collector.run_pass()), 1)

    def test_what_comes_back_into_a_mailbox_that_was_set_back_is_not_repeated(self) -> None:
        uids = self.deliver(6)
        collector = self.start()
        collector.run_pass()
        lost = self.set_back(uids[4:])
        with self.assertLogs("mailer.collect", "WARNING"):
            collector.run_pass()
        inbox = self.server.store.folders(self.address)["INBOX"]
        for message in lost:
            inbox.append(message.raw)
        self.assertEqual(sum(collector.run_pass()), 0)
        self.assertEqual(self.uids(), uids)

    def test_nor_after_a_restart(self) -> None:
        uids = self.deliver(6)
        self.start().run_pass()
        lost = self.set_back(uids[4:])
        with self.assertLogs("mailer.collect", "WARNING"):
            self.start().run_pass()
        inbox = self.server.store.folders(self.address)["INBOX"]
        for message in lost:
            inbox.append(message.raw)
        for _ in range(2):
            self.assertEqual(sum(self.start().run_pass()), 0)
            self.assertEqual(self.uids(), uids)
        uids += self.deliver(1)
        self.start().run_pass()
        self.assertEqual(self.uids(), uids)

    def test_a_mailbox_that_was_set_back_is_taken_up_though_the_disk_is_full_at_first(self) -> None:
        uids = self.deliver(10)
        collector = self.start()
        collector.run_pass()
        self.set_back(uids[5:])
        new = self.deliver(2)
        self.effects.fail_at[len(self.effects.log) + 2] = StateError("disk full", passing=True)  # open, begin
        with self.assertLogs("mailer.collect", "WARNING"):
            self.assertRaises(StateError, collector.run_pass)
            self.assertEqual(sum(collector.run_pass()), 2)
        self.assertEqual(self.uids(), sorted(uids + new))

    def test_a_first_pass_whose_logs_cannot_be_looked_at_again_loses_nothing(self) -> None:
        for set_back in (False, True):
            with self.subTest(set_back=set_back):
                self.begin()
                uids = self.deliver(6)
                collector = self.start()
                if set_back:
                    collector.run_pass()
                    self.set_back(uids[3:])
                    uids += self.deliver(2)
                began: list[int] = []
                real = WatchedJournal.recover

                def recover(journal: WatchedJournal, since: Any, began: list[int] = began, real: Any = real) -> Any:
                    if "begun" in self.effects.log[-1:] and not began:
                        began.append(1)
                        raise StateError("Too many open files", passing=True)
                    return real(journal, since)

                told = self.assertLogs("mailer.collect") if set_back else nullcontext()
                with mock.patch.object(WatchedJournal, "recover", recover), told:
                    self.assertRaises(StateError, collector.run_pass)
                    self.deliver(2)
                    collector.run_pass()
                found = [record["message_id"] for record in self.records("success") + self.records("error")]
                self.assertEqual(sorted(found), sorted(f"<{number}@x>" for number in range(1, self.number + 1)))

    def test_a_number_that_two_mails_had_is_no_reason_to_record_one_twice(self) -> None:
        uids = self.deliver(6)
        self.start().run_pass()
        self.set_back(uids[2:])
        self.deliver(3)
        (self.folder / "success.log").rename(self.folder / "success.log.1")
        collector = self.start()
        self.effects.fail_at[self.at("save")] = Crash()
        with self.assertLogs("mailer.collect", "WARNING"), suppress(Crash):
            collector.run_pass()
        for _ in range(2):
            self.start().run_pass()
        found = [record["message_id"] for record in self.records("success") + self.records("error")]
        self.assertEqual(sorted(found), sorted(f"<{number}@x>" for number in range(1, 10)))

    def at(self, effect: str) -> int:
        """At which effect a first pass comes to this one."""
        usual = ["open", "begin", "begun", "fetch", "append", "appended", "append", "appended", "save"]
        return len(self.effects.log) + usual.index(effect) + 1

    def test_what_was_suspected_in_another_mailbox_moves_nothing_in_this_one(self) -> None:
        for anew in (False, True):
            with self.subTest(anew=anew):
                self.begin()
                uids = self.deliver(10)
                collector = self.start()
                collector.run_pass()
                uids += self.deliver(1)
                self.mailbox.breaking = frozenset(uids[-1:])
                self.assertRaises(MailboxError, collector.run_pass)
                self.mailbox.breaking = frozenset()
                self.set_back(uids[5:])
                self.server.uidvalidity += anew
                self.addCleanup(setattr, self.server, "uidvalidity", 1)
                new = self.deliver(4)
                with self.assertLogs("mailer.collect", "WARNING"):
                    collector.run_pass()
                self.assertEqual(collector.run_pass(), (0, 0))
                self.assertEqual(self.uids(), sorted(uids[:10] + new))

    def test_what_a_server_told_of_its_next_uid_holds_for_that_time_alone(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        collector.run_pass()
        uids += self.deliver(3)
        collector.run_pass()
        self.mailbox.tells_next_uid = False
        with self.assertNoLogs("mailer.collect", "WARNING"):
            for _ in range(2):
                self.mailbox.close()
                collector.run_pass()
        self.assertEqual(self.uids(), uids)

    def test_a_fragment_is_of_the_mailbox_that_it_was_read_in(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        self.mailbox.stingy = frozenset(uids[1:2])
        with self.assertLogs("mailer.collect", "WARNING"):
            collector.run_pass()
        self.assertEqual(list(collector._refusals.fragments), uids[1:2])
        self.mailbox.close()
        self.addCleanup(setattr, self.server, "uidvalidity", self.server.uidvalidity)
        self.server.uidvalidity += 1
        with self.assertLogs("mailer.collect", "WARNING"):
            collector.run_pass()
        self.assertEqual(list(collector._refusals.fragments), uids[1:2], "of the new one")
        self.mailbox.stingy, self.mailbox.refusing = frozenset(), frozenset(uids[1:2])
        self.mailbox.close()
        self.server.uidvalidity += 1
        with self.assertLogs("mailer.collect", "WARNING"), mock.patch("mailer.collect.refusals._PAUSE", 0.0):
            for _ in range(6):
                collector.run_pass()
        nothing = [record for record in self.records("error") if record["reason"] == "unreadable"]
        self.assertEqual([record["uid"] for record in nothing], uids[1:2])

    def test_a_lower_next_uid_of_a_server_that_does_not_tell_it_says_nothing(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        collector.run_pass()
        self.server.expunge(self.address, uids[-1])
        self.mailbox.close()
        self.mailbox.tells_next_uid = False
        with self.assertNoLogs("mailer.collect", "WARNING"):
            self.assertEqual(collector.run_pass(), (0, 0))

    def test_a_changed_uidvalidity_begins_anew_with_the_unseen(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        collector.run_pass()
        new = self.deliver(1)
        self.server.uidvalidity = 2
        self.addCleanup(setattr, self.server, "uidvalidity", 1)
        self.server.cut_connections()
        with self.assertLogs("mailer.collect", "WARNING"):
            collector.run_pass()
        records = self.records("success") + self.records("error")
        found = [(record["uidvalidity"], record["uid"]) for record in records]
        self.assertEqual(sorted(found), [(1, uid) for uid in uids] + [(2, uid) for uid in new])
        collector.run_pass()
        self.start().run_pass()
        self.assertEqual(len(self.uids()), 4)

    def test_a_search_that_finds_what_is_not_there_hides_nothing_that_comes(self) -> None:
        uids = self.deliver(2)
        collector = self.start()
        for made_up in ([4_000_000_000], [uids[-1] + 50]):
            with mock.patch.object(WatchedMailbox, "since", lambda *_, more=made_up: more):
                collector.run_pass()
            uids += self.deliver(1)
            collector.run_pass()
            self.assertEqual(self.uids(), uids)
        self.start().run_pass()
        self.assertEqual(self.uids(), uids)

    def test_a_mark_that_somebody_takes_away_stays_so(self) -> None:
        uids = self.deliver(3)
        self.start().run_pass()
        inbox = self.server.store.folders(self.address)["INBOX"]
        inbox.set_flags(inbox.messages[1], lambda flags: flags - {r"\Seen"})
        for _ in range(2):
            self.start().run_pass()
        self.assertEqual(self.seen(uids), [True, False, True])

    def test_mails_may_disappear_at_any_time(self) -> None:
        uids = self.deliver(4)
        collector = self.start()

        def expunge() -> None:
            for uid in (uids[0], uids[3]):
                with suppress(KeyError):
                    self.server.expunge(self.address, uid)
            Mailbox.open(self.mailbox)  # the server tells of it now

        self.mailbox.on_fetch = expunge
        collector.run_pass()
        self.assertEqual(self.uids(), uids[1:3])
        collector.run_pass()
        self.assertEqual(self.uids(), uids[1:3])

    def test_those_that_have_gone_are_asked_for_once(self) -> None:
        uids = self.deliver(40)
        collector = self.start()
        self.mailbox.on_fetch = lambda: setattr(self, "stop", True)
        collector.run_pass()
        for uid in uids[10:]:
            self.server.expunge(self.address, uid)
        self.stop = False
        self.mailbox.on_fetch = lambda: None
        for fetches in (1, 0, 0):
            before = len(self.effects.log)
            collector.run_pass()
            self.assertEqual(self.effects.log[before:].count("fetch"), fetches)

    def test_without_marking_nothing_is_repeated(self) -> None:
        self.mark_seen = False
        uids = self.deliver(3)
        for _ in range(2):
            collector = self.start()
            collector.run_pass()
            collector.run_pass()
        self.assertEqual(self.uids(), uids)
        self.assertEqual(self.seen(uids), [False] * 3)

    def test_a_stop_ends_a_pass_after_its_batch(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        with mock.patch.object(collect, "_ASKED", 1):
            self.mailbox.on_fetch = lambda: setattr(self, "stop", True)
            collector.run_pass()
            self.assertEqual(self.uids(), uids[:1])
            self.assertEqual(self.seen(uids), [True, False, False])
            self.stop = False
            self.mailbox.on_fetch = lambda: None
            collector.run_pass()
        self.assertEqual(self.uids(), uids)

    def test_batches_are_bounded_in_mails_and_bytes(self) -> None:
        self.deliver(900)
        for _ in range(3):
            self.server.deliver(self.address, mail(1) + b"long line\r\n" * 120_000)
        self.start().run_pass()
        # The marks, 500 and 401 mails, then one million characters each, and at last that they are marked.
        self.assertEqual(self.effects.log.count("save"), 6)
        self.assertEqual(len(self.uids()), 903)

    def test_an_unreadable_mail_is_recorded_and_its_bytes_are_kept(self) -> None:
        uid = self.server.deliver(self.address, b"\0\xff" * 100)
        later = self.deliver(1)
        self.start().run_pass()
        self.assertEqual(self.uids(), [uid, *later])
        self.assertEqual(self.records("error")[0]["reason"], "unreadable")
        self.assertEqual((self.folder / "state" / "unreadable" / f"1-{uid}.eml").read_bytes(), b"\0\xff" * 100)


class Crashes(CollectCase):
    def test_a_crash_at_every_single_effect(self) -> None:
        """Whatever the effect at which the process ends, the next start loses and repeats nothing."""
        for at in range(1, 100):
            with self.subTest(at=at):
                self.begin()
                self.effects.fail_at[at] = Crash()
                uids: list[int] = []
                with mock.patch.object(collect, "_ASKED", 2), mock.patch.object(collect, "_MAILS", 2):
                    with suppress(Crash):
                        collector = self.start()
                        for _ in range(2):
                            uids += self.deliver(3)
                            collector.run_pass()
                    crashed = not self.effects.fail_at
                    self.effects.fail_at.clear()
                    collector = self.start()
                    collector.run_pass()
                    collector.run_pass()
                self.assertEqual(self.uids(), uids)
                self.assertEqual(self.seen(uids), [True] * len(uids))
            if not crashed:
                break
        self.assertFalse(crashed, "every effect had its crash")

    def test_a_failure_at_every_single_effect(self) -> None:
        """The same without an end of the process: the pass fails, and is tried again."""
        for at in range(1, 100):
            failure = StateError("disk full") if at % 2 else MailboxError("connection lost")
            with self.subTest(at=at):
                self.begin()
                self.effects.fail_at[at] = failure
                with mock.patch.object(collect, "_ASKED", 2), mock.patch.object(collect, "_MAILS", 2):
                    collector = self.start()
                    uids = self.deliver(4)
                    for _ in range(4):
                        with suppress(MailboxError, StateError):
                            collector.run_pass()
                self.assertEqual(self.uids(), uids)
                self.assertEqual(self.seen(uids), [True] * len(uids))
            if self.effects.fail_at:
                break
        self.assertTrue(self.effects.fail_at, "every effect had its failure")

    def test_the_start_after_a_crash_may_end_early_in_any_way(self) -> None:
        """What was logged and not met again by then is not repeated, whatever comes after."""
        for early in (Crash(), StateError("disk full"), MailboxError("connection lost"), None):
            with self.subTest(early):
                self.begin()
                uids = self.deliver(6)
                self.effects.fail_at[11] = Crash()
                with suppress(Crash):  # all are in the logs
                    self.start().run_pass()
                self.assertEqual((self.uids(), self.effects.log[-1]), (uids, "save"))
                collector = self.start()
                self.mailbox.on_fetch = lambda: setattr(self, "stop", True)  # behind the first one
                if early:
                    self.effects.fail_at[len(self.effects.log) + 5] = early
                with suppress(Crash, StateError, MailboxError):
                    collector.run_pass()
                self.assertLess(self.position.load().done if self.position else 0, uids[-1])
                self.stop = False
                uids += self.deliver(2)
                collector = self.start()
                collector.run_pass()
                self.assertEqual(self.uids(), uids)
                ends = tuple(journal.mark for journal in collector._ledger._journals)
                self.assertEqual(collector._ledger.progress.marks, ends, "no more than needed")

    def test_a_failing_fsync_repeats_nothing(self) -> None:
        uids = self.deliver(4)
        collector = self.start()
        collector._ledger._journals[1]._fsync = mock.Mock(side_effect=[OSError(errno.EIO, "I/O error"), None, None])  # type: ignore[attr-defined]
        with self.assertRaises(StateError):
            collector.run_pass()
        self.assertEqual(self.seen(uids), [False] * 4)
        collector.run_pass()
        self.assertEqual(self.uids(), uids)

    def test_the_logs_may_be_rotated_before_and_after_a_crash(self) -> None:
        for after in range(3, 9):  # open, fetch; append, appended, for both logs; save, saved
            with self.subTest(after):
                self.begin()
                uids = self.deliver(3)
                collector = self.start()
                collector.run_pass()
                self.rotate(1)
                uids += self.deliver(4)
                self.effects.fail_at[len(self.effects.log) + after] = Crash()
                with suppress(Crash):
                    collector.run_pass()
                self.rotate(2)
                self.start().run_pass()
                self.assertEqual(self.uids(), uids)

    def test_a_lost_state_folder_repeats_nothing_that_is_in_the_logs(self) -> None:
        self.mark_seen = False  # so that all of them are still unseen
        uids = self.deliver(4)
        self.start().run_pass()
        self.rotate(1)
        uids += self.deliver(3)
        self.start().run_pass()
        self.end()
        shutil.rmtree(self.folder / "state")
        uids += self.deliver(2)
        collector = self.start()
        collector.run_pass()
        collector.run_pass()
        self.assertEqual(self.uids(), uids)

    def test_a_log_of_another_mailbox_hides_nothing(self) -> None:
        """UIDs and UIDVALIDITY of two mailboxes may be the same numbers."""
        self.deliver(4)
        names = ("<other@x>", ["<1@x>"], {"a": 1}, 7)  # whatever a log holds that somebody has worked on
        other = [
            {"message_id": name, "ticket": 1, "uidvalidity": 1, "uid": uid} for uid, name in enumerate(names, start=1)
        ]
        (self.folder / "success.log").write_text("".join(json.dumps(record) + "\n" for record in other))
        self.start().run_pass()
        self.assertEqual(len(self.uids()), 8)

    def test_nor_is_it_read_again_by_each_pass_that_fails(self) -> None:
        other = [{"message_id": "<other@x>", "ticket": 1, "uidvalidity": 1, "uid": uid} for uid in range(100, 120)]
        log = self.folder / "success.log"
        log.write_text("".join(json.dumps(record) + "\n" for record in other))
        uids = self.deliver(3)
        collector = self.start()
        collector.run_pass()
        read: list[int] = []
        real = Journal.recover

        def recover(journal: Journal, since: Mark) -> Iterator[Logged]:
            read.append(journal.path.stat().st_size - since.size)  # from each of the two
            return real(journal, since)

        with mock.patch.object(Journal, "recover", recover):
            for _ in range(4):
                self.effects.fail_at[len(self.effects.log) + 1] = MailboxError("connection lost")
                self.assertRaises(MailboxError, collector.run_pass)
            self.assertEqual(read[-4:], [0, 0, 0, 0])
            uids += self.deliver(2)
            self.start().run_pass()
        self.assertEqual(self.uids(), sorted([*uids, *range(100, 120)]))

    def test_neither_does_one_whose_mails_have_no_message_id(self) -> None:
        alice, date = "alice@example.com", "2026-11-26T08:00:00+00:00"
        table = (("bob@example.com", "x", None, 2), (alice, "y", None, 2), (alice, "x", date, 2), (alice, "x", None, 1))
        for sender, text, written, count in table:
            self.begin()
            self.server.deliver(self.address, b"From: alice@example.com\r\nSubject: [Ticket #1] Mailer\r\n\r\nx\r\n")
            other = {"ticket": 1, "from": sender, "subject": "[Ticket #1] Mailer", "date": written, "message_id": None,
                     "text": text, "uidvalidity": 1, "uid": 1}  # fmt: skip
            (self.folder / "success.log").write_text(json.dumps(other) + "\n")
            self.start().run_pass()
            self.assertEqual(len(self.uids()), count, (sender, text))


class Refusals(CollectCase):
    """A mail that the server does not give stops neither the others nor the collector."""

    def setUp(self) -> None:
        super().setUp()
        self.pause = mock.patch("mailer.collect.refusals._PAUSE", 0.0)
        self.pause.start()
        self.addCleanup(self.pause.stop)
        log, silent = logging.getLogger("mailer.collect"), logging.NullHandler()
        log.addHandler(silent)
        self.addCleanup(log.removeHandler, silent)

    def test_a_refused_mail_is_tried_again_and_then_recorded_as_unreadable(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        self.mailbox.refusing = frozenset(uids[1:2])
        for _ in range(4):
            collector.run_pass()
            self.assertEqual(self.uids(), [uids[0], uids[2]])
        with self.assertLogs("mailer.collect", "WARNING"):
            collector.run_pass()
        self.assertEqual(self.uids(), uids)
        refused = next(record for record in self.records("error") if record["uid"] == uids[1])
        self.assertEqual((refused["reason"], refused["defects"]), ("unreadable", ["missing"]))
        self.assertEqual(self.seen(uids), [True, False, True], "it stays unseen, for somebody to look at")
        collector.run_pass()
        self.assertEqual(self.uids(), uids)

    def test_however_often_the_mailbox_is_polled_the_tries_are_apart(self) -> None:
        uids = self.deliver(2)
        collector = self.start()
        self.mailbox.refusing = frozenset(uids[:1])
        self.pause.stop()
        self.addCleanup(self.pause.start)
        for _ in range(12):
            collector.run_pass()
        collector = self.start()
        self.mailbox.refusing = frozenset(uids[:1])
        for _ in range(3):
            collector.run_pass()
        refused = collector._ledger.progress.refused
        self.assertEqual({uid: tries.number for uid, tries in refused.items()}, {uids[0]: 1})
        self.mailbox.refusing = frozenset()
        collector._refusals = refusals.Refusals(lambda: time.time() + 40)
        collector.run_pass()
        self.assertEqual(sorted(self.uids()), uids)

    def test_a_mail_of_which_more_is_refused_is_tried_again_and_then_recorded_as_far_as_it_was_given(self) -> None:
        for count in (1, 3, 50):  # also where it is the only one
            with self.subTest(count):
                self.begin()
                uids = self.deliver(count)
                collector = self.start()
                self.mailbox.stingy = frozenset(uids)
                for _ in range(5):
                    self.assertTrue(set(self.uids()) <= set(uids[20:]), "no more than these are kept for another try")
                    collector.run_pass()
                self.assertEqual(sorted(self.uids()), uids)
                records = self.records("success") + self.records("error")
                self.assertEqual({tuple(record["defects"]) for record in records}, {("missing",)})
                self.assertEqual({record["truncated"] for record in records}, {True})
                collector.run_pass()
                self.assertEqual(sorted(self.uids()), uids)

    def test_more_of_a_mail_that_is_given_at_last_is_read(self) -> None:
        uids = self.deliver(2)
        collector = self.start()
        self.mailbox.stingy = frozenset(uids)
        collector.run_pass()
        self.assertEqual(self.uids(), [])
        self.mailbox.stingy = frozenset()
        collector.run_pass()
        self.assertEqual(self.uids(), uids)
        self.assertFalse([record for record in self.records("error") if "defects" in record])

    def test_the_beginning_of_a_mail_that_disappeared_meanwhile_is_recorded(self) -> None:
        uids = self.deliver(2)
        collector = self.start()
        self.mailbox.stingy = frozenset(uids[:1])
        collector.run_pass()
        self.server.expunge(self.address, uids[0])
        collector.run_pass()
        self.assertEqual(sorted(self.uids()), uids)

    def test_of_a_mail_that_breaks_every_connection_what_came_before_is_recorded(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        self.mailbox.breaking, self.mailbox.fragile = frozenset(uids[1:2]), True
        for _ in range(20):
            with suppress(MailboxError):
                collector.run_pass()
        self.assertEqual(sorted(self.uids()), uids)
        record = next(record for record in self.records("success") + self.records("error") if record["uid"] == uids[1])
        self.assertEqual((record["defects"], record["message_id"] is None), (["missing"], False))

    def test_a_batch_that_takes_long_is_committed_mail_by_mail(self) -> None:
        uids = self.deliver(3)
        with mock.patch.object(collect, "_SECONDS", 0.0):
            self.start().run_pass()
        self.assertEqual(self.effects.log.count("saved"), len(uids) + 2, "and the marks, before and after")
        self.assertEqual(self.uids(), uids)

    def test_a_stop_ends_a_batch_behind_the_mail_that_is_read(self) -> None:
        uids = self.deliver(5)
        collector = self.start()
        self.mailbox.on_fetch = lambda: setattr(self, "stop", True)
        collector.run_pass()
        self.assertEqual(self.uids(), uids[:1])
        self.stop = False
        self.start().run_pass()
        self.assertEqual(self.uids(), uids)

    def test_a_stop_in_the_middle_of_a_mail_is_not_held_against_it(self) -> None:
        uids = self.deliver(1)
        collector = self.start()
        self.mailbox.breaking, self.mailbox.fragile = frozenset(uids), True
        self.mailbox.on_fetch = lambda: setattr(self, "stop", True)
        self.assertRaises(MailboxError, collector.run_pass)
        self.assertEqual(collector._ledger.progress.refused, {})
        self.assertEqual(self.uids(), [])

    def test_a_mail_that_breaks_the_connection_after_a_while_is_counted_once_each_time(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        self.mailbox.breaking, self.mailbox.fragile = frozenset(uids[1:2]), True
        with mock.patch.object(collect, "_SECONDS", 0.0):
            self.assertEqual(self.failures(collector), 6, "once with the others, then five times alone")
        self.assertEqual(self.uids(), uids)

    def test_more_refused_mails_than_can_be_remembered_are_got_over(self) -> None:
        uids = self.deliver(9)
        collector = self.start()
        self.mailbox.refusing = frozenset(uids[1:8])
        with mock.patch.object(refusals, "_MOST", 3), mock.patch.object(collect, "_ASKED", 2):
            for _ in range(30):
                with suppress(MailboxError):
                    collector.run_pass()
        self.assertEqual(self.uids(), uids)
        self.assertEqual(sum(record["reason"] == "unreadable" for record in self.records("error")), 7)

    def test_one_that_breaks_the_connection_is_got_over_beside_as_many(self) -> None:
        uids = self.deliver(6)
        collector = self.start()
        self.mailbox.refusing, self.mailbox.breaking = frozenset(uids[1:4]), frozenset(uids[4:5])
        with mock.patch.object(refusals, "_MOST", 3):
            for _ in range(40):
                with suppress(MailboxError):
                    collector.run_pass()
        self.assertEqual(self.uids(), uids)

    def test_a_shortage_of_memory_costs_no_mail_and_one_too_large_for_it_no_other(self) -> None:
        uids = self.deliver(4)
        collector = self.start()
        real = reading.read

        def short(raw: bytes, **options: bool) -> Reading:
            if short_of_memory(raw):
                raise MemoryError
            return real(raw, **options)

        with mock.patch.object(collect, "read", short):
            short_of_memory = lambda _: True  # noqa: E731 - it changes
            for _ in range(3):
                self.assertRaises(MailboxError, collector.run_pass)
            self.assertEqual(self.uids(), [])
            short_of_memory = lambda raw: b"text 2" in raw  # noqa: E731
            self.failures(collector)
        self.assertEqual(self.uids(), uids)
        self.assertEqual(len(self.records("success")), 1)

    def test_a_mail_that_is_given_at_last_is_read(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        self.mailbox.refusing = frozenset(uids[1:2])
        collector.run_pass()
        collector = self.start()  # the number of tries outlives a restart, and so does the mail
        self.mailbox.refusing = frozenset(uids[1:2])
        collector.run_pass()
        self.mailbox.refusing = frozenset()
        collector.run_pass()
        self.assertEqual(self.uids(), uids)
        self.assertEqual(len(self.records("success")), 1)

    def failures(self, collector: Collector) -> int:
        """How many of a dozen passes fail."""
        failures = 0
        for _ in range(12):
            try:
                collector.run_pass()
            except MailboxError:
                failures += 1
        return failures

    def test_a_mail_whose_fetch_breaks_the_connection_is_found_out(self) -> None:
        uids = self.deliver(6)
        collector = self.start()
        self.mailbox.breaking = frozenset(uids[3:4])
        self.assertEqual(self.failures(collector), 6, "once with the others, then five times alone")
        self.assertEqual(self.uids(), uids)

    def test_a_mail_that_the_server_has_for_another_time_again_and_again_is_found_out(self) -> None:
        uids = self.deliver(6)
        collector = self.start()
        self.mailbox.away = frozenset(uids[3:4])
        self.assertEqual(self.failures(collector), 6, "once with the others, then five times alone")
        self.assertEqual(self.uids(), uids)
        uids += self.deliver(2)
        self.mailbox.away = frozenset(uids)
        with mock.patch.object(WatchedMailbox, "gives_others", lambda *_: False):  # an outage
            for _ in range(12):
                self.assertRaises(MailboxError, collector.run_pass)
        self.mailbox.away = frozenset()
        collector.run_pass()
        self.assertEqual(self.uids(), uids)
        self.assertEqual(sum(record["reason"] == "unreadable" for record in self.records("error")), 1)

    def test_a_connection_that_breaks_once_over_a_mail_is_not_held_against_it(self) -> None:
        uids = self.deliver(2)
        collector = self.start()
        collector.run_pass()
        uids += self.deliver(1)
        self.mailbox.breaking = frozenset(uids[2:])
        self.assertRaises(MailboxError, collector.run_pass)
        self.mailbox.breaking = frozenset()
        with self.assertNoLogs("mailer.collect"):
            collector.run_pass()
        self.assertEqual((self.uids(), collector.refused), (uids, 0))

    def test_an_outage_is_no_fault_of_the_only_mail(self) -> None:
        uids = self.deliver(1)
        collector = self.start()
        self.mailbox.breaking = frozenset(uids)
        for _ in range(12):
            with self.assertRaises(MailboxError):
                collector.run_pass()
        self.mailbox.breaking = frozenset()
        collector.run_pass()
        self.assertEqual(self.uids(), uids)
        self.assertNotIn("unreadable", [record["reason"] for record in self.records("error")])

    def test_a_mail_that_breaks_the_connection_is_to_blame_once_others_are_given(self) -> None:
        uids = self.deliver(1)
        collector = self.start()
        self.mailbox.breaking = frozenset(uids)
        for number in range(20):
            if number == 8:
                uids += self.deliver(1)
            with suppress(MailboxError):
                collector.run_pass()
        self.assertEqual(sorted(self.uids()), uids)
        unreadable = [record["uid"] for record in self.records("error") if record["reason"] == "unreadable"]
        self.assertEqual(unreadable, uids[:1])

    def test_a_refused_mail_that_disappears_is_forgotten(self) -> None:
        uids = self.deliver(2)
        collector = self.start()
        self.mailbox.refusing = frozenset(uids[:1])
        collector.run_pass()
        self.server.expunge(self.address, uids[0])
        for _ in range(6):
            collector.run_pass()
        self.assertEqual(self.uids(), uids[1:])
        self.assertEqual(collector._ledger.progress.refused, {})

    def test_a_connection_that_breaks_over_marks_stops_no_reading(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        self.mailbox.breaks_over_marks = True
        for count in (3, 5):
            for _ in range(4):
                with suppress(MailboxError):
                    collector.run_pass()
            self.assertEqual(sorted(self.uids()), uids)
            uids += self.deliver(5 - count)
        self.mailbox.breaks_over_marks = False
        self.start().run_pass()
        self.assertEqual(self.seen(uids), [False, False, False, True, True], "tried again at a start")

    def test_marks_that_were_refused_are_made_up_for(self) -> None:
        for refused, passes in ((1, 1), (2, 3), (3, 0)):
            with self.subTest(refused=refused, passes=passes):
                self.begin()
                uids = self.deliver(3)
                collector = self.start()
                self.mailbox.refused_marks = refused
                with mock.patch.object(collect, "_MAILS", 1):  # three batches
                    collector.run_pass()
                for _ in range(passes):
                    collector.run_pass()
                if not passes:
                    self.end()
                    uids += self.deliver(1)
                    self.start().run_pass()
                self.assertEqual(self.seen(uids), [True] * len(uids))
                self.server.set_flags(self.address, uids[0], set())
                self.start().run_pass()
                self.assertEqual(self.seen(uids[:1]), [False], "somebody made it unread since")

    def test_of_very_many_refused_marks_the_newest_are_made_up_for(self) -> None:
        uids = self.deliver(5)
        collector = self.start()
        self.mailbox.refused_marks = 1
        with mock.patch.object(collect, "_MOST_UNMARKED", 2):
            collector.run_pass()
            collector.run_pass()
        self.assertEqual(self.seen(uids), [False] * 3 + [True] * 2)

    def test_what_is_logged_and_cannot_be_had_again_stops_nobody_whose_state_was_lost(self) -> None:
        for way in ("breaking", "fragile", "refusing", "breaks_over_marks"):
            with self.subTest(way):
                self.begin()
                uids = self.deliver(3)
                self.hinder(way, uids[1])
                for _ in range(20):
                    with suppress(MailboxError):
                        self.collector.run_pass()
                self.assertEqual(sorted(self.uids()), uids)
                for uid in uids:
                    self.server.set_flags(self.address, uid, set())
                self.end()
                shutil.rmtree(self.folder / "state")
                uids += self.deliver(2)
                self.hinder(way, uids[1])
                for _ in range(4):
                    with suppress(MailboxError):
                        self.collector.run_pass()
                self.assertEqual(sorted(self.uids()), uids)

    def hinder(self, way: str, uid: int) -> None:
        self.collector = self.start()
        self.mailbox.breaks_over_marks = way == "breaks_over_marks"
        self.mailbox.fragile = way == "fragile"
        if way in ("breaking", "fragile"):
            self.mailbox.breaking = frozenset([uid])
        if way == "refusing":
            self.mailbox.refusing = frozenset([uid])

    def test_many_refused_mails_hide_none_of_those_between_them(self) -> None:
        uids = self.deliver(90)
        collector = self.start()
        self.mailbox.refusing = frozenset(uids[::2])
        with self.assertLogs("mailer.collect", "WARNING") as log:
            collector.run_pass()
        self.assertEqual(self.uids(), uids[1::2])
        self.assertLess(len(log.output), 30)
        for _ in range(4):
            collector.run_pass()
        self.assertEqual(sorted(self.uids()), uids)

    def test_a_server_that_refuses_everything_is_an_outage(self) -> None:
        for count in (1, 2, 60):
            with self.subTest(count):
                self.begin()
                uids = self.deliver(count)
                collector = self.start()
                self.mailbox.refusing = frozenset(uids)
                for _ in range(12):
                    with self.assertRaises(MailboxError):
                        collector.run_pass()
                self.assertEqual(self.uids(), [])
                self.mailbox.refusing = frozenset()
                collector.run_pass()
                self.assertEqual(self.uids(), uids)
                self.assertFalse([record for record in self.records("error") if record["reason"] == "unreadable"])

    def test_a_mail_refused_before_is_not_to_blame_for_an_outage(self) -> None:
        uids = self.deliver(3)
        collector = self.start()
        self.mailbox.refusing = frozenset(uids[1:2])
        collector.run_pass()
        with mock.patch.object(WatchedMailbox, "gives_others", lambda *_: False):
            for _ in range(12):
                with self.assertRaises(MailboxError):
                    collector.run_pass()
        self.mailbox.refusing = frozenset()
        collector.run_pass()
        self.assertEqual(self.uids(), uids)
        self.assertFalse([record for record in self.records("error") if record["reason"] == "unreadable"])


class Loop(unittest.TestCase):
    """The loop around passes, with time that does not pass."""

    def run_loop(
        self, *outcomes: Any, period: float = 60.0, place: Callable[[], object] = lambda: None
    ) -> tuple[list[float], list[str], list[bool]]:
        """The waits, the log, and the signs of life of a loop whose passes end like this; it stops after the last."""
        remaining = list(outcomes)
        waits: list[float] = []
        alive: list[bool] = []

        def run_pass() -> tuple[int, int]:
            outcome = remaining.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return (outcome, 0)

        def pause(seconds: float) -> bool:
            if seconds:
                waits.append(seconds)
            return bool(seconds) and not remaining

        with self.assertLogs("mailer.collect.polling", "DEBUG") as logs:
            polling._log.debug("begin")
            polling.keep_going(
                run_pass, period=lambda: period, pause=pause, alive=lambda: alive.append(True), clock=lambda: 0.0,
                spread=lambda: 1.0, place=place,
            )
        return waits, [f"{entry.levelname} {entry.getMessage()}" for entry in logs.records[1:]], alive

    def test_passes_come_once_a_period_and_only_mail_is_told(self) -> None:
        waits, log, alive = self.run_loop(0, 0, 3, 0)
        self.assertEqual(waits, [60.0] * 4)
        self.assertEqual(log, ["INFO 3 new: 3 of tickets, 0 others"])
        self.assertEqual(len(alive), 4)

    def test_a_pass_that_fails_but_got_on_is_soon_followed_by_the_next(self) -> None:
        away = MailboxError("the connection broke")
        places = iter([0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
        waits, _, _ = self.run_loop(away, away, away, away, away, 0, place=lambda: next(places))
        self.assertEqual(waits, [1.0, 2.0, 1.0, 1.0, 2.0, 60.0])

    def test_one_other_mail_is_told_in_the_singular(self) -> None:
        with self.assertLogs("mailer.collect.polling", "INFO") as logs:
            polling.report(2, 1)
        self.assertEqual(logs.records[0].getMessage(), "3 new: 2 of tickets, 1 other")

    def test_an_outage_is_told_once_and_so_is_its_end(self) -> None:
        away = [MailboxError(f"mail.example: connection {number} refused") for number in range(9)]
        waits, log, alive = self.run_loop(0, *away, 0)
        self.assertEqual(waits, [60.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0])
        self.assertEqual(len(log), 2)
        self.assertIn("connection 0 refused", log[0])
        self.assertIn("again", log[1])
        self.assertEqual(len(alive), 2)

    def test_a_login_refused_during_an_outage_is_told_too(self) -> None:
        away, refused = MailboxError("connection refused"), MailboxError("login refused", ExitCode.LOGIN_REFUSED)
        _, log, _ = self.run_loop(0, away, away, refused, refused, away, 0, away, 0)
        told = [line.partition(";")[0].removeprefix("ERROR ") for line in log if line.startswith("ERROR")]
        self.assertEqual(told, ["connection refused", "login refused", "connection refused"])

    def test_waits_are_spread(self) -> None:
        waits: list[float] = []

        def failing() -> tuple[int, int]:
            raise MailboxError("away")

        def pause(seconds: float) -> bool:
            waits.extend([seconds] if seconds else [])
            return len(waits) > 3

        with self.assertLogs("mailer.collect.polling", "ERROR"):
            polling.keep_going(failing, period=lambda: 1, pause=pause, spread=lambda: 0.0)
        self.assertEqual(waits, [0.5, 1.0, 2.0, 4.0])

    def test_a_full_disk_is_an_outage_too(self) -> None:
        _, log, _ = self.run_loop(StateError("disk full"), StateError("disk full"), 0)
        self.assertEqual(len(log), 2)

    def test_settings_that_are_refused_at_the_start_end_it_and_later_do_not(self) -> None:
        for code in (ExitCode.LOGIN_REFUSED, ExitCode.CONFIG):
            refused = MailboxError("refused", code)
            with self.subTest(code):
                with self.assertRaises(MailboxError):
                    self.run_loop(refused)
                with self.assertRaises(MailboxError):
                    self.run_loop(MailboxError("away"), refused)
                waits, _, _ = self.run_loop(0, *[refused] * 15, 0)
                self.assertEqual(max(waits), 300.0 if code is ExitCode.LOGIN_REFUSED else 60.0)

    def test_a_stop_in_an_outage_is_silent(self) -> None:
        def failing() -> tuple[int, int]:
            raise MailboxError("stopped while waiting")

        with self.assertNoLogs("mailer.collect.polling"):
            polling.keep_going(failing, period=lambda: 1, pause=lambda _: True)
