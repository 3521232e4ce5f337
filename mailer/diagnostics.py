"""Diagnostics on stderr, a line each: at once while there are few, in batches while there are many.

A server that answers thousands of requests a second would spend a quarter of its time on writing every line by itself.
So in a busy moment a line waits for some others, a tenth of a second at most, unless it is a warning, or the reader
does not keep up; the end of the process writes what is left, and only what kills it at once (SIGKILL, a second SIGTERM)
takes such lines along. Called by `launch`.
"""

import contextlib
import io
import logging
import os
import select
import threading
import time
from collections import deque
from typing import Any, TextIO

_BATCH_SECONDS = 0.1  # nobody who watches notices it
_SINGLY = 10  # lines in that time which are written at once
_BATCH = 32  # lines: who logs the last one writes them all
_MOST_WAITING = 2_000  # lines for a reader who does not keep up
# Characters that are written at once: a pipe that takes anything takes as many bytes as they can have (PIPE_BUF).
_PIECE = 1_000
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

    While the reader of a pipe does not read, lines wait, and of too many the oldest are lost.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines = io.StringIO()  # of the batch that is being written
        self._into_lines = logging.StreamHandler(self._lines)
        self._into_lines.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._waiting: deque[logging.LogRecord] = deque(maxlen=_MOST_WAITING)
        self._rest = ""  # of a batch, when the reader took only a part of it
        self._due = threading.Event()
        self._batch_ends = 0.0
        self._in_batch = 0
        threading.Thread(target=self._write_batches, name="log", daemon=True).start()

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record; who logs waits neither for the reader nor for another one who writes."""
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
        """Write what waits, as far as the reader takes it at once; the rest is tried again soon."""
        assert self.lock  # noqa: S101 - every handler has one
        if self.lock.acquire(blocking=False):
            try:
                while (self._rest or self._waiting) and _takes_more(self._stream):
                    self._write()
            finally:
                self.lock.release()
        if self._rest or self._waiting:
            self._due.set()

    def close(self) -> None:
        """Give a slow reader a moment for the last lines."""
        end = time.monotonic() + _LAST_MOMENT
        while (self._rest or self._waiting) and time.monotonic() < end:
            self.flush()
            time.sleep(_BATCH_SECONDS / 10)
        let_go(self._stream)
        super().close()

    def _write(self) -> None:
        if not self._rest:
            for _ in range(min(_BATCH, len(self._waiting))):
                self._into_lines.emit(self._waiting.popleft())
            self._rest = self._lines.getvalue()
            self._lines.seek(0)
            self._lines.truncate()
        piece, self._rest = self._rest[:_PIECE], self._rest[_PIECE:]
        with contextlib.suppress(OSError, ValueError):  # ValueError: it has been closed
            self._stream.write(piece)
            self._stream.flush()

    def _write_batches(self) -> None:
        while self._due.wait():
            time.sleep(_BATCH_SECONDS)
            self._due.clear()
            self.flush()


def _takes_more(stream: TextIO) -> bool:
    """Whether a piece can be written without waiting; where that cannot be known, it is tried."""
    if os.name == "nt":  # there it can be known of sockets only
        return True
    try:
        return bool(select.select([], [stream], [], 0)[1])
    except (OSError, ValueError):  # it is no file, or closed
        return True


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
