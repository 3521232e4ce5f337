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


def keep_going(
    run_pass: Callable[[], tuple[int, int]], *, period: Callable[[], float], pause: Callable[[float], bool],
    alive: Callable[[], None] = lambda: None, place: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.monotonic, spread: Callable[[], float] = random.random,
) -> None:
    """Make one pass after the other until `pause(seconds)` says to stop; call `alive` after each good pass.

    `period()` gives the seconds from a good pass to the next.
    `place()` says how far the passes have come: a failed pass that got further is soon followed by the next one.
    """
    began = clock()
    failures = 0  # in a row, without getting any further
    told: set[ExitCode] = set()  # the kinds of failure logged since the last good pass
    ever = False
    while True:
        before = place()
        try:
            taken = run_pass()
            if failures:
                _log.warning("collecting again after %.0f s", clock() - began)
            report(*taken)
            failures, ever = 0, True
            told.clear()
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
            if not failures:
                began = clock()
            if code not in told:  # by kind: some servers never use the same words twice
                told.add(code)
                _log.error("%s; trying until it works again", failure)
            longest = _LONGEST_LOGIN if code is ExitCode.LOGIN_REFUSED else _LONGEST
            failures = failures + 1 if place() == before else 1
            wait = min(longest, 2.0 ** min(failures - 1, 20)) * (0.5 + spread() / 2)
        if pause(wait):
            return


def report(tickets: int, others: int) -> None:
    """Log one line for a pass that brought mail."""
    if tickets or others:
        _log.info("%d new: %d of tickets, %d other%s", tickets + others, tickets, others, "s" * (others != 1))
