"""How far a long pass is: a line on the terminal with the rate and the time left; nothing without a terminal."""

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import TextIO

# A pass over fewer mails than this is too short to be reported on.
_LONG = 500
# Seconds between two reports: where the line is overwritten, and where each report is a line of its own.
_OFTEN, _SELDOM = 1.0, 10.0


class Meter:
    """Reports on a stream. `rewrite`: each report overwrites the last one, which a dumb terminal cannot do."""

    def __init__(self, out: TextIO, *, rewrite: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._rewrite = rewrite
        self._clock = clock
        self._begun = self._next = 0.0
        self._width = 0

    def told(self, done: int, total: int) -> None:
        """Report how many mails of a pass are done, if a report is due."""
        if total < _LONG or not self._out.isatty():
            return
        now = self._clock()
        if not done:
            self._begun, self._next = now, now + _OFTEN
        elif now >= self._next:
            self._next = now + (_OFTEN if self._rewrite else _SELDOM)
            rate = done / max(now - self._begun, 0.001)
            self._write(f"{done:,} of {total:,} mails, {rate:,.0f} a second, {_words((total - done) / rate)} left")

    def end(self) -> None:
        """Wipe the line away: the pass is over."""
        if self._width:
            self._write("")
            self._width = 0

    def _write(self, line: str) -> None:
        """Write the line, if the terminal takes it now: a stopped terminal (Ctrl-S) must not stop the pass."""
        if not _takes(self._out):
            return
        with contextlib.suppress(OSError):  # the terminal may be gone
            if self._rewrite:
                # The cursor returns to the start of the line, so that the next log entry overwrites it.
                self._out.write(f"{line:{self._width}}\r")
                self._width = len(line)
            else:
                self._out.write(f"{line}\n")
            self._out.flush()


def _takes(out: TextIO) -> bool:
    try:
        return os.name != "posix" or bool(select.select([], [out], [], 0)[1])
    except (OSError, ValueError):  # the stream is no file
        return True


def _words(seconds: float) -> str:
    """A duration as a person would say it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
