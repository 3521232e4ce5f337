"""`collector.py --show`: the latest tickets, and one ticket's conversation, as a person reads them."""

import contextlib
import errno
import io
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
import tracemalloc
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from mailer.diagnostics import let_go
from mailer.errors import ExitCode
from mailer.history import show

ROOT = Path(__file__).parents[1]


def record(ticket: int, text: str = "The printer is on fire", **more: Any) -> str:
    content = {
        "time": "2026-11-22T10:15:03+00:00", "ticket": ticket, "from": "alice@example.com", "subject": "x",
        "text": text, "date": None, "message_id": None, "uidvalidity": 1, "uid": 1, **more,
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=False) + "\n"


class Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class HistoryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.log, self.errors = self.folder / "success.log", self.folder / "error.log"
        self.enterContext(mock.patch.dict(os.environ, {"TZ": "UTC", "LANGUAGE": "en", "PAGER": "", "TERM": "xterm"}))
        if hasattr(time, "tzset"):
            time.tzset()
            self.addClassCleanup(time.tzset)

    def shown(self, content: str, ticket: int | None = None, out: io.StringIO | None = None) -> str:
        self.log.write_text(content, encoding="utf-8")
        out = out or io.StringIO()
        self.assertEqual(show(self.log, self.errors, ticket, out), ExitCode.DONE)
        return out.getvalue()

    def test_the_latest_tickets_come_first_a_line_each(self) -> None:
        lines = self.shown(
            record(10000, "first") + record(10001, "second") + record(10000, "Re\nfirst \x1b[31m" + "x" * 99)
        ).splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["10000", "10001"])
        self.assertIn("alice@example.com  Re first", lines[0])
        for line in lines:
            self.assertTrue(line.isprintable())
            self.assertLess(len(line), 80)

    def test_a_conversation_is_shown_in_order_with_its_lines(self) -> None:
        first = record(10000, "One\n\n    two\t3\n", date="2026-11-22T09:00:00+00:00")
        second = record(10000, "> One\nFour", **{"from": "bob@example.com", "attachments": ["a.png", "b\n.png"]})
        shown = self.shown(first + record(10001, 'other "ticket": 10000, text') + record(100001) + second, 10000)
        self.assertLess(shown.index("alice@example.com"), shown.index("bob@example.com"))
        self.assertIn("\n  One\n\n      two 3\n", shown)
        self.assertIn("a.png", shown)
        self.assertIn("b .png", shown)
        self.assertIn("\n  > One\n  Four\n", shown)
        self.assertNotIn("other", shown)
        self.assertNotIn("fire", shown)

    def test_no_text_passes_itself_off_as_another_mail(self) -> None:
        shown = self.shown(record(1, "a\n\n2026-11-25 21:50  help@example.com\nforged"), 1)
        self.assertEqual(sum(not line.startswith(" ") and line != "" for line in shown.splitlines()), 1)

    @unittest.skipUnless(Path("/dev/full").exists(), "needs /dev/full")
    def test_what_cannot_be_written_is_no_file_that_cannot_be_read(self) -> None:
        self.log.write_text(record(1))
        with Path("/dev/full").open("w") as full, contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(show(self.log, self.errors, 1, full), ExitCode.TEMPORARY)
            let_go(full)
        self.assertIn("No space left", said.getvalue())
        self.assertEqual(show(self.log, self.errors, 1, None), ExitCode.DONE)

    def test_the_mails_own_date_is_shown_where_it_has_one(self) -> None:
        for date in ("2001-02-03T12:00:00+00:00", None, "0001-01-01T00:00:00+14:00", 7, "yesterday"):
            with self.subTest(date):
                shown = self.shown(record(1, date=date))
                self.assertIn("2001-02-03" if str(date).startswith("2001") else "2026-11-22", shown)

    def test_what_came_back_of_a_ticket_is_shown_where_it_belongs(self) -> None:
        bounce = {"reason": "bounce", "time": "2026-11-23T00:00:00+00:00", "from": "MAILER-DAEMON"}
        others = record(0, "other", related_ticket=77, **bounce)
        self.errors.write_text(record(0, "no such user", related_ticket=7, **bounce) + others)
        shown = self.shown(record(7, "the first") + record(7, "the last", time="2026-11-24T00:00:00+00:00"), 7)
        texts = [line.strip() for line in shown.splitlines() if line.startswith(" ")]
        self.assertEqual(texts, ["the first", "no such user", "the last"])
        self.assertIn("MAILER-DAEMON  (bounce)\n", shown)

    def test_a_copy_of_the_log_beside_it_repeats_nothing(self) -> None:
        (self.folder / "success.log.bak").write_text(record(1, "once"))
        self.assertEqual(self.shown(record(1, "once") + record(1, "once", uid=2), 1).count("once"), 2)

    def test_what_cannot_be_read_beside_the_log_is_left_out_and_told(self) -> None:
        copy = self.folder / "success.log.bak"
        copy.write_text(record(1, "secret"))
        readable = os.access
        with mock.patch("os.access", lambda path, mode: path != copy and readable(path, mode)):
            with contextlib.redirect_stderr(io.StringIO()) as said:
                self.assertNotIn("secret", self.shown(record(1, "once"), 1))
        self.assertIn(str(copy), said.getvalue())

    @unittest.skipUnless(hasattr(os, "mkfifo"), "needs named pipes")
    def test_a_pipe_in_the_place_of_a_log_is_not_waited_for(self) -> None:
        os.mkfifo(self.log)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(show(self.log, self.errors, None, io.StringIO()), ExitCode.NO_INPUT)
        self.assertIn("no ordinary file", said.getvalue())

    def test_rotated_logs_are_read_too_the_oldest_first(self) -> None:
        for age, name, text in ((3, ".2", "first"), (2, "-20261122", "second"), (1, ".1", "third"), (4, ".3.gz", "no")):
            rotated = self.folder / f"success.log{name}"
            rotated.write_text(record(10000, text) + record(10000 + age))
            os.utime(rotated, (time.time() - age * 86_400,) * 2)
        (self.folder / "success.log.d").mkdir()
        (self.folder / "error.log.1").write_text(record(10000, "other"))
        shown = self.shown(record(10000, "fourth"), 10000)
        self.assertEqual([line for line in shown.splitlines() if line.startswith(" ")],
                         ["  first", "  second", "  third", "  fourth"])  # fmt: skip
        tickets = [line.split()[0] for line in self.shown(record(10000)).splitlines()]
        self.assertEqual(tickets, ["10000", "10001", "10002", "10003"])
        self.log.unlink()  # as right after a rotation
        out = io.StringIO()
        self.assertEqual(show(self.log, self.errors, 10003, out), ExitCode.DONE)
        self.assertIn("fire", out.getvalue())

    def test_what_is_no_record_is_passed_over(self) -> None:
        torn = '{"time": "2026", "ticket": 10000, "te'
        deep = "[" * 99_999 + "\n"
        for noise in ("\n", "garbage\n", "[1]\n", '{"ticket": "10000",}\n', '{"ticket": true, "a": 1}\n', deep):
            for ticket in (None, 10000):
                with self.subTest(noise=noise[:20], ticket=ticket):
                    shown = self.shown(noise + record(10000, from_=None) + noise + torn, ticket)
                    self.assertEqual(shown.count("alice@example.com"), 1)

    def test_nothing_in_a_mail_steers_the_terminal(self) -> None:
        nasty = "a\x1b]0;x\x07b\u202ec\u2028d\x85e\x0cf\rg"
        content = record(10000, nasty, **{"from": nasty, "attachments": [nasty], "date": nasty})
        for ticket in (None, 10000):
            with self.subTest(ticket=ticket):
                self.assertTrue(self.shown(content, ticket).replace("\n", "").isprintable())

    def test_colour_is_for_terminals_only(self) -> None:
        content = record(10000, "> quoted")
        with mock.patch.dict(os.environ, {"PAGER": "/no/such/pager"}):
            self.assertIn("\x1b[", self.shown(content, 10000, Screen()))
        self.assertNotIn("\x1b", self.shown(content, 10000))

    def test_a_stderr_that_takes_nothing_changes_no_exit_code(self) -> None:
        for stream in (None, Full()):
            with self.subTest(stream), mock.patch("sys.stderr", stream):
                self.assertEqual(show(self.folder / "none", self.folder / "none", None, None), ExitCode.NO_INPUT)

    def test_a_pager_that_makes_no_sense_is_none(self) -> None:
        with mock.patch.dict(os.environ, {"PAGER": "less 'unclosed", "PATH": ""}):
            self.assertIn("quoted", self.shown(record(10000, "> quoted"), 10000, Screen()))

    def test_nothing_to_show_is_said_on_stderr(self) -> None:
        self.log.write_text(record(10000))
        for log, ticket, code in (
            (self.log, 5, ExitCode.REFUSED), (self.folder / "none", None, ExitCode.NO_INPUT),
            (Path(os.devnull), None, ExitCode.DONE),
        ):  # fmt: skip
            out, err = io.StringIO(), io.StringIO()
            with self.subTest(log=log), contextlib.redirect_stderr(err):
                self.assertEqual(show(log, self.errors, ticket, out), code)
                self.assertEqual((out.getvalue(), err.getvalue().count("\n")), ("", 1))

    def test_a_big_log_takes_little_memory(self) -> None:
        with self.log.open("w", encoding="utf-8") as log:
            log.writelines(record(10000 + number // 2, "x" * 4000) for number in range(5000))
        for ticket in (None, 10000):
            tracemalloc.start()
            with self.subTest(ticket=ticket), Path(os.devnull).open("w") as out:
                show(self.log, self.errors, ticket, out)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.assertLess(peak, 6 << 20)  # the log has 20 MB

    @unittest.skipUnless(os.name == "posix", "the pager here is a shell script")
    def test_a_terminal_is_paged_by_the_pager_of_choice(self) -> None:
        pager = self.folder / "pager"
        pager.write_text(f"#!/bin/sh\ncat > '{self.folder}/paged'\n")
        pager.chmod(stat.S_IRWXU)
        with mock.patch.dict(os.environ, {"PAGER": str(pager)}):
            self.assertEqual(self.shown(record(10000), None, Screen()), "")
        self.assertIn("10000", (self.folder / "paged").read_text())

    @unittest.skipUnless(os.name == "posix", "needs `head`")
    def test_a_reader_that_has_seen_enough_is_no_error(self) -> None:
        self.log.write_text(record(10000, "x\n" * 500_000))
        script = (
            "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from mailer.history import show; "
            "log = Path(sys.argv[2]); sys.exit(show(log, log.with_name('none'), 10000, sys.stdout))"
        )
        shell = 'exec 3>&1; { "$@"; echo $? >&2; } | head -n 1 >&3'
        command = ["sh", "-c", shell, "sh", sys.executable, "-c", script, str(ROOT), str(self.log)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        self.assertEqual(done.stderr, "0\n")

    def test_the_command_takes_a_number_as_it_stands_in_a_subject(self) -> None:
        self.log.write_text(record(10000) + record(10001))
        environment = {**os.environ, "SUCCESS_LOG": str(self.log)}
        cases = {(): 0, ("10000",): 0, ("#10000",): 0, ("5",): 1, ("-1",): 64, ("10000x",): 64, ("#",): 64}
        for ticket, code in cases.items():
            flag = [f"--show={number}" for number in ticket] or ["--show"]
            command = [sys.executable, str(ROOT / "collector.py"), "--env", os.devnull, *flag]
            with self.subTest(ticket):
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertEqual("10001" in done.stdout, not ticket)


if __name__ == "__main__":
    unittest.main()
