"""Diagnostics on stderr, a line each, written by a thread of its own, in batches while there are many.

Whoever logs waits for nobody: neither for a reader who does not read, nor for a terminal whose other end sleeps, nor
for another one who logs. A line is written at once, or after a pause that nobody notices; the end of the process writes
what is left, and only what kills it at once (SIGKILL, a second SIGTERM) takes such lines along. Called by `launch`.
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

_PAUSE = 0.02  # seconds between two batches: each takes the interpreter from those who have work to do
_AT_ONCE = 32  # lines in one write: so short is the time for which it does so
_MOST_WAITING = 2_000  # lines for a reader who does not keep up
_LAST_MOMENT = 1.0  # seconds


class _Formatter(logging.Formatter):
    """Puts the time into words once a second, because a busy server logs thousands of lines in one."""

    _second = 0
    _words = ""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info:
            return super().format(record)
        return f"{self.formatTime(record)} {record.levelname} {record.getMessage()}"

    def formatTime(self, record: logging.LogRecord, _datefmt: str | None = None) -> str:  # noqa: N802 - its name there
        second = int(record.created)
        if second != self._second:
            self._words = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = second
        return f"{self._words},{int(record.msecs):03}"


class _Record(logging.LogRecord):
    """What is shown of an event, and nothing that is not: looking all of it up takes longer than the rest together."""

    def __init__(
        self, name: str, level: int, _path: str, _line: int, message: object, args: Any, exc_info: Any, *_: object
    ) -> None:
        self.created = time.time()
        self.msecs = int(self.created % 1 * 1000)
        self.name, self.levelno, self.levelname = name, level, logging.getLevelName(level)
        self.msg, self.args, self.exc_info = message, args, exc_info
        self.exc_text = self.stack_info = None


class BatchHandler(logging.Handler):
    """Writes lines to `stream`; what cannot be written, as when its pipe is gone, stops nothing.

    While nothing can be written lines wait, and of too many the oldest are lost.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._put = _writer(stream)
        self._lines = io.StringIO()  # of the batch that is being written
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
        """Wait until all that was logged is written, but only for a moment: as at the end of the process."""
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
    """What writes a text, or as much of it as can be written.

    To a file not by way of Python's buffer: its lock, held by a write that waits, would be fatal at the end.
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
                except BlockingIOError:  # whoever else has this file does not want to wait for it
                    select.select([], [file], [])

    return write if file < 0 or os.name == "nt" else write_to_file  # a console of Windows takes no bytes


def let_go(stream: TextIO | None) -> None:
    """Give up what a stream cannot write: Python would try it again at its end, and end with 120 over it."""
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
    """Write what is logged to the stream, with `verbose` also what is meant for debugging."""
    logging._srcfile = None  # documented, for speed: callers are not shown, so not looked for
    logging.setLogRecordFactory(_Record)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[BatchHandler(stream)], force=True)
    logging.raiseExceptions = False  # neither does a record that makes no sense stop anything
