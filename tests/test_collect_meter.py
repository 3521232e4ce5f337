"""The line that tells how far a long pass is."""

import io
import os
import sys
import time
import unittest
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from mailer.collect_meter import Meter
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
    def test_the_collector_tells_it(self) -> None:
        slow = MailServer(on_command=lambda _: time.sleep(0.1))
        with slow as server, TemporaryDirectory() as name:
            for number in range(1500):
                server.deliver(ADDRESS, b"Subject: %d\r\n\r\ntext\r\n" % number)
            settings = Path(name) / "settings"
            settings.write_text(
                f"EMAIL_LOGIN={ADDRESS}\nEMAIL_PASSWORD=sandbox\nIMAP_HOST=127.0.0.1\nIMAP_PORT={server.imap_port}\n"
                f"SUCCESS_LOG={name}/success\nERROR_LOG={name}/error\nPERIOD_CHECK=1\n"
                f"STATE_DIR={name}/state\n", encoding="utf-8",
            )
            settings.chmod(0o600)
            command = [sys.executable, str(ROOT / "collector.py"), "--env", str(settings), "--once"]
            with Person(command, {"PATH": os.environ["PATH"], "TERM": "xterm"}) as person:
                self.assertEqual(person.ends(), 0, person.screen)
        self.assertRegex(person.screen, r"\d+ of 1,500 mails, [\d,]+ a second, \d+ s left *\r")
        self.assertRegex(person.screen, r"\r[^\r]*1500 new: 0 of tickets, 1500 others\r\n$")


if __name__ == "__main__":
    unittest.main()
