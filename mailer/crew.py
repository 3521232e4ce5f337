"""A fixed set of threads, one of which leads; none is started for a connection.

The leader accepts connections, several where several have come, and takes a step of each visit in turn. As long as
nobody has to be waited for, this one thread does all the work, and competes with no other for the interpreter. Before
it waits for long (a slow peer, a mail server far away) it stands aside: it keeps the visit whose step it is in, and
the thread that parked last, whose memory is warmest, leads on with all the others. So on a fast network one thread
does the work of many, and on a slow one as many as there are connections wait side by side.

Invariant: besides the visit that the leader is in, it has no more than there are threads parked. So whichever of them
have to wait, each has a thread to wait in, and none waits for another. Called by `listener`.
"""

import functools
import threading
import time
from collections import deque
from collections.abc import Callable

from mailer.steps import Steps, finish

_GLANCE = 0.002  # seconds; most of those that rest are over before the next one comes

# Threads that others will start: who goes to the limit leaves room for them.
_SPARE = 4

_here = threading.local()  # in a thread of a crew: what makes it stand aside

Visit = Steps[None]


def stand_aside() -> None:
    """To be called by a thread that is about to wait for long: if it leads a crew, another one leads in its place."""
    release: Callable[[], None] | None = getattr(_here, "release", None)
    if release:
        release()


class _Member:
    """A thread's place: whether it leads, the visit that was given to it, and what it parks on."""

    __slots__ = ("leads", "visit", "wake")

    def __init__(self) -> None:
        self.leads = False
        self.visit: Visit | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


class Crew:
    """`size` threads that look after visits; the one that leads has up to `at_once` in hand, and those that rested.

    `accept(seconds)` gives the next visit; None when there is none in that time, if it is limited, or when the crew is
    to end.
    """

    def __init__(self, size: int, at_once: int, accept: Callable[[float | None], Visit | None]) -> None:
        self._size = size
        self._at_once = at_once
        self._accept = accept
        # The leader's; nobody else touches them.
        self._visits: deque[Visit] = deque()
        self._resting: deque[Visit] = deque()  # until the next one comes, or for a glance
        # The lock guards all that follows. Members park on locks of their own, others wait for changes.
        self._lock = threading.Lock()
        self._change = threading.Condition(self._lock)
        self._parked: list[_Member] = []
        self._promised = 0  # of those parked: one for each visit that the leader has beside the one it is in
        self._vacant = False  # nobody leads
        self._deputy = False  # somebody outside accepts in the leader's place
        self._offered: Visit | None = None
        self._full_since = 0.0
        self._ending = False
        members = [_Member() for _ in range(size)]
        members[0].leads = True
        self._threads = [
            threading.Thread(target=self._work, args=(member,), name="worker", daemon=True) for member in members
        ]

    def start(self) -> int:
        """Start all threads, or as many as the system lets; how many. Raises RuntimeError when it lets none."""
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
        """Begin nothing more; the visits that have begun are finished."""
        with self._lock:
            self._ending = True
            unneeded = len(self._parked) - self._promised
            for member in self._parked[:unneeded]:
                member.wake.release()
            del self._parked[:unneeded]
            self._change.notify_all()

    def join(self, until: float) -> int:
        """Wait for the threads to end, but not beyond a moment (monotonic); how many have not."""
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))
        return sum(thread.is_alive() for thread in self._threads)

    # -- for those who have visits to give -------------------------------------------------------------------------

    @property
    def full_since(self) -> float:
        """Since when (monotonic) all threads have been taken by the visits that they have now."""
        return self._full_since

    @property
    def taken(self) -> int:
        """How many threads have a visit, or lead."""
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
        """Have the first thread that is free within so many seconds look after a visit; False when none was."""
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
        """Wait until nobody leads, as all threads are taken; the caller accepts then, until `fill_vacancy`.

        False when the crew ends.
        """
        with self._lock:
            self._change.wait_for(lambda: self._vacant or self._ending)
            self._deputy = not self._ending
            return self._deputy

    def fill_vacancy(self) -> None:
        """Let one of the crew lead again, as soon as there is one."""
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
            # Those who were kept for the visits end in turn; and an error that nobody foresaw ends this thread alone.
            self._release(me)

    def _lead(self, me: _Member) -> None:
        """Take on what has come, and one step after the other of each visit, for as long as this thread leads."""
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
        """Wait for a visit, and take on as many more as have come and could have threads, beside those at rest."""
        at_rest = len(self._resting)
        with self._lock:
            room = len(self._parked) >= at_rest  # for one more
            self._promised = at_rest if room else at_rest - 1
        visit = self._accept(_GLANCE if at_rest else None) if room else None
        if visit:
            self._visits.append(visit)
            with self._lock:
                # Those at rest are nearly over, and are no reason for having fewer others.
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
        self._full_since = time.monotonic()  # should it be the last one
        member = self._parked.pop()
        member.visit = visit
        member.wake.release()
        return True

    def _find_work(self, me: _Member) -> None:
        """Take the visit that is offered, or the lead, or park until one of them is given."""
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
