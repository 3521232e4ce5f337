"""The line that tells how far a long pass is."""

import io
import os
import subprocess
import sys
import time
import unittest
from contextlib import suppress
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from mailer.collect.meter import Meter
from mailer.sandbox.mail import MailServer

if os.name == "posix":
    from tests.support.person import Person

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "helpdesk@example.com"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(out: io.StringIO, total: int, *, rewrite: bool = True) -> str:
    """What a pass of 100 mails a second writes."""
    seconds = count()
    meter = Meter(out, rewrite=rewrite, clock=lambda: next(seconds))
    for done in range(0, total + 1, 100):
        meter.told(done, total)
    meter.end()
    return out.getvalue()


def collect_once(folder: Path, server: MailServer) -> list[str]:
    """The command that takes what is new on the server into logs in the folder."""
    settings = folder / "settings"
    settings.write_text(
        f"EMAIL_LOGIN={ADDRESS}\nEMAIL_PASSWORD=sandbox\nIMAP_HOST=127.0.0.1\nIMAP_PORT={server.imap_port}\n"
        f"SUCCESS_LOG={folder}/success\nERROR_LOG={folder}/error\nPERIOD_CHECK=1\nSTATE_DIR={folder}/state\n",
        encoding="utf-8",
    )
    settings.chmod(0o600)
    return [sys.executable, str(ROOT / "collector.py"), "--env", str(settings), "--once"]


class Meters(unittest.TestCase):
    def test_a_long_pass_is_told_on_a_terminal_and_its_line_goes_in_the_end(self) -> None:
        *lines, last = told(Terminal(), 50_000).split("\r")[:-1]
        self.assertEqual(lines[0], "100 of 50,000 mails, 100 a second, 8 min left")
        self.assertEqual(lines[-2].rstrip(), "49,900 of 50,000 mails, 100 a second, 1 s left")
        self.assertEqual(last.strip(), "")
        for before, after in pairwise([*lines, last]):
            self.assertGreaterEqual(len(after), len(before.rstrip()), "nothing of the line before is left")

    def test_a_dumb_terminal_gets_a_line_now_and_then(self) -> None:
        said = told(Terminal(), 5_000, rewrite=False)
        self.assertNotIn("\r", said)
        self.assertEqual(said.splitlines()[1], "1,100 of 5,000 mails, 100 a second, 39 s left")
        self.assertEqual(len(said.splitlines()), 5)

    def test_nothing_is_told_of_a_short_pass_or_where_nobody_looks(self) -> None:
        self.assertEqual((told(Terminal(), 400), told(io.StringIO(), 50_000)), ("", ""))

    @unittest.skipUnless(os.name == "posix", "needs pseudo-terminals")
    def test_a_terminal_that_was_stopped_stops_nothing(self) -> None:
        ours, theirs = os.openpty()
        self.addCleanup(os.close, ours)
        with open(theirs, "w", encoding="ascii") as terminal:  # noqa: PTH123 - a descriptor
            os.set_blocking(theirs, False)
            with suppress(BlockingIOError):  # until it takes no more, as after Ctrl-S
                while True:
                    os.write(theirs, b"x" * 1000)
            os.set_blocking(theirs, True)
            began = time.monotonic()
            meter = Meter(terminal, clock=count().__next__)
            for done in range(0, 10_000, 100):
                meter.told(done, 10_000)
            meter.end()
            self.assertLess(time.monotonic() - began, 5)
            os.set_blocking(theirs, False)  # what is left in the buffer is not waited for

    @unittest.skipUnless(os.name == "posix", "needs a shell")
    def test_without_a_stderr_a_long_pass_is_made_all_the_same(self) -> None:
        with MailServer() as server, TemporaryDirectory() as name:
            for number in range(600):
                server.deliver(ADDRESS, b"Subject: %d\r\n\r\ntext\r\n" % number)
            command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *collect_once(Path(name), server)]
            self.assertEqual(subprocess.run(command, timeout=60).returncode, 0)
            self.assertEqual(len((Path(name) / "error").read_bytes().splitlines()), 600)

    @unittest.skipUnless(os.name == "posix", "needs pseudo-terminals")
    def test_the_collector_tells_it(self) -> None:
        slow = MailServer(on_command=lambda _: time.sleep(0.1))
        with slow as server, TemporaryDirectory() as name:
            for number in range(1500):
                server.deliver(ADDRESS, b"Subject: %d\r\n\r\ntext\r\n" % number)
            with Person(collect_once(Path(name), server), {"PATH": os.environ["PATH"], "TERM": "xterm"}) as person:
                self.assertEqual(person.ends(), 0, person.screen)
        self.assertRegex(person.screen, r"\d+ of 1,500 mails, [\d,]+ a second, \d+ s left *\r")
        self.assertRegex(person.screen, r"\r[^\r]*1500 new: 0 of tickets, 1500 others\r\n$")


if __name__ == "__main__":
    unittest.main()
