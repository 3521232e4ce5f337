"""The mailbox: against a mail server in memory, and against servers that do everything wrong."""

import contextlib
import functools
import socket
import sys
import threading
import time
import unittest
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar
from unittest import mock

from mailer.errors import ExitCode, MailboxError
from mailer.imap import Mailbox, stream
from mailer.imap.syntax import mailbox_name, responses
from mailer.progress import Mail
from mailer.sandbox.mail import MailServer
from mailer.sasl import Login
from mailer.settings import Endpoint, Security
from mailer.tls import client_context
from tests.support.scripted import (
    Action,
    Conversation,
    ScriptedServer,
    Table,
    bytewise,
    close,
    drip,
    endless,
    hang,
    refused_port,
    reset,
    swallowing_port,
)
from tests.support.waiting import wait_until

ADDRESS = "helpdesk@example.com"
PASSWORD = "sandbox"
CONTEXT = client_context(None)
SELECTED = b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT 12] ok\r\n%tag% OK [READ-WRITE] selected\r\n"

# An IMAP server with three mails, 9 to 11. Change single keys of it.
IMAP: Table = {
    "greeting": b"* OK ready\r\n",
    "CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n%tag% OK done\r\n",
    "AUTHENTICATE": b"+ \r\n",
    "response": b"%tag% OK welcome\r\n",
    "LOGIN": b"%tag% OK welcome\r\n",
    "SELECT": SELECTED,
    "EXAMINE": SELECTED.replace(b"READ-WRITE", b"READ-ONLY"),
    "NOOP": b"%tag% OK here\r\n",
    "UID SEARCH": b"* SEARCH 9 10 11\r\n%tag% OK found\r\n",
    "UID FETCH": b"%tag% OK nothing\r\n",
    "UID STORE": b"%tag% OK stored\r\n",
    "otherwise": b"%tag% BAD unknown\r\n",
}


def mailbox(port: int, *, security: Security = Security.PLAIN, host: str = "127.0.0.1", **changes: Any) -> Mailbox:
    """A mailbox on that port; changes are settings other than the usual."""
    settings: dict[str, Any] = {
        "login": Login(ADDRESS, lambda _: PASSWORD), "folder": "INBOX", "context": CONTEXT, "timeout": 5.0, **changes
    }
    return Mailbox(Endpoint(host, port, security), **settings)


def no_more(_raw: bytes) -> bool:
    return False


def all_of_it(_raw: bytes) -> bool:
    return True


def fetch(opened: Mailbox, uids: Sequence[int], wants_more: Callable[[bytes], bool] = no_more) -> list[Mail]:
    return list(opened.fetch(uids, wants_more))


class ImapCase(unittest.TestCase):
    def failure(self, action: Callable[[], object]) -> MailboxError:
        """The error that the action ends with."""
        with self.assertRaises(MailboxError) as raised:
            action()
        return raised.exception

    def opened(self, port: int, **changes: Any) -> Mailbox:
        box = mailbox(port, **changes)
        self.addCleanup(box.close)
        box.open()
        return box


