"""A fixed set of threads, one of which leads; no thread is started for a single connection.

A visit is the work on one connection, in steps. The leader accepts visits, several when several have come, and takes a
step of each in turn. As long as no step has to wait, this one thread does all the work, and competes with no other for
the interpreter. Before a long wait (for a slow peer, for a distant mail server) it stands aside: it keeps the visit
whose step it is in, and the thread that parked last, whose memory is warmest in the cache, takes over the lead and all
other visits. So on a fast network one thread does the work of many; on a slow one the threads wait side by side.

Invariant: apart from the visit that it is in, the leader has no more visits than there are parked threads. So each
visit that has to wait has a thread to wait in, and none waits for another. Called by `listener`; `stand_aside` by all
that is about to wait.
"""

import functools
import threading
import time
from collections import deque
from collections.abc import Callable

from mailer.steps import Steps, finish

_GLANCE = 0.002  # seconds to wait for a new visit while others rest: most of these are over by then

# Where the system limits the number of threads, so many are left for those that are started elsewhere.
_SPARE = 4

_here = threading.local()  # `release`, in a thread of a crew: makes it stand aside

Visit = Steps[None]


def stand_aside() -> None:
    """Called by a thread that is about to wait for long: if it leads a crew, another one takes over the lead."""
    release: Callable[[], None] | None = getattr(_here, "release", None)
    if release:
        release()


class _Member:
    """One thread of a crew: whether it leads, the visit that was given to it, and the lock on which it parks."""

    __slots__ = ("leads", "visit", "wake")

    def __init__(self) -> None:
        self.leads = False
        self.visit: Visit | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


