"""The three scripts as processes, in a temporary folder of settings, logs and state of their own."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.realservers import ADMINISTRATOR, PASSWORD
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
LISTENING = re.compile(r"listening on \S+:(\d+)$", re.MULTILINE)


class Script:
    """A script that runs until it is ended; what it says is kept."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(REPOSITORY / name), *arguments], stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, env=environment(), cwd=log.parent,
            )

    def said(self) -> str:
        """Everything it has written so far."""
        return self.log.read_text(encoding="utf-8")

    def wait_until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        """Return when the condition holds; fail, with what the script said, when it ends before or takes too long."""
        try:
            wait_until(lambda: condition() or self.process.poll() is not None, seconds)
            assert condition(), f"ended with {self.process.returncode}"
        except AssertionError as failure:
            raise AssertionError(f"{self.process.args!r}: {failure}\n{self.said()}") from None

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        """SIGKILL: no code of the script runs any more."""
        self.process.kill()
        self.process.wait(20)


class Workplace:
    """Settings, logs and state for one mailbox, and the scripts run with them."""

    def __init__(self, **settings: object) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-workplace-"))
        self.env_file = self.folder / ".env"
        self.success_log = self.folder / "success_request.log"
        self.error_log = self.folder / "error_request.log"
        self.server_port = 0
        self.started = 0
        self.settings: dict[str, object] = {
            "EMAIL_LOGIN": ADMINISTRATOR,
            "EMAIL_PASSWORD": PASSWORD,
            "SMTP_HOST": "127.0.0.1",
            "IMAP_HOST": "127.0.0.1",
            "PERIOD_CHECK": 0.2,
            "SUCCESS_LOG": self.success_log,
            "ERROR_LOG": self.error_log,
            "STATE_DIR": self.folder / "state",
            "RATE_PER_RECIPIENT": "off",
            "RATE_PER_CLIENT": "off",
        }
        self.configure(**settings)

    def configure(self, **settings: object) -> None:
        """Change settings; scripts that run already do not notice."""
        self.settings |= settings
        lines = [f"{key}={value}\n" for key, value in self.settings.items()]
        self.env_file.write_text("".join(lines), encoding="utf-8")
        self.env_file.chmod(0o600)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, script: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / script), "--env", str(self.env_file), *arguments], input=stdin,
            capture_output=True, env=environment(), cwd=self.folder, timeout=120, check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    @contextlib.contextmanager
    def running(self, script: str, *arguments: str) -> Iterator[Script]:
        """The script, running inside the block; killed at its end if it still runs."""
        self.started += 1
        output = self.folder / f"output-{self.started}"
        started = Script(script, ["--env", str(self.env_file), *arguments], output)
        try:
            yield started
        finally:
            started.kill()

    @contextlib.contextmanager
    def serving(self) -> Iterator[Script]:
        """server.py on a free port, ready."""
        with self.running("server.py", "--port", "0") as server:
            server.wait_until(lambda: LISTENING.search(server.said()))
            found = LISTENING.search(server.said())
            assert found
            self.server_port = int(found[1])
            yield server

    def ask(self, email: str, message: str) -> subprocess.CompletedProcess[str]:
        """client.py: this message to this address, handed over in a file, byte for byte."""
        text = self.folder / "message.txt"
        text.write_bytes(message.encode())
        return self.run("client.py", "--port", str(self.server_port), "--email", email, "--file", str(text))

    def records(self, log: Path) -> list[dict[str, Any]]:
        """The whole lines of a log; every one has to be JSON. An unfinished last line is left out."""
        if not log.exists():
            return []
        return [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]

    def successes(self) -> list[dict[str, Any]]:
        return self.records(self.success_log)

    def errors(self) -> list[dict[str, Any]]:
        return self.records(self.error_log)


def environment() -> dict[str, str]:
    """What the scripts see of this process's environment: none of Mailer's settings."""
    kept = ("PATH", "HOME", "TMPDIR", "SYSTEMROOT", "COVERAGE_PROCESS_START")
    return {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"} | {key: os.environ[key] for key in kept if key in os.environ}