class Reading(ImapCase):
    """Against the mail server in memory."""

    def setUp(self) -> None:
        self.commands: list[str] = []
        self.server = MailServer(on_command=self.commands.append)
        self.server.start()
        self.addCleanup(self.server.stop)

    def deliver(self, *mails: bytes) -> list[int]:
        return [self.server.deliver(ADDRESS, mail) for mail in mails]

    def test_the_next_ones_are_asked_for_before_the_last_ones_are_handed_out(self) -> None:
        uids = self.deliver(*[b"small"] * 250)
        box = self.opened(self.server.imap_port)
        mails = box.fetch(uids, no_more)

        def fetches() -> int:
            return sum(" FETCH " in command for command in self.commands)

        for size, count in ((10, 2), (20, 3), (40, 4), (80, 5), (100, 5)):
            first = next(mails)
            wait_until(lambda count=count: fetches() == count)  # type: ignore[misc]
            box.mark([first.uid])  # asked in between, and answered as ever
            rest = [next(mails) for _ in range(size - 1)]
            self.assertEqual([mail.raw for mail in rest], [b"small"] * (size - 1))
        self.assertEqual(list(mails), [])

    def test_what_was_asked_for_ahead_is_not_asked_for_again_behind_a_large_mail(self) -> None:
        uids = self.deliver(*[b"small"] * 50, b"l" * 200_000, *[b"small"] * 199)
        self.assertEqual(len(fetch(self.opened(self.server.imap_port), uids, all_of_it)), 250)
        asked = [command.split()[3] for command in self.commands if " FETCH " in command and "<0." in command]
        self.assertEqual(asked, ["1:10", "11:30", "31:70", "71:150", "151:250"])

    def test_on_a_slow_line_fewer_are_asked_for_at_once(self) -> None:
        uids = self.deliver(*[b"small"] * 45)
        box = self.opened(self.server.imap_port)
        with mock.patch("mailer.imap._QUICK", 0.0), mock.patch("mailer.imap.SLOW", 0.0):
            self.assertEqual([mail.uid for mail in box.fetch(uids[:15], no_more)], uids[:15])
        fetch(box, uids[15:])
        asked = [command.split()[3] for command in self.commands if " FETCH " in command and "<0." in command]
        self.assertEqual(asked, ["1:10", "11:12", "13", "14", "15", "16", "17:18", "19:22", "23:30", "31:45"])

    def test_an_answer_that_nobody_asks_for_any_more_disturbs_nothing(self) -> None:
        uids = self.deliver(*[b"small"] * 250)
        box = self.opened(self.server.imap_port)
        next(box.fetch(uids, no_more))
        self.assertEqual(list(box.since(1)), uids)
        box.open()
        self.assertEqual([mail.uid for mail in fetch(box, uids[:3])], uids[:3])

    def test_what_is_new_goes_by_uid(self) -> None:
        uids = self.deliver(b"1", b"2", b"3")
        self.server.set_flags(ADDRESS, uids[1], [r"\Seen"])
        box = self.opened(self.server.imap_port)
        self.assertEqual(box.open()[:2], (1, uids[-1] + 1))
        self.assertEqual(list(box.unseen()), [uids[0], uids[2]])
        self.assertEqual(list(box.since(uids[1])), uids[1:])
        self.assertEqual(list(box.since(uids[-1] + 1)), [], "the last mail answers to `n:*` but is not new")

    def test_mails_are_peeked_at_whole_and_in_order(self) -> None:
        mails = [b"", b"short", b"\0\xff\r\n)\r\nA1 OK {5}\r\n", b"y" * 900_000]
        mails += [b"x" * size for size in (65_535, 65_536, 65_537, 262_144)]
        uids = self.deliver(*mails)
        box = self.opened(self.server.imap_port)
        self.assertEqual([mail.raw for mail in fetch(box, uids, all_of_it)], mails)
        self.assertEqual({mail.complete for mail in fetch(box, uids, all_of_it)}, {True})
        self.assertNotIn(r"\Seen", self.server.flags(ADDRESS, uids[1]))

    def test_only_as_much_is_fetched_as_the_reader_wants(self) -> None:
        uids = self.deliver(b"z" * 25_000_000)
        box = self.opened(self.server.imap_port)
        self.assertEqual(fetch(box, uids), [Mail(uids[0], b"z" * 65_536, complete=False)])
        wanted = fetch(box, uids, lambda raw: len(raw) < 1_000_000)[0]
        self.assertEqual(len(wanted.raw or b""), 1_048_576)
        self.assertLess(len(fetch(box, uids, all_of_it)[0].raw or b""), 20_000_000, "there is a limit all the same")

    def test_batches_are_bounded(self) -> None:
        uids = self.deliver(*[b"small"] * 200, *[b"l" * 100_000] * 50)
        box = self.opened(self.server.imap_port)
        for count in (5, 3):
            self.commands.clear()
            self.assertEqual([mail.uid for mail in box.fetch(uids, no_more)], uids)
            self.assertEqual(len([command for command in self.commands if "BODY.PEEK" in command]), count)

    def test_mails_that_disappear_are_left_out(self) -> None:
        uids = self.deliver(b"1", b"2", b"3")
        box = self.opened(self.server.imap_port)
        for gone in uids[1:]:
            self.server.expunge(ADDRESS, gone)
        box.open()  # the server tells of it now
        self.assertEqual(fetch(box, [*uids, 99]), [Mail(uids[0], b"1")])

    def test_marking_sets_seen_and_nothing_else(self) -> None:
        uids = self.deliver(b"1", b"2")
        self.server.set_flags(ADDRESS, uids[0], [r"\Flagged"])
        box = self.opened(self.server.imap_port)
        box.mark([uids[0]])
        box.mark([])
        self.assertEqual(self.server.flags(ADDRESS, uids[0]), {r"\Flagged", r"\Seen"})
        self.assertEqual(self.server.flags(ADDRESS, uids[1]), frozenset())

    def test_a_mailbox_that_is_not_to_be_marked_is_opened_read_only(self) -> None:
        uids = self.deliver(b"1")
        self.opened(self.server.imap_port, mark_seen=False).mark(uids)
        self.assertEqual(self.server.flags(ADDRESS, uids[0]), frozenset())
        self.assertTrue(any("EXAMINE" in command for command in self.commands))

    def test_a_connection_is_kept_and_a_lost_one_replaced_silently(self) -> None:
        box = self.opened(self.server.imap_port)
        box.open()
        self.assertEqual(sum("AUTHENTICATE" in command for command in self.commands), 1)
        self.server.cut_connections()
        with self.assertNoLogs(level="WARNING"):
            box.open()
        self.assertEqual(sum("AUTHENTICATE" in command for command in self.commands), 2)

    def test_the_check_tells_each_step_and_changes_nothing(self) -> None:
        self.deliver(b"1")
        steps = list(mailbox(self.server.imap_port).check())
        self.assertEqual(len(steps), 3)
        self.assertIn(str(self.server.imap_port), steps[0])
        self.assertIn(ADDRESS, steps[1])
        self.assertIn("1 mail", steps[2])
        self.assertFalse(any("SELECT" in command for command in self.commands))

    def test_wrong_passwords_and_missing_folders_have_their_exit_codes(self) -> None:
        port = self.server.imap_port
        table: list[tuple[Mailbox, ExitCode]] = [
            (mailbox(port, login=Login(ADDRESS, lambda _: "wrong")), ExitCode.LOGIN_REFUSED),
            (mailbox(port, login=Login(ADDRESS, lambda _: "пароль")), ExitCode.LOGIN_REFUSED),
            (mailbox(port, folder="Missing"), ExitCode.CONFIG),
            (mailbox(refused_port()), ExitCode.UNAVAILABLE),
            (mailbox(port, host="name.invalid"), ExitCode.UNAVAILABLE),
            (mailbox(port, host="x" * 70), ExitCode.UNAVAILABLE),
        ]
        for box, code in table:
            with self.subTest(code):
                self.assertIs(self.failure(box.open).exit_code, code)

    def test_folder_names_in_any_language(self) -> None:
        table = {
            "INBOX": '"INBOX"',
            "Поддержка": '"&BB8EPgQ0BDQENQRABDYEOgQw-"', "R&D": '"R&-D"',
            'a"b\\c': '"a\\"b\\\\c"',
            "~peter/mail/台北/日本語": '"~peter/mail/&U,BTFw-/&ZeVnLIqe-"',
            "😀": '"&2D3eAA-"', "a\r\nb": '"a&AA0ACg-b"',
        }
        for name, written in table.items():
            with self.subTest(name):
                self.assertEqual(mailbox_name(name), written)
        self.server.deliver(ADDRESS, b"1", folder="Поддержка")
        self.assertEqual(len(self.opened(self.server.imap_port, folder="Поддержка").unseen()), 1)


