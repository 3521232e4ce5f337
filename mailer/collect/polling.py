"""The loop around passes: it goes on through every outage, and logs each kind of failure in it once.

Promises never to give up over a mailbox, a network or a disk that fails for a while: it waits longer each time, up to
a limit, and tries again. Only a login or a folder that is refused before the first good pass ends the loop, as then
somebody has to look at the settings.
"""

import logging
import random
import time
from collections.abc import Callable

from mailer.errors import ExitCode, MailboxError, StateError

_log = logging.getLogger(__name__)

# The longest waits between tries, in seconds: they double up to the first, and up to the second after a refused login,
# as providers count those.
_LONGEST = 60.0
_LONGEST_LOGIN = 300.0


class _Outage:
    """Failures in a row: what of them was logged, and how long to wait after each."""

    def __init__(self, clock: Callable[[], float], spread: Callable[[], float]) -> None:
        self._clock = clock
        self._spread = spread
        self._began = 0.0
        self._failures = 0  # without getting any further
        self._told: set[ExitCode] = set()  # the kinds of failure logged

    def go_on(self, failure: Exception, code: ExitCode, *, got_further: bool) -> float:
        """Take one more failure, and log it if it is the first of its kind; returns the seconds to wait."""
        if not self._failures:
            self._began = self._clock()
        if code not in self._told:  # by kind: some servers never use the same words twice
            self._told.add(code)
            _log.error("%s; trying until it works again", failure)
        self._failures = 1 if got_further else self._failures + 1
        longest = _LONGEST_LOGIN if code is ExitCode.LOGIN_REFUSED else _LONGEST
        return min(longest, 2.0 ** min(self._failures - 1, 20)) * (0.5 + self._spread() / 2)

    def end(self) -> None:
        """Log that it is over, if there was one."""
        if self._failures:
            _log.warning("collecting again after %.0f s", self._clock() - self._began)
        self._failures = 0
        self._told.clear()


def keep_going(
    run_pass: Callable[[], tuple[int, int]], *, period: Callable[[], float], pause: Callable[[float], bool],
    alive: Callable[[], None] = lambda: None, place: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.monotonic, spread: Callable[[], float] = random.random,
) -> None:
    """Make one pass after the other until `pause(seconds)` says to stop; call `alive` after each good pass.

    `period()` gives the seconds from a good pass to the next.
    `place()` says how far the passes have come: a failed pass that got further is soon followed by the next one.
    """
    outage = _Outage(clock, spread)
    ever = False
    while True:
        before = place()
        try:
            taken = run_pass()
            outage.end()
            report(*taken)
            ever = True
            alive()
            wait = period()
        except (MailboxError, StateError) as failure:
            if pause(0):
                return
            code = failure.exit_code if isinstance(failure, MailboxError) else ExitCode.TEMPORARY
            if not ever and code in (ExitCode.LOGIN_REFUSED, ExitCode.CONFIG):
                raise
            if code is ExitCode.LOGIN_REFUSED:
                alive()  # a restart by the watchdog would be fatal: a login refused at the start ends the script
            wait = outage.go_on(failure, code, got_further=place() != before)
        if pause(wait):
            return


def report(tickets: int, others: int) -> None:
    """Log one line for a pass that brought mail."""
    if tickets or others:
        _log.info("%d new: %d of tickets, %d other%s", tickets + others, tickets, others, "s" * (others != 1))
