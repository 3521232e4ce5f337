"""A login that is refused again and again is tried less and less often: providers lock accounts after many refusals.

From the third refusal in a row on, each starts a pause, in which no login is tried and every attempt to open a session
gets that refusal again. Unless the last login succeeded, no more logins run at once than may be refused before the
first pause. Called by `smtp`.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeGuard

from mailer.errors import Code, DeliveryError, Outcome
from mailer.smtp.reply import LoginDeferredError, SessionLostError

_PATIENCE = 3  # refusals in a row; the last of them starts the first pause
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds; each pause is twice as long as the one before
_DOUBLINGS = 6  # from the first pause to the longest


class Pacing:
    """Shared by threads. `on_wait` is called by a thread that is about to wait for the outcome of others' logins."""

    def __init__(self, on_wait: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_wait = on_wait
        self._clock = clock
        self._changed = threading.Condition()  # guards what follows
        self._under_way = 0
        self._works = False  # whether the last login that got an answer succeeded
        self._failures = 0  # sessions that could not be opened for another reason
        self._refusals = 0  # in a row
        self._refusal = DeliveryError(Code.MAIL_AUTH_FAILED, "never tried", Outcome.PERMANENT)
        self._paused_at = self._pause_ends = -math.inf

    @contextlib.contextmanager
    def opening(self, deadline: float) -> Iterator[None]:
        """A context in which to open a session; during a pause it raises the last refusal instead."""
        began = self._begin(deadline)
        try:
            yield
        except BaseException as failure:
            self._ended(began, failure)
            raise
        self._ended(began, None)

    def _begin(self, deadline: float) -> float:
        failures = self._failures
        if not self._settled(failures):
            self._on_wait()
        with self._changed:
            if not self._changed.wait_for(lambda: self._settled(failures), max(deadline - time.monotonic(), 0)):
                raise SessionLostError("the mail server does not answer the logins that are under way")
            now = self._clock()
            # After a pause one thread tries, and the others get the last refusal until its outcome is known.
            if self._refusals >= _PATIENCE and (now < self._pause_ends or self._under_way):
                raise DeliveryError(*self._refusal.problem, self._refusal.outcome)
            self._under_way += 1
            return now

    def _settled(self, failures: int) -> bool:
        """Whether the wait is over; `failures` is the value of `_failures` when it began.

        One more failure ends the wait, too: if the server cannot be reached, threads need not try one after another.
        """
        room = self._under_way + self._refusals < _PATIENCE
        return room or self._works or self._refusals >= _PATIENCE or self._failures != failures

    def _ended(self, began: float, failure: BaseException | None) -> None:
        with self._changed:
            self._under_way -= 1
            if failure is None:
                self._works, self._refusals = True, 0
            elif _is_refusal(failure):
                self._works = False
                self._refused(began, failure)
            else:
                self._failures += 1
            self._changed.notify_all()

    def _refused(self, began: float, refusal: DeliveryError) -> None:
        if began <= self._paused_at:
            return  # logins that were under way together start only one pause
        self._refusals += 1
        self._refusal = refusal
        if self._refusals >= _PATIENCE:
            pause = _FIRST_PAUSE * 2 ** min(self._refusals - _PATIENCE, _DOUBLINGS)
            self._paused_at = self._clock()
            self._pause_ends = self._paused_at + min(pause, _LONGEST_PAUSE)


def _is_refusal(failure: BaseException) -> TypeGuard[DeliveryError]:
    if isinstance(failure, LoginDeferredError):
        return True
    return isinstance(failure, DeliveryError) and failure.problem.code is Code.MAIL_AUTH_FAILED