class Searching(ImapCase):
    def test_a_large_mailbox_is_searched_in_portions(self) -> None:
        lines: list[bytes] = []

        def search(conversation: Conversation) -> None:
            line = conversation.lines[-1]
            lines.append(line)
            low, _, high = line.split()[4].partition(b":")
            last = 120_000 if high == b"*" else int(high)
            uids = b" ".join(b"%d" % uid for uid in range(int(low), last + 1))
            conversation.send(b"* SEARCH " + uids + b"\r\n%tag% OK done\r\n")

        big = SELECTED.replace(b"3 EXISTS", b"120000 EXISTS").replace(b"UIDNEXT 12", b"UIDNEXT 120001")
        with ScriptedServer({**IMAP, "SELECT": big, "UID SEARCH": search}, imap=True) as server:
            box = self.opened(server.port)
            self.assertEqual(list(box.unseen()), list(range(1, 120_001)))
            self.assertEqual(len(lines), 3)
            self.assertEqual(list(box.since(119_999)), [119_999, 120_000])
            self.assertEqual(len(lines), 4)

    def test_a_search_stays_bounded_whatever_uidnext_says(self) -> None:
        searched: list[bytes] = []

        def search(conversation: Conversation) -> None:
            low, _, high = conversation.lines[-1].split()[4].partition(b":")
            searched.append(low)
            found = uids[bisect_left(uids, int(low)) : None if high == b"*" else bisect_right(uids, int(high))]
            conversation.send(b"* SEARCH " + b" ".join(b"%d" % uid for uid in found) + b"\r\n%tag% OK done\r\n")

        big = SELECTED.replace(b"3 EXISTS", b"60000 EXISTS").replace(b"UIDNEXT 12", b"UIDNEXT 4294967295")
        for uids, most in ((range(1, 60_001), 3), (range(1, 60_000 * 71_000, 71_000), 1_001)):
            searched.clear()
            last = b"* 60000 FETCH (UID %d)\r\n%%tag%% OK done\r\n" % uids[-1]
            table = {**IMAP, "SELECT": big, "UID SEARCH": search, "UID FETCH": last}
            with self.subTest(last=uids[-1]), ScriptedServer(table, imap=True) as server:
                box = self.opened(server.port)
                self.assertEqual(box.open().next_uid, uids[-1] + 1, "the next mail is not below it")
                self.assertEqual(list(box.unseen()), list(uids))
                self.assertLessEqual(len(searched), most)

    def test_a_mailbox_whose_end_is_not_to_be_had_is_not_read(self) -> None:
        selected = SELECTED.replace(b"UIDNEXT 12", b"UIDNEXT 4294967295")
        for answer in (b"%tag% NO later\r\n", b"%tag% OK done\r\n"):
            with ScriptedServer({**IMAP, "SELECT": selected, "UID FETCH": answer}, imap=True) as server:
                box = mailbox(server.port)
                for _ in range(2):
                    self.assertIs(self.failure(box.open).exit_code, ExitCode.UNAVAILABLE)

    def test_a_server_without_uidnext_is_asked_for_the_last_mail(self) -> None:
        selected = SELECTED.replace(b"* OK [UIDNEXT 12] ok\r\n", b"")
        last = b"* 3 FETCH (FLAGS () UID 11)\r\n%tag% OK done\r\n"
        with ScriptedServer({**IMAP, "SELECT": selected, "UID FETCH": last}, imap=True) as server:
            self.assertEqual(self.opened(server.port).open()[:2], (7, 12))
        empty = selected.replace(b"3 EXISTS", b"0 EXISTS")
        with ScriptedServer({**IMAP, "SELECT": empty, "UID FETCH": close}, imap=True) as server:
            self.assertEqual(self.opened(server.port).open()[:2], (7, 1))

    def test_a_server_without_uidvalidity_cannot_be_used(self) -> None:
        selected = SELECTED.replace(b"* OK [UIDVALIDITY 7] ok\r\n", b"")
        with ScriptedServer({**IMAP, "SELECT": selected}, imap=True) as server:
            self.assertIs(self.failure(mailbox(server.port).open).exit_code, ExitCode.CONFIG)

    def test_numbers_that_no_uid_can_have_are_refused(self) -> None:
        for code, number in ((b"UIDVALIDITY ", b"7"), (b"UIDNEXT ", b"12"), (b"EXISTS", b"3 ")):
            for value in (b"4294967296", b"9" * 19, b"9" * 5_000, b"-1", b"x"):
                if code == b"EXISTS" and not value.isdigit():
                    continue  # which is no count at all
                with self.subTest(code=code, value=value[:20]):
                    selected = SELECTED.replace(code + number, code + value).replace(number + code, value + b" " + code)
                    with ScriptedServer({**IMAP, "SELECT": selected}, imap=True) as server:
                        self.assertIs(self.failure(mailbox(server.port).open).exit_code, ExitCode.UNAVAILABLE)

    def test_a_read_only_folder_is_read_all_the_same(self) -> None:
        with ScriptedServer({**IMAP, "SELECT": SELECTED.replace(b"READ-WRITE", b"READ-ONLY")}, imap=True) as server:
            with self.assertLogs("mailer.imap", "WARNING"):
                box = self.opened(server.port)
                self.assertEqual(box.open()[:2], (7, 12))
                box.mark([9])
            self.assertFalse(any(b"STORE" in line for line in server.lines))

    def test_marks_that_the_server_refuses_stop_nothing(self) -> None:
        with ScriptedServer({**IMAP, "UID STORE": b"%tag% NO not allowed\r\n"}, imap=True) as server:
            box = self.opened(server.port)
            with self.assertLogs("mailer.imap", "WARNING") as log:
                for _ in range(3):
                    box.mark([9])
            self.assertEqual(len(log.output), 1, "it is told once, and not asked again")
            self.assertEqual(sum(b"STORE" in line for line in server.lines), 1)
            self.assertEqual(list(box.unseen()), [9, 10, 11])

    def test_marks_that_are_refused_for_now_are_tried_with_the_next_ones(self) -> None:
        refused = b"%tag% NO [INUSE] try again later\r\n"
        answers: list[Action] = [refused, refused, b"%tag% OK stored\r\n"]
        with ScriptedServer({**IMAP, "UID STORE": answers}, imap=True) as server:
            box = self.opened(server.port)
            with self.assertLogs("mailer.imap", "WARNING") as log:
                self.assertFalse(box.mark([9]))
                self.assertFalse(box.mark([9]))
            self.assertEqual(len(log.output), 1, "it is told once")
            self.assertTrue(box.mark([10]))

    def test_very_many_marks_take_several_commands_that_no_server_finds_too_long(self) -> None:
        uids = range(1_000_000, 1_020_000, 2)  # nothing can be written as a range
        with ScriptedServer(IMAP, imap=True) as server:
            self.assertTrue(self.opened(server.port).mark(uids))
            stores = [line for line in server.lines if b"UID STORE" in line]
            self.assertLess(max(map(len, stores)), 8_000)
            self.assertEqual(sum(line.count(b",") + 1 for line in stores), len(uids))


