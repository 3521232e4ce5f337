"""Diagnostics on stderr, a line each: at once while there are few, in batches while there are many.

A server that answers thousands of requests a second would spend a quarter of its time on writing every line by itself.
So in a busy moment a line waits for some others, a tenth of a second at most; a warning waits never, the end of the
process writes what is left, and only what kills it at once (SIGKILL, a second SIGTERM) takes such lines along. Called
by `launch`.
"""

import contextlib
import io
import logging
import threading
import time
from collections import deque
from typing import Any, TextIO

_BATCH_SECONDS = 0.1  # nobody who watches notices it
_SINGLY = 10  # lines in that time which are written at once
_BATCH = 32  # lines: who logs the last one writes them all


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

    A reader that has stopped reading stops who logs, once its pipe is full.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines = io.StringIO()  # of the batch that is being written
        self._into_lines = logging.StreamHandler(self._lines)
        self._into_lines.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._waiting: deque[logging.LogRecord] = deque()
        self._due = threading.Event()
        self._batch_ends = 0.0
        self._in_batch = 0
        threading.Thread(target=self._write_batches, name="log", daemon=True).start()

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, without the lock that the writing is under: who logs does not wait for it."""
        self._waiting.append(record)
        if record.created > self._batch_ends:
            self._batch_ends = record.created + _BATCH_SECONDS
            self._in_batch = 0
        self._in_batch += 1
        if self._in_batch <= _SINGLY or record.levelno >= logging.WARNING or len(self._waiting) >= _BATCH:
            self.flush()
        elif not self._due.is_set():
            self._due.set()
        return True

    def flush(self) -> None:
        """Write what waits."""
        assert self.lock  # noqa: S101 - every handler has one
        with self.lock:
            for _ in range(len(self._waiting)):
                self._into_lines.emit(self._waiting.popleft())
            text = self._lines.getvalue()
            self._lines.seek(0)
            self._lines.truncate()
            with contextlib.suppress(OSError, ValueError):  # ValueError: it has been closed
                self._stream.write(text)
                self._stream.flush()

    def _write_batches(self) -> None:
        while self._due.wait():
            time.sleep(_BATCH_SECONDS)
            self._due.clear()
            self.flush()


def start(stream: TextIO, *, verbose: bool) -> None:
    """Write what is logged to the stream, with `verbose` also what is meant for debugging."""
    logging._srcfile = None  # documented, for speed: callers are not shown, so not looked for
    logging.setLogRecordFactory(_Record)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[BatchHandler(stream)], force=True)
    logging.raiseExceptions = False  # neither does a record that makes no sense stop anything
