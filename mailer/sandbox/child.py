"""One of the scripts as a child process of the sandbox: on a leash, its log kept in a file and watched."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mailer.environment import BASE
from mailer.sandbox.leash import GRACE

MAX_LINE = 4096
# Environment variables that the child does not get: a person's own settings would win over the sandbox's .env.
_SETTINGS = re.compile(
    "(?:EMAIL|IMAP|SMTP|SERVER|MAIL|OAUTH|TICKET|RATE)_.*|PERIOD_CHECK|MARK_SEEN|SUCCESS_LOG|ERROR_LOG|STATE_DIR"
)
_LISTENING = re.compile(r"listening on \S+:([0-9]+)\s*")
_LOGGED = re.compile(r"\S+ \S+ (?P<level>[A-Z]+) (?P<text>.*)", re.DOTALL)
# Ctrl-C at the terminal reaches the sandbox alone, which then ends its children one after the other.
_DETACHED: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x200}


class Child:
    """A running script. `on_trouble(script, text)` gets each line of stderr but log entries below a warning."""

    def __init__(self, script: str, env: Path, on_trouble: Callable[[str, str], None]) -> None:
        self.script = script
        self.port: int | None = None
        self._on_trouble = on_trouble
        self._listening = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mailer.sandbox.leash", str(BASE / script), "--env", str(env)],
            cwd=BASE, env={key: value for key, value in os.environ.items() if not _SETTINGS.fullmatch(key)},
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace", **_DETACHED,
        )  # fmt: skip
        self._log = env.with_name(script).with_suffix(".log")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_listening(self, seconds: float) -> bool:
        """Wait until the script says that it listens; False if it ends before, or does not say so in time."""
        if self._listening.wait(seconds) and self.port is None:
            self._reader.join()  # its output has ended; after this, `ended` knows the exit code
        return self.port is not None

    def ended(self) -> int | None:
        """The exit code, or None until the script has ended and all its output has been passed on."""
        return None if self._reader.is_alive() else self._process.wait()

    def stop(self) -> None:
        """Let go of the leash and wait for the script to end."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(GRACE + 3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(1)
        if self._process.stderr:
            self._process.stderr.close()

    def _read(self) -> None:
        with self._log.open("w", encoding="utf-8") as log:
            while self._process.stderr and (line := self._process.stderr.readline(MAX_LINE)):
                log.write(line)
                log.flush()
                logged = _LOGGED.fullmatch(line)
                if not logged or logged["level"] not in ("DEBUG", "INFO"):
                    self._on_trouble(self.script, logged["text"] if logged else line)
                elif found := _LISTENING.fullmatch(logged["text"]):
                    self.port = int(found[1])
                    self._listening.set()
        self._listening.set()