class Crew:
    """`size` threads that look after visits; the leader has up to `at_once` of them in hand, and those that rested.

    `accept(seconds)` returns the next visit, or None when none comes in that time or the crew is to end;
    `accept(None)` waits without a limit.
    """

    def __init__(self, size: int, at_once: int, accept: Callable[[float | None], Visit | None]) -> None:
        self._size = size
        self._at_once = at_once
        self._accept = accept
        # These two are the leader's; no other thread changes them.
        self._visits: deque[Visit] = deque()
        self._resting: deque[Visit] = deque()  # until another visit comes, or for _GLANCE
        # The lock guards all changes to what follows; only the leader may lower `_promised` without it. Members park on
        # locks of their own, other threads wait for a change.
        self._lock = threading.Lock()
        self._change = threading.Condition(self._lock)
        self._parked: list[_Member] = []
        self._promised = 0  # parked threads kept for the leader's visits: one for each but the one that it is in
        self._vacant = False  # nobody leads
        self._deputy = False  # a thread outside the crew accepts in the leader's place
        self._offered: Visit | None = None
        self._full_since = 0.0
        self._ending = False
        members = [_Member() for _ in range(size)]
        members[0].leads = True
        self._threads = [
            threading.Thread(target=self._work, args=(member,), name="worker", daemon=True) for member in members
        ]

    def start(self) -> int:
        """Start all threads, or as many as the system allows; returns their number. Raises RuntimeError if it is 0."""
        started = threading.Event()
        places = [threading.Thread(target=started.wait, daemon=True) for _ in range(_SPARE)]
        try:
            for thread in (*places, *self._threads):
                thread.start()
        except RuntimeError:
            self._threads = [thread for thread in self._threads if thread.ident]
            self._size = len(self._threads)
            if not self._size:
                raise
        finally:
            started.set()
            for place in filter(threading.Thread.is_alive, places):
                place.join()
        return self._size

    def end(self) -> None:
        """Begin no more visits; those that have begun are finished."""
        with self._lock:
            self._ending = True
            unneeded = len(self._parked) - self._promised
            for member in self._parked[:unneeded]:
                member.wake.release()
            del self._parked[:unneeded]
            self._change.notify_all()

    def join(self, until: float) -> int:
        """Wait for the threads to end, until the moment `until` (monotonic) at most; returns how many have not."""
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))
        return sum(thread.is_alive() for thread in self._threads)

    # -- for the listener, which has visits to give ----------------------------------------------------------------

    @property
    def full_since(self) -> float:
        """While all threads are taken: when (monotonic) the last of them got the visit that it has."""
        return self._full_since

    @property
    def taken(self) -> int:
        """How many threads lead or have a visit."""
        return self._size - len(self._parked)

    @property
    def crowded(self) -> bool:
        """Whether other visits wait for the step that the leader is in."""
        return bool(self._visits)

    @property
    def wanted(self) -> bool:
        """Whether a visit waits for a thread."""
        return self._offered is not None

    def offer(self, visit: Visit, seconds: float) -> bool:
        """Give a visit to the first thread that is free within so many seconds; False when none is."""
        with self._lock:
            if self._give(visit):
                return True
            self._offered = visit
            try:
                self._change.wait_for(lambda: self._offered is None or self._ending, seconds)
                return self._offered is None
            finally:
                self._offered = None

    def wait_for_vacancy(self) -> bool:
        """Wait until no thread leads, because all are taken; then the caller accepts, until it calls `fill_vacancy`.

        Returns False when the crew ends.
        """
        with self._lock:
            self._change.wait_for(lambda: self._vacant or self._ending)
            self._deputy = not self._ending
            return self._deputy

    def fill_vacancy(self) -> None:
        """Let a thread of the crew lead again, as soon as one is free."""
        with self._lock:
            self._deputy = False
            if self._vacant and self._parked:
                self._lead_on(self._parked.pop())

    # -- what the threads do ---------------------------------------------------------------------------------------

    def _work(self, me: _Member) -> None:
        _here.release = functools.partial(self._release, me)
        try:
            while True:
                if me.visit:
                    visit, me.visit = me.visit, None
                    finish(visit)
                elif me.leads and (self._visits or self._resting or not self._ending):
                    self._lead(me)
                elif self._ending:
                    break
                else:
                    self._find_work(me)
        finally:
            # The next thread leads: at the end, so that those kept for visits end one after the other; and after an
            # error in a visit, so that it ends this thread alone.
            self._release(me)

    def _lead(self, me: _Member) -> None:
        """Take on visits, if there are none, and take a step of each in turn, for as long as this thread leads."""
        visits = self._visits
        if not visits:
            self._take_on()
        while me.leads and visits:
            visit = visits.popleft()
            try:
                rests = next(visit)
            except StopIteration:
                continue
            if not me.leads:
                finish(visit)
            elif rests:
                self._resting.append(visit)
            else:
                visits.append(visit)

    def _take_on(self) -> None:
        """Wait for a visit; take on as many more as have come and as there are threads for; add those at rest."""
        at_rest = len(self._resting)
        with self._lock:
            room = len(self._parked) >= at_rest  # a thread for one more
            self._promised = at_rest if room else at_rest - 1
        visit = self._accept(_GLANCE if at_rest else None) if room else None
        if visit:
            self._visits.append(visit)
            with self._lock:
                # Those at rest are nearly over, so they do not count towards `at_once`.
                self._promised = min(self._at_once - 1 + at_rest, len(self._parked))
            for _ in range(self._promised - at_rest):
                visit = self._accept(0.0)
                if not visit:
                    break
                self._visits.append(visit)
        self._visits.extend(self._resting)
        self._resting.clear()
        self._promised = max(len(self._visits) - 1, 0)

    def _release(self, me: _Member) -> None:
        if not me.leads:
            return
        me.leads = False
        with self._lock:
            self._promised = max(self._promised - 1, 0)
            if self._parked:
                self._lead_on(self._parked.pop())
            else:
                self._vacant = True
                self._full_since = time.monotonic()
                self._change.notify_all()

    def _lead_on(self, successor: _Member) -> None:
        self._vacant = False
        successor.leads = True
        successor.wake.release()

    def _give(self, visit: Visit) -> bool:
        if self._ending or len(self._parked) <= self._promised:
            return False
        self._full_since = time.monotonic()  # in case this is the last free thread
        member = self._parked.pop()
        member.visit = visit
        member.wake.release()
        return True

    def _find_work(self, me: _Member) -> None:
        """Take the visit that is offered, or the lead if it is vacant, or park until one of these is given."""
        with self._lock:
            if self._ending:
                return
            if self._offered:
                me.visit, self._offered = self._offered, None
                self._full_since = time.monotonic()
                self._change.notify_all()
                return
            if self._vacant and not self._deputy:
                self._vacant = False
                me.leads = True
                return
            self._parked.append(me)
        me.wake.acquire()
