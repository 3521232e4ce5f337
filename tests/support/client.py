"""`client.py` as a process: what it is started with, and its end."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import client

ROOT = Path(__file__).parents[2]


class ClientTestCase(unittest.TestCase):
    """A test with a home of its own, where drafts go, and without the language of whoever runs it."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        self.drafts = self.home / "mailer"
        settings = ("SERVER_", "MAIL_", "LC_", "LANG", "EDITOR", "VISUAL", "NO_COLOR", "INPUTRC")
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(settings)}
        self.env |= {
            "XDG_STATE_HOME": folder.name, "LOCALAPPDATA": folder.name, "TERM": "xterm", "LC_ALL": "C.UTF-8",
            "INPUTRC": os.devnull,
        }

    def command(self, port: int, *flags: str) -> list[str]:
        return [sys.executable, str(ROOT / "client.py"), "--env", os.devnull, "--port", str(port), *flags]

    def main(self, port: int, *flags: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
        """The same in this process, for tables: it takes a hundredth of the time."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.dict(os.environ, self.env, clear=True))
            stack.enter_context(mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(given))))
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            try:
                code = client.main(self.command(port, *flags)[2:])
            except SystemExit as end:  # as argparse ends
                code = int(end.code or 0)
        return subprocess.CompletedProcess(flags, code, out.getvalue(), err.getvalue())

    def client(self, port: int, *flags: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run the client without a terminal."""
        done = subprocess.run(self.command(port, *flags), input=given, env=self.env, capture_output=True, timeout=60)
        self.assertNotIn(b"Traceback", done.stderr)
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        )