class Fetching(ImapCase):
    """Answers to FETCH as different servers write them."""

    def answer(self, *answers: Action) -> list[Mail]:
        with ScriptedServer({**IMAP, "UID FETCH": list(answers)}, imap=True) as server:
            return fetch(self.opened(server.port), [9, 10, 11])

    def test_responses_made_to_be_costly_are_read_in_linear_time(self) -> None:
        table: dict[str, list[Any]] = {
            "a string without end": [b'1 FETCH (UID 1 X "' + b'\\"' * 200_000 + b")"],
            "strings without end": [b'1 FETCH (UID 1 BODY[] "' + b'BODY[] \\"' * 50_000],
            "literals": [*[(b" X {0}", b"")] * 200_000, b" UID 1)"],
        }
        for name, parts in table.items():
            with self.subTest(name):
                began = time.process_time()
                self.assertEqual([uid for uid, _ in responses(parts)], [1])
                self.assertLess(time.process_time() - began, 2)

    def test_responses_are_matched_by_uid_however_they_are_written(self) -> None:
        mails = [Mail(9, b"nine"), Mail(10, b"ten"), Mail(11, b'"e\\l"')]
        found = self.answer(
            b"* 2 FETCH (BODY[]<0> {3}\r\nten UID 10)\r\n"
            b"* 1 FETCH (FLAGS (\\Seen))\r\n* 4 EXISTS\r\n"
            b"* 3 FETCH (UID 11 BODY[]<0> \"\\\"e\\\\l\\\"\" FLAGS ())\r\n"
            b"* 1 FETCH (UID 9 BODY[]<0> {4}\r\nnine)\r\n"
            b"* 1 FETCH (UID 9 FLAGS (\\Seen UID))\r\n"
            b"* 7 FETCH (UID 99 BODY[]<0> {3}\r\nnot)\r\n* OK still here\r\n%tag% OK done\r\n"
        )
        self.assertEqual(found, mails)
        self.assertEqual(self.answer((bytewise(
            b"* 1 FETCH (UID 9 BODY[]<0> {4}\r\nnine)\r\n* 2 FETCH (UID 10 BODY[]<0> {3}\r\nten)\r\n"
            b"* 3 FETCH (UID 11 BODY[]<0> {5}\r\n\"e\\l\")\r\n"), b"%tag% OK done\r\n")), mails)

    def test_one_bad_mail_does_not_block_the_others(self) -> None:
        def alone(conversation: Conversation) -> None:
            uid = conversation.lines[-1].split()[3]
            good = b"* 1 FETCH (UID " + uid + b" BODY[]<0> {1}\r\nx)\r\n%tag% OK done\r\n"
            conversation.send({b"10": b"%tag% NO [SERVERBUG] cannot read it\r\n"}.get(uid, good))

        table: dict[str, Action] = {
            "NO": b"%tag% NO some are bad\r\n",
            "BAD": b"%tag% BAD some are bad\r\n",
            "a part, then NO": b"* 1 FETCH (UID 9 BODY[]<0> {1}\r\nx)\r\n%tag% NO some are bad\r\n",
            "NIL": b"* 1 FETCH (UID 9 BODY[]<0> {1}\r\nx)\r\n* 2 FETCH (UID 10 BODY[]<0> NIL)\r\n%tag% OK done\r\n",
            "silence": b"* 1 FETCH (UID 9 BODY[]<0> {1}\r\nx)\r\n%tag% OK done\r\n",
        }
        for name, answer in table.items():
            with self.subTest(name):
                self.assertEqual(self.answer(answer, alone), [Mail(9, b"x"), Mail(10, None), Mail(11, b"x")])

    def test_the_words_of_an_answer_may_be_small(self) -> None:
        answer = b"* 1 fetch (uid 9 body[]<0> {4}\r\nnine)\r\n%tag% ok done\r\n"
        self.assertEqual(self.answer(answer)[0], Mail(9, b"nine"))

    def test_nothing_behind_the_end_of_a_mail_may_be_nil(self) -> None:
        mail = b"x" * 65_536
        first = b"* 1 FETCH (UID 9 BODY[]<0> {65536}\r\n%s)\r\n%%tag%% OK done\r\n" % mail
        behind = b"* 1 FETCH (UID 9 BODY[]<65536> NIL)\r\n%tag% OK done\r\n"
        with ScriptedServer({**IMAP, "UID FETCH": [first, behind]}, imap=True) as server:
            self.assertEqual(fetch(self.opened(server.port), [9], all_of_it), [Mail(9, mail, complete=True)])

    def test_a_mail_that_was_deleted_behind_its_beginning_is_not_complete(self) -> None:
        mail = b"x" * 65_536
        first = b"* 1 FETCH (UID 9 BODY[]<0> {65536}\r\n%s)\r\n%%tag%% OK done\r\n" % mail
        for nothing in (b"NIL", b'""'):
            gone = b"* 1 FETCH (UID 9 BODY[]<65536> %b)\r\n* 1 EXPUNGE\r\n%%tag%% OK [EXPUNGEISSUED] gone\r\n" % nothing
            table: Table = {**IMAP, "UID FETCH": [first, gone], "UID SEARCH": b"* SEARCH\r\n%tag% OK none\r\n"}
            with self.subTest(nothing), ScriptedServer(table, imap=True) as server:
                found = fetch(self.opened(server.port), [9], all_of_it)
                self.assertEqual(found, [Mail(9, mail, complete=False, cut=True)])

    def test_a_search_that_is_refused_does_not_say_that_a_mail_was_deleted(self) -> None:
        mail = b"x" * 65_536
        first = b"* 1 FETCH (UID 9 BODY[]<0> {65536}\r\n%s)\r\n%%tag%% OK done\r\n" % mail
        end = b"* 1 FETCH (UID 9 BODY[]<65536> NIL)\r\n%tag% OK done\r\n"
        refusal = b"%tag% NO [SERVERBUG] internal error\r\n"
        whole, refused = Mail(9, mail, complete=True), Mail(9, mail, complete=False, refused=True)
        for second, found in ((end, whole), (refusal, refused)):
            table: Table = {**IMAP, "UID FETCH": [first, second], "UID SEARCH": refusal}
            with self.subTest(second), ScriptedServer(table, imap=True) as server:
                self.assertEqual(fetch(self.opened(server.port), [9], all_of_it), [found])

    def test_a_refusal_for_now_is_an_outage_and_nothing_about_the_mail(self) -> None:
        failure = self.failure(lambda: self.answer(b"%tag% NO [UNAVAILABLE] storage is away\r\n"))
        self.assertIs(failure.exit_code, ExitCode.TEMPORARY)
        self.assertIn("storage is away", str(failure))

    def test_a_search_that_is_refused_where_there_is_no_mail_finds_none(self) -> None:
        nothing = SELECTED.replace(b"3 EXISTS", b"0 EXISTS")
        empty: Table = {**IMAP, "SELECT": nothing, "UID SEARCH": b"%tag% NO no mail\r\n"}
        with ScriptedServer(empty, imap=True) as server:
            box = self.opened(server.port)
            self.assertEqual((list(box.unseen()), list(box.since(1))), ([], []))
        emptied: Table = {**empty, "SELECT": [SELECTED, nothing]}
        with ScriptedServer(emptied, imap=True) as server:
            self.assertEqual(list(self.opened(server.port).since(1)), [])
        with ScriptedServer({**empty, "SELECT": SELECTED}, imap=True) as server:
            self.assertIn("search for new mails is refused", str(self.failure(self.opened(server.port).unseen)))

    def test_whether_the_server_gives_other_mails(self) -> None:
        body = b"* 1 FETCH (UID 9 BODY[]<0> {1}\r\nx)\r\n%tag% OK done\r\n"
        table: list[tuple[list[int], Action, bool]] = [
            ([10], body, True), ([10], b"%tag% NO no\r\n", False), ([9, 10, 11], close, False)
        ]
        for refused, answer, gives in table:
            with self.subTest(refused), ScriptedServer({**IMAP, "UID FETCH": answer}, imap=True) as server:
                self.assertEqual(self.opened(server.port).gives_others(refused), gives)

    def test_a_mail_over_which_the_connection_breaks_does_not_hide_the_others(self) -> None:
        def break_over_10(conversation: Conversation) -> None:
            uid = conversation.lines[-1].split()[3]
            if b"10" in uid:
                close(conversation)
            conversation.send(b"* 1 FETCH (UID " + uid + b" BODY[]<0> {1}\r\nx)\r\n%tag% OK done\r\n")

        given = 0
        with ScriptedServer({**IMAP, "UID FETCH": break_over_10}, imap=True) as server:
            for _ in range(30):
                with contextlib.suppress(MailboxError):
                    given += self.opened(server.port).gives_others([9])
            self.assertIn(given, range(1, 30), "whether it does is left to chance")
            for _ in range(30):  # but for those before the refused one, which were given once
                self.assertTrue(self.opened(server.port).gives_others([10]))

    def test_a_mail_over_which_the_connection_broke_before_is_asked_for_last(self) -> None:
        def break_over_9(conversation: Conversation) -> None:
            uid = conversation.lines[-1].split()[3]
            if uid == b"9":
                close(conversation)
            conversation.send(b"* 1 FETCH (UID " + uid + b" BODY[]<0> {1}\r\nx)\r\n%tag% OK done\r\n")

        with ScriptedServer({**IMAP, "UID FETCH": break_over_9}, imap=True) as server:
            box = self.opened(server.port)
            self.failure(lambda: box.gives_others([10]))
            box.close()
            box.open()
            self.assertTrue(box.gives_others([10]))

    def test_numbers_of_mails_that_are_gone_by_now_hide_none(self) -> None:
        body = b"* 1 FETCH (UID 11 BODY[]<0> {1}\r\nx)\r\n%tag% OK done\r\n"
        searches: list[Action] = [b"%tag% BAD no such number\r\n", b"* SEARCH 9 11\r\n%tag% OK done\r\n"]
        with ScriptedServer({**IMAP, "UID FETCH": body, "UID SEARCH": searches}, imap=True) as server:
            self.assertTrue(self.opened(server.port).gives_others([9]))


