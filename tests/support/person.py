"""A person at a pseudo-terminal: types, and waits for what the screen shows."""

import contextlib
import os
import pty
import select
import signal
import termios
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any

from tests.support.waiting import wait_until

CTRL_C, CTRL_D, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x04", "\x1a", "\x1c"


class Person:
    """Runs a command on a terminal of its own, which is its controlling terminal."""

    def __init__(self, command: list[str], env: Mapping[str, str], stdout: int | None = None) -> None:
        self.screen = ""
        self._read_up_to = 0
        self._status: int | None = None
        with warnings.catch_warnings():  # of other threads, which a child that does nothing but exec may have
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            try:
                if stdout is not None:
                    os.dup2(stdout, 1)
                os.execvpe(command[0], command, dict(env))
            finally:
                os._exit(127)
        self._reader = threading.Thread(target=self._watch, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Person":
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        self._reader.join(5)
        with contextlib.suppress(OSError):
            os.close(self._terminal)

    def types(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        while data:
            data = data[os.write(self._terminal, data[:1024]) :]

    def sees(self, text: str, seconds: float = 15.0) -> None:
        """Wait until the text stands on the screen, after what was seen before."""
        try:
            wait_until(lambda: text in self.screen[self._read_up_to :], seconds)
        except AssertionError:
            raise AssertionError(f"{text!r} is not in {self.screen[self._read_up_to :][-2000:]!r}") from None
        self._read_up_to = self.screen.index(text, self._read_up_to) + len(text)

    def answers(self, question: str, answer: str | bytes) -> None:
        self.sees(question)
        self.types(answer)

    def mode(self) -> list[Any]:
        """The terminal's settings, as `termios` has them."""
        return termios.tcgetattr(self._terminal)

    def kill(self, number: int) -> None:
        os.kill(self._pid, number)

    def hangs_up(self) -> None:
        """Close the terminal's window."""
        os.close(self._terminal)
        self._terminal = os.open(os.devnull, os.O_RDWR)

    def logs_out(self) -> None:
        """Close it with the shell, which tells all that it has started."""
        self.hangs_up()
        os.killpg(self._pid, signal.SIGHUP)

    def ends(self, seconds: float = 15.0) -> int:
        """Wait for the end; the exit code, or minus the signal."""
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
                self._reader.join(5)
                return self._status
            if time.monotonic() > end:
                raise AssertionError(f"it does not end: {self.screen[-2000:]!r}")
            time.sleep(0.01)

    def _watch(self) -> None:
        collected = bytearray()
        while True:
            try:
                if not select.select([self._terminal], [], [], 0.2)[0] and self._status is not None:
                    return
                data = os.read(self._terminal, 65536)
            except (OSError, ValueError):
                return
            if not data:
                return
            collected += data
            self.screen = collected.decode("utf-8", "replace")
