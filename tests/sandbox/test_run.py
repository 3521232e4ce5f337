"""`python -m mailer.sandbox` as a process: what it shows, and that it leaves nothing behind."""

import imaplib
import os
import re
import shlex
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

from mailer.sandbox.mail import MailServer
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
MESSAGE = ("--email", "ann@example.com", "--message", "Дым 🔥")
MAIL = "From: bob@example.com\r\nSubject: {}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{}\r\n"


class Sandbox:
    """The process, and what it has shown so far. Settings of the person's own must not matter to it."""

    def __init__(self, *flags: str, **environment: str) -> None:
        environment = {"SMTP_HOST": "elsewhere.example", "SERVER_TOKEN": "x", "PYTHONUTF8": "1", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mailer.sandbox", *flags], cwd=ROOT, env={**os.environ, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, encoding="utf-8",
        )  # fmt: skip
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            self.shown += line

    def wait_for(self, pattern: str) -> re.Match[str]:
        def found() -> bool:
            return bool(re.search(pattern, self.shown)) or self.process.poll() is not None

        try:
            wait_until(found, 30)
        except AssertionError:
            raise AssertionError(f"{pattern} is not in:\n{self.shown}") from None
        match = re.search(pattern, self.shown)
        if match is None:
            raise AssertionError(f"{pattern} is not in:\n{self.shown}")
        return match

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        code = self.process.wait(30)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.finish()


def run(*command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script to its end, without what the person's own settings and language may be."""
    own = ("SERVER_", "LC_", "LANG")
    env = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, timeout=60, check=False
    )


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False


def commands() -> str:
    """The command lines of all processes."""
    return subprocess.run(["ps", "-A", "-ww", "-o", "args"], capture_output=True, text=True, check=True).stdout


class RunTest(unittest.TestCase):
    def sandbox(self, *flags: str, **environment: str) -> Sandbox:
        sandbox = Sandbox(*flags, **environment)
        self.addCleanup(sandbox.close)
        return sandbox

    def running(self, **environment: str) -> tuple[Sandbox, int, Path, int]:
        """A sandbox that runs with everything; its SMTP port, its folder, and its server's port."""
        sandbox = self.sandbox("--server-port", "0", **environment)
        port = int(sandbox.wait_for(r"python client.py.* --port (\d+)\n")[1])
        smtp = int(sandbox.wait_for(r"SMTP 127.0.0.1:(\d+)")[1])
        return sandbox, smtp, Path(sandbox.wait_for(r"\n  logs +(.+)\n")[1]), port

    def send(self, port: int, subject: str, text: str) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.login("bob@example.com", "sandbox")
            client.sendmail("bob@example.com", ["helpdesk@example.com"], MAIL.format(subject, text).encode())

    def test_every_mail_and_every_record_is_shown_and_nothing_is_left(self) -> None:
        sandbox, smtp, folder, port = self.running()
        self.assertEqual(run("client.py", "--env", os.devnull, "--port", str(port), *MESSAGE).returncode, 0)
        sandbox.wait_for(r"mail +\[Ticket #10000\] Mailer\n +from helpdesk@example.com\n +to ann@example.com, helpdesk")
        sandbox.wait_for("\n +Дым 🔥\n")
        sandbox.wait_for(r"success +ticket 10000, from helpdesk@example.com")
        self.send(smtp, "Re: [Ticket #10000] Mailer", "\x1b[2Jsteer")
        sandbox.wait_for(r"success +ticket 10000, from bob@example.com")
        self.send(smtp, "Other", "\r\n".join(f"line {number}" for number in range(100)))
        sandbox.wait_for(r"error +reason: subject, from bob@example.com\n +Other\n")
        shown = run(*sandbox.wait_for(r" python (collector.py --env \S+ --show)\n")[1].split())
        self.assertIn(b"bob@example.com", shown.stdout)
        self.assertNotIn("line 50", sandbox.shown)
        self.assertNotIn("\x1b", sandbox.shown)
        self.assertEqual(sandbox.end(), 0)
        self.assertIn(f"{folder} is removed", sandbox.shown)
        self.assertEqual((folder.exists(), refuses(port), refuses(smtp)), (False, True, True))

    def test_the_name_of_its_folder_may_hold_anything(self) -> None:
        with tempfile.TemporaryDirectory() as above:
            place = Path(above, "it's #1 \\ of mine")
            place.mkdir()
            sandbox, _, folder, _ = self.running(TMPDIR=str(place))
            self.assertEqual(folder.parent, place)
            self.assertTrue(Path(folder, "state").is_dir())
            words = shlex.split(sandbox.wait_for(r" python (collector.py --env .+ --show)\n")[1])
            wait_until(Path(folder, "success_request.log").exists)
            shown = run(*words)
            self.assertEqual((shown.returncode, shown.stderr), (0, b"No ticket yet.\n"))
            self.assertEqual(sandbox.end(), 0)
            self.assertEqual((list(place.iterdir()), list(Path(above).iterdir())), ([], [place]))

    @unittest.skipUnless(shutil.which("ps"), "no ps here")
    def test_the_children_end_when_the_sandbox_is_killed(self) -> None:
        sandbox, _, folder, port = self.running()
        self.addCleanup(shutil.rmtree, folder)
        sandbox.process.kill()
        sandbox.finish()
        wait_until(lambda: refuses(port) and str(folder) not in commands(), 20)

    def test_a_taken_port_is_said_plainly(self) -> None:
        with MailServer() as other:
            taken = str(other.smtp_port)
            sandbox = self.sandbox("--server-port", taken)
            self.assertEqual(sandbox.finish(), 78)
            self.assertRegex(sandbox.shown, rf"(?s)server +.*{taken}.*server.py has ended, with exit code 78")
            self.assertNotIn("Traceback", sandbox.shown)
            for flag in ("--smtp-port", "--imap-port"):
                with self.subTest(flag):
                    sandbox = self.sandbox("--mail-only", flag, taken)
                    self.assertEqual(sandbox.finish(), 78)
                    self.assertRegex(sandbox.shown, rf"{flag} {taken}.*: cannot listen \([A-Z][a-z ]+\)\n")

    def test_the_mail_server_alone_shows_its_settings(self) -> None:
        sandbox = self.sandbox("--mail-only")
        settings = dict(re.findall(r"  ([A-Z_]+)=(\S+)\n", sandbox.wait_for(r"(?s).*PERIOD_CHECK=1\n")[0]))
        self.assertEqual(settings["EMAIL_LOGIN"], "helpdesk@example.com")
        with imaplib.IMAP4("127.0.0.1", int(settings["IMAP_PORT"])) as mailbox:
            mailbox.login("helpdesk@example.com", "sandbox")
            mailbox.select()
            [validity] = mailbox.response("UIDVALIDITY")[1]
            self.assertGreater(int(validity or 0), 1_700_000_000)  # another one at each start
        self.send(int(settings["SMTP_PORT"]), "Hello", "There")
        sandbox.wait_for(r"mail +Hello\n +from bob@example.com\n +to helpdesk@example.com\n\n +There")
        self.assertEqual(sandbox.end(signal.SIGINT), 0)

    def test_wrong_flags(self) -> None:
        for flag in (["--smtp-port", "65536"], ["--smtp-port", "x"], ["--mailonly"]):
            with self.subTest(flag):
                self.assertEqual(self.sandbox(*flag).finish(), 64)
