"""Diagnostics on stderr, one line each, written by a thread of their own, in batches while there are many.

A thread that logs never waits: not for a reader that does not read, not for a terminal that was stopped, not for
another thread that logs. A line is written at once, or after a pause that nobody notices. At its end the process writes
what is left; only what ends it at once (SIGKILL, a second SIGTERM) loses lines. Called by `launch`.
"""

import contextlib
import io
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

_PAUSE = 0.02  # seconds between two batches: each takes the interpreter from threads with work to do
_AT_ONCE = 32  # lines in one write, so that it takes the interpreter only briefly
_MOST_WAITING = 2_000  # lines kept for a reader that does not keep up
_LAST_MOMENT = 1.0  # seconds


class _Formatter(logging.Formatter):
    """Formats the time once a second, because a busy server logs thousands of lines in one."""

    _second = 0
    _words = ""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info:
            return super().format(record)
        return f"{self.formatTime(record)} {record.levelname} {record.getMessage()}"

    def formatTime(self, record: logging.LogRecord, _datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        second = int(record.created)
        if second != self._second:
            self._words = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = second
        return f"{self._words},{int(record.msecs):03}"


class _Record(logging.LogRecord):
    """A record of only what is shown: looking up everything else would take longer than all the rest together."""

    def __init__(
        self, name: str, level: int, _path: str, _line: int, message: object, args: Any, exc_info: Any, *_: object
    ) -> None:
        self.created = time.time()
        self.msecs = int(self.created % 1 * 1000)
        self.name, self.levelno, self.levelname = name, level, logging.getLevelName(level)
        self.msg, self.args, self.exc_info = message, args, exc_info
        self.exc_text = self.stack_info = None


class BatchHandler(logging.Handler):
    """Writes lines to `stream`; lines that cannot be written, as to a broken pipe, are dropped without an error.

    While the stream takes nothing, lines wait; when there are too many, the oldest are lost.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._put = _writer(stream)
        self._lines = io.StringIO()  # the batch that is being written
        self._into_lines = logging.StreamHandler(self._lines)
        self._into_lines.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._waiting: deque[logging.LogRecord] = deque(maxlen=_MOST_WAITING)
        self._due, self._urgent, self._done = threading.Event(), threading.Event(), threading.Event()
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record."""
        self._waiting.append(record)
        if not self._due.is_set():
            self._due.set()
        return True

    def flush(self) -> None:
        """Wait until all that was logged is written, but only for a moment; called at the end of the process."""
        self._done.clear()
        self._urgent.set()
        self._due.set()
        self._done.wait(_LAST_MOMENT)

    def _write_all(self) -> None:
        while self._due.wait():
            self._due.clear()
            urgent = self._urgent.is_set()
            while self._waiting:
                for _ in range(min(_AT_ONCE, len(self._waiting))):
                    self._into_lines.emit(self._waiting.popleft())
                self._put(self._lines.getvalue())
                self._lines.seek(0)
                self._lines.truncate()
            if urgent:
                self._urgent.clear()
                self._done.set()
            self._urgent.wait(_PAUSE)


def _writer(stream: TextIO) -> Callable[[str], None]:
    """A function that writes a text, or as much of it as can be written.

    For a file it bypasses Python's buffer: a write that waits would hold its lock, which is fatal at the end.
    """
    try:
        file = stream.fileno()
    except (OSError, ValueError):
        file = -1

    def write(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it has been closed
            stream.write(text)
            stream.flush()

    def write_to_file(text: str) -> None:
        rest = memoryview(text.encode(stream.encoding or "utf-8", "backslashreplace"))
        with contextlib.suppress(OSError):
            while rest:
                try:
                    rest = rest[os.write(file, rest) :]
                except BlockingIOError:  # another process has made the file non-blocking
                    select.select([], [file], [])

    return write if file < 0 or os.name == "nt" else write_to_file  # a Windows console takes no bytes


def let_go(stream: TextIO | None) -> None:
    """Drop what a stream cannot write: Python would try it again at exit, fail, and end with exit code 120."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):  # ValueError: it has been closed
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def start(stream: TextIO, *, verbose: bool) -> None:
    """Write what is logged to the stream; with `verbose`, debugging messages, too."""
    logging._srcfile = None  # documented, for speed: the caller is not shown, so not looked up
    logging.setLogRecordFactory(_Record)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[BatchHandler(stream)], force=True)
    logging.raiseExceptions = False  # a record that makes no sense is dropped without an error
