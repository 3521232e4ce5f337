"""The examples in the README do what it says, and its tables leave nothing out."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from mailer.config import KEYS
from mailer.errors import Code, ExitCode
from mailer.sandbox.mail import MailServer
from mailer.tls import server_context
from tests.real.workplace import REPOSITORY, Workplace, environment
from tests.support.realservers import ADMINISTRATOR, PASSWORD
from tests.support.waiting import wait_until

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def commands(beginning: str) -> list[str]:
    """The README's indented command lines that begin with this."""
    return [line.strip() for line in README.splitlines() if line.startswith("    " + beginning)]


class Examples(unittest.TestCase):
    mail: MailServer
    place: Workplace

    @classmethod
    def setUpClass(cls) -> None:
        cls.mail = cls.enterClassContext(MailServer(password=PASSWORD))
        cls.place = Workplace(SMTP_PORT=cls.mail.smtp_port, IMAP_PORT=cls.mail.imap_port)
        cls.addClassCleanup(cls.place.close)
        cls.enterClassContext(cls.place.serving())
        cls.place.configure(SERVER_PORT=cls.place.server_port)

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a README command as a shell would, on the scripts, settings and logs of this test."""
        command = command.replace(".py", f".py --env {self.place.env_file}", 1)
        command = command.replace("python ", f"{sys.executable} {REPOSITORY}/", 1)
        return subprocess.run(
            ["sh", "-c", command], cwd=self.place.folder, env=environment(), capture_output=True, text=True, check=False
        )

    def test_the_client_takes_standard_input_and_flags_as_shown(self) -> None:
        (self.place.folder / "report.txt").write_text("It burns.\n", encoding="utf-8")
        (piped,) = commands("printf ")
        (flagged,) = commands("python client.py --email")
        done = self.shell(piped)
        self.assertEqual(done.returncode, 0, done)
        done = self.shell(flagged)
        self.assertEqual(json.loads(done.stdout)["status"], "OK", done)

    def test_a_client_can_be_written_from_the_example(self) -> None:
        (source,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        source = source.replace("50007", str(self.place.server_port))
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
        self.assertIn("'status': 'OK'", done.stdout, done)

    def test_the_logs_can_be_searched_as_shown(self) -> None:
        before = len(self.mail.messages(ADMINISTRATOR))
        done = self.place.ask("alice@example.com", "Please find me")
        self.assertEqual(done.returncode, 0, done)
        wait_until(lambda: len(self.mail.messages(ADMINISTRATOR)) > before)
        self.mail.deliver(ADMINISTRATOR, b"From: <>\r\nReturn-Path: <>\r\nSubject: Undelivered\r\n"
                          b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b--\r\n")
        self.assertEqual(self.place.run("collector.py", "--once").returncode, 0)
        record = self.place.successes()[-1]
        (grep,) = commands("grep ")
        self.assertEqual(self.shell(grep).stdout, "1\n")
        (show,) = commands("python collector.py --show")
        self.assertIn("Please find me", self.shell(show.replace("12345", str(record["ticket"]))).stdout)
        if not shutil.which("jq"):
            self.skipTest("jq is not installed")
        (jq,) = commands("jq ")
        self.assertIn("Please find me", self.shell(jq.replace("12345", str(record["ticket"]))).stdout)

    def test_a_shown_record_has_the_keys_of_a_real_one(self) -> None:
        (shown,) = [json.loads(line) for line in README.splitlines() if line.startswith('    {"time"')]
        self.place.ask("bob@example.com", "Compare me")
        self.place.run("collector.py", "--once")
        self.assertEqual(list(shown), list(self.place.successes()[-1]))


class Recipes(unittest.TestCase):
    @unittest.skipUnless(shutil.which("openssl"), "needs the openssl command")
    def test_the_certificate_is_trusted_by_its_name_and_no_other(self) -> None:
        (command,) = re.findall(r"(?m)^    (openssl (?:.*\\\n)*.*)", README)
        folder = self.enterContext(tempfile.TemporaryDirectory())
        subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, check=True)
        server_context(Path(folder, "server.pem"), Path(folder, "server.key"))
        for name, code in (("helpdesk.example.com", 0), ("localhost", 2)):
            verify = f"openssl verify -x509_strict -CAfile server.pem -verify_hostname {name} server.pem"
            with self.subTest(name):
                self.assertEqual(subprocess.run(verify.split(), cwd=folder, capture_output=True).returncode, code)


class Tables(unittest.TestCase):
    def test_every_setting_is_described_and_exemplified(self) -> None:
        example = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
        self.assertEqual(set(re.findall(r"(?m)^#?([A-Z_]+)=", example)), KEYS)
        for key in sorted(KEYS):
            with self.subTest(key):
                self.assertIn(f"`{key}`", README)

    def test_every_example_setting_has_a_comment_line_above_it(self) -> None:
        lines = (REPOSITORY / ".env.example").read_text(encoding="utf-8").splitlines()
        settings = [number for number, line in enumerate(lines) if re.match(r"#?[A-Z_]+=", line)]
        bare = [lines[number] for number in settings if not lines[number - 1].startswith("# ")]
        self.assertEqual(bare, ["#TICKET_STEP=1", "#TICKET_OFFSET=0"])  # explained with TICKET_START

    def test_every_code_and_exit_code_is_described(self) -> None:
        for code in Code:
            with self.subTest(code):
                self.assertIn(f"`{code.value}`", README)
        for number in ExitCode:
            with self.subTest(number):
                self.assertRegex(README, rf"(?m)^\| {number.value} \|")

    def test_a_promise_names_a_test_that_exists(self) -> None:
        promises = README.partition("## Promises")[2].partition("\n## ")[0]
        named = re.findall(r"`(tests/[\w/]+\.py)`", promises)
        self.assertGreaterEqual(len(named), 9)
        for name in named:
            with self.subTest(name):
                self.assertTrue((REPOSITORY / Path(name)).is_file())


if __name__ == "__main__":
    unittest.main()