class Words(ImapCase):
    def test_words_of_a_mail_are_not_shown_where_a_literal_is_longer_than_the_server_says(self) -> None:
        answer = b"* 1 FETCH (UID 9 BODY[]<0> {4}\r\nSub" + b"\r\nject: private)\r\n%tag% OK done\r\n"
        with ScriptedServer({**IMAP, "UID FETCH": answer}, imap=True) as server:
            with self.assertRaisesRegex(MailboxError, "makes no sense") as caught:
                fetch(self.opened(server.port), [9])
        self.assertNotIn("private", str(caught.exception))


class Faults(ImapCase):
    """Every stage failing in every way ends in a MailboxError, soon, and never in anything else."""

    STAGES = ("greeting", "CAPABILITY", "AUTHENTICATE", "response", "SELECT", "UID SEARCH", "UID FETCH", "UID STORE")
    WAYS: ClassVar[dict[str, Action]] = {
        "close": close, "reset": reset, "hang": hang, "drip": drip(b"* OK still here\r\n", 0.01),
        "endless": endless(b"* OK and more\r\n"), "endless line": endless(b"x"), "garbage": b"\0\xff\xfe\r\n\r\n",
        "huge literal": b"* 1 FETCH (UID 9 BODY[]<0> {99999999999}\r\n",
        "no number": b"* LIST {" + b"9" * 5000 + b"}\r\n",
        "bye": (b"* BYE going down\r\n", close), "wrong tag": b"ZZZZ99 OK done\r\n", "half a line": (b"* OK he", close),
        "half a literal": (b"* 1 FETCH (UID 9 BODY[]<0> {500}\r\nhalf", close),
        "literal capability": b"* CAPABILITY {3}\r\nabc\r\n%tag% OK done\r\n",
        "8 bit": b"* CAPABILITY \xff\r\n%tag% OK\r\n",
    }

    @staticmethod
    def use(port: int) -> None:
        box = mailbox(port, timeout=0.3)
        try:
            box.open()
            box.unseen()
            fetch(box, [9])
            box.mark([9])
        finally:
            box.close()

    def test_every_stage_failing_in_every_way(self) -> None:
        harmless = {("UID SEARCH", "8 bit"), ("UID FETCH", "8 bit"), ("UID STORE", "8 bit"), ("SELECT", "8 bit")}
        harmless |= {(stage, "literal capability") for stage in self.STAGES if stage[:3] in ("UID", "AUT", "res")}
        jobs = [(stage, way) for stage in self.STAGES for way in self.WAYS]
        wrong: list[str] = []

        def work() -> None:
            while jobs:
                stage, way = jobs.pop()
                began = time.monotonic()
                with ScriptedServer({**IMAP, stage: self.WAYS[way]}, imap=True) as server:
                    try:
                        self.use(server.port)
                        outcome = "nothing"
                    except MailboxError as failure:
                        outcome = "" if str(failure).isprintable() else repr(failure)
                    except BaseException as failure:
                        outcome = repr(failure)
                if (outcome and (stage, way) not in harmless) or time.monotonic() - began > 20:
                    wrong.append(f"{stage}, {way}: {outcome} after {time.monotonic() - began:.1f} s")

        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(wrong, [])

    def test_a_slow_line_is_no_drip(self) -> None:
        def slowly(conversation: Conversation) -> None:
            for chunk in (b"* 1 FETCH (UID 9 BODY[]<0> {2000}\r\n", *[b"x" * 100] * 20, b")\r\n%tag% OK done\r\n"):
                conversation.send(chunk)
                time.sleep(0.05)

        with ScriptedServer({**IMAP, "UID FETCH": slowly}, imap=True) as server:
            box = self.opened(server.port, timeout=0.5)
            self.assertEqual(fetch(box, [9]), [Mail(9, b"x" * 2000)])

    def test_much_that_came_at_once_is_no_credit_for_a_silence_or_a_drip(self) -> None:
        much = b"* 1 FETCH (UID 9 BODY[]<0> {65536}\r\n" + b"x" * 60_000
        for name, then in (("hang", hang), ("drip", drip(b"x", 0.05))):
            with self.subTest(name), ScriptedServer({**IMAP, "UID FETCH": (much, then)}, imap=True) as server:
                box = self.opened(server.port, timeout=0.5)
                began = time.monotonic()
                self.failure(functools.partial(fetch, box, [9]))
                self.assertLess(time.monotonic() - began, 10)

    def test_a_stop_ends_a_wait_for_the_server(self) -> None:
        stop = threading.Event()
        with ScriptedServer({**IMAP, "UID SEARCH": hang}, imap=True) as server:
            box = self.opened(server.port, timeout=60.0, stopping=stop.is_set)
            threading.Timer(0.2, stop.set).start()
            began = time.monotonic()
            self.failure(box.unseen)
            self.assertLess(time.monotonic() - began, 5)

    def test_a_stop_ends_an_answer_that_goes_on_coming(self) -> None:
        stop = threading.Event()
        much = b"* 1 FETCH (UID 9 BODY[]<0> {65536}\r\n"
        with ScriptedServer({**IMAP, "UID FETCH": (much, drip(b"x" * 100, 0.01))}, imap=True) as server:
            box = self.opened(server.port, timeout=60.0, stopping=stop.is_set)
            threading.Timer(0.2, stop.set).start()
            began = time.monotonic()
            with mock.patch.object(stream, "_LAST_SECONDS", 0.3), mock.patch.object(stream, "_SLOWEST", 1):
                failure = self.failure(functools.partial(fetch, box, [9]))
            self.assertIn("stopped", str(failure))
            self.assertLess(time.monotonic() - began, 5)

    @contextlib.contextmanager
    def dead_ends(self, count: int) -> Iterator[None]:
        """The name `dead.example` has so many addresses that do not answer."""
        with swallowing_port() as place:
            dead = (socket.AF_INET, socket.SOCK_STREAM, 0, "", place)
            with mock.patch("socket.getaddrinfo", return_value=[dead] * count):
                yield

    @unittest.skipUnless(sys.platform == "linux", "needs a backlog that leaves connections without an answer")
    def test_all_addresses_of_a_name_share_the_time(self) -> None:
        for count in (1, 3):
            with self.subTest(count), self.dead_ends(count):
                began = time.monotonic()
                failure = self.failure(mailbox(143, host="dead.example", timeout=0.9).open)
                self.assertIn("no connection within 0.9 s", str(failure))
                self.assertTrue(0.8 < time.monotonic() - began < 2)

    @unittest.skipUnless(sys.platform == "linux", "needs a backlog that leaves connections without an answer")
    def test_a_stop_is_heard_while_connecting(self) -> None:
        stop = threading.Event()
        with self.dead_ends(3):
            threading.Timer(0.2, stop.set).start()
            began = time.monotonic()
            self.failure(mailbox(143, host="dead.example", timeout=60.0, stopping=stop.is_set).open)
            self.assertLess(time.monotonic() - began, 5)

    def test_an_address_that_answers_is_found_behind_others_that_do_not(self) -> None:
        with ScriptedServer(IMAP, imap=True) as server:
            places = [("127.0.0.1", refused_port()), ("127.0.0.1", server.port)]
            # No system has the first of these families.
            families = ((250, places[0]), *[(socket.AF_INET, place) for place in places])
            found = [(family, socket.SOCK_STREAM, 0, "", place) for family, place in families]
            with mock.patch("socket.getaddrinfo", return_value=found):
                box = mailbox(server.port, host="two.example")
                self.addCleanup(box.close)
                self.assertEqual(box.open().uidvalidity, 7)

    def test_on_a_slow_line_the_windows_of_a_mail_do_not_grow_and_each_is_told(self) -> None:
        lengths: list[int] = []
        told: list[int] = []

        def fetch_slowly(conversation: Conversation) -> None:
            tag, _, _, _, *_, section = conversation.lines[-1].split()
            start, length = map(int, section.partition(b"<")[2].rstrip(b">)").split(b"."))
            lengths.append(length)
            time.sleep(0.02)
            piece = b"x" * max(0, min(length, 400_000 - start))
            conversation.send(b"* 1 FETCH (UID 9 BODY[]<%d> {%d}\r\n%s)\r\n%s OK\r\n" % (start, len(piece), piece, tag))

        with ScriptedServer({**IMAP, "UID FETCH": fetch_slowly}, imap=True) as server:
            box = self.opened(server.port, alive=lambda: told.append(1))
            with mock.patch("mailer.imap.fetch.SLOW", 0.01):
                [mail] = fetch(box, [9], all_of_it)
        self.assertEqual((len(mail.raw or b""), mail.complete), (400_000, True))
        self.assertEqual(set(lengths), {65_536})
        self.assertEqual(len(told), len(lengths))

    def test_how_long_an_answer_took_is_known_whoever_waited_for_it(self) -> None:
        def slowly(conversation: Conversation) -> None:
            time.sleep(0.05)
            conversation.send(b"%tag% OK nothing\r\n".replace(b"%tag%", conversation.lines[-1].split()[0]))

        with ScriptedServer({**IMAP, "UID FETCH": slowly}, imap=True) as server:
            wire = self.opened(server.port)._live()
            for ahead in (False, True):
                if ahead:
                    wire.uid_fetch_ahead("9", "(UID)", 0)
                    wire.command("NOOP")  # reads the answer before
                    wire.seconds = 0.0
                wire.uid_fetch("9", "(UID)", 0)
                self.assertGreater(wire.seconds, 0.04, ahead)

    def test_no_connection_is_left_behind(self) -> None:
        with ScriptedServer({**IMAP, "SELECT": b"%tag% NO no such folder\r\n"}, imap=True) as server:
            for _ in range(5):
                box = mailbox(server.port)
                self.failure(box.open)
                box.close()
            wait_until(lambda: not any(thread.is_alive() for thread in server._threads[1:]))
            self.assertEqual(len(server.conversations), 5)
