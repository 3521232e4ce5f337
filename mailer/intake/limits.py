"""Rate limits: a token bucket for each key, in bounded memory.

A flood of distinct keys cannot grow the table beyond its bound: the key that was used longest ago is dropped. Under a
normal load its bucket is full again by then, so that nothing is lost. Called by `intake`.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

from mailer.settings import Rate

_KEYS = 50_000  # about 10 MB at worst


class RateLimit:
    """Limits each key to `rate`; None limits nothing. `clock` gives monotonic seconds."""

    def __init__(self, rate: Rate | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._interval = rate.seconds / rate.count if rate else 0.0
        self._tolerance = self._interval * (rate.burst - 1) if rate else 0.0
        self._lock = threading.Lock()
        # By key, the moment at which its bucket is full again (ATM Forum's generic cell rate algorithm).
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, key: str) -> float:
        """Take one token and return 0, or take none and return the seconds until there is one."""
        if not self._interval:
            return 0.0
        now = self._clock()
        with self._lock:
            full_at = max(self._full_at.get(key, now), now)
            too_early = full_at - self._tolerance - now
            if too_early > 0:
                return too_early
            self._full_at[key] = full_at + self._interval
            self._full_at.move_to_end(key)
            if len(self._full_at) > _KEYS:
                self._full_at.popitem(last=False)
        return 0.0
