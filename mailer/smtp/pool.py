"""A few SMTP sessions, kept and shared: taken for one transaction, then given back.

The session used last is used next, so that a quiet server keeps few of them busy; one that has been idle for too long
is closed during a later delivery. When a session cannot be opened while others are open, that is no error: the delivery
queues for one of the others until its deadline. Called by `smtp`.
"""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from mailer.errors import DeliveryError
from mailer.smtp.reply import SessionLostError
from mailer.smtp.session import Session

# Mail servers close a session that is idle for minutes (RFC 5321, section 4.5.3.2.7: five); the pool closes it sooner.
_LONGEST_IDLE = 60.0  # seconds
# A session that has been idle for this long is checked for a lost connection before it is used.
_RESTED = 0.01  # seconds
# After a session could not be opened while others are open, no new one is tried for this long.
_SPARED = 10.0  # seconds

# Where one thread waits for a session; None tells it to look again.
_Place = queue.SimpleQueue[Session | None]


class Pool:
    """At most `limit` sessions, each opened by `open_session(deadline)`."""

    def __init__(
        self, open_session: Callable[[float], Session], limit: int, on_wait: Callable[[], None]
    ) -> None:
        self._open_session = open_session
        self._limit = limit
        self._on_wait = on_wait
        # Free sessions, the one used last at the end. They are popped and appended without a lock: both are atomic.
        self._free: list[Session] = []
        self._lock = threading.Lock()  # guards what follows
        self._queue: deque[_Place] = deque()  # the places of the threads that wait
        self._opening = self._living = 0
        self._spared_until = 0.0
        self._closed = False

    def take(self, deadline: float, *, fresh: bool = False) -> Session:
        """A session for the caller alone: a free one (unless `fresh`), a new one, or one that others give back."""
        failure: DeliveryError | None = None
        while True:
            # A newcomer does not overtake the threads that wait.
            session = None if fresh or self._queue else self._take_free()
            if session:
                return session
            place = self._open_or_queue(in_any_case=fresh)
            fresh = False
            if place:
                session = self._wait_in(place, deadline, failure)
            else:
                try:
                    return self._open(deadline)
                except DeliveryError as refused:
                    if not self._living:
                        raise
                    failure = refused
            if session:
                return session

    def give_back(self, session: Session) -> None:
        """Make the session available to other threads, if it can still be used."""
        if self._closed or not session.sock:
            return self._retire(session)
        now = session.idle_since = time.monotonic()
        self._free.append(session)
        if self._queue:
            self._hand_over()
        oldest = next(iter(self._free), session)
        if now - oldest.idle_since > _LONGEST_IDLE:
            with contextlib.suppress(ValueError):  # another thread took it
                self._free.remove(oldest)
                self._retire(oldest)
        return None

    def close(self) -> None:
        """Close the free sessions; those that are still in use are closed when they are given back."""
        self._closed = True
        while self._free:
            self._retire(self._free.pop())

    def _take_free(self) -> Session | None:
        while self._free:
            try:
                session = self._free.pop()
            except IndexError:
                return None  # another thread was quicker
            rested = time.monotonic() - session.idle_since
            if rested < _RESTED or (rested < _LONGEST_IDLE and session.silent):
                session.reused = True
                return session
            self._retire(session)
        return None

    def _open_or_queue(self, *, in_any_case: bool) -> _Place | None:
        """None when the caller may open a session, otherwise its place in the queue.

        `in_any_case`: the caller may do so even soon after a session could not be opened.
        """
        with self._lock:
            room = self._opening + self._living < self._limit
            if room and (in_any_case or not self._living or time.monotonic() > self._spared_until):
                self._opening += 1
                return None
            place: _Place = queue.SimpleQueue()
            self._queue.append(place)
        self._hand_over()
        return place

    def _open(self, deadline: float) -> Session:
        opened = False
        try:
            session = self._open_session(deadline)
            opened = True
            return session
        finally:
            with self._lock:
                self._opening -= 1
                self._living += opened
                if not opened:
                    self._spared_until = time.monotonic() + _SPARED
                    self._wake(all_of_them=not self._living)

    def _retire(self, session: Session) -> None:
        try:
            session.leave()
        except MemoryError:
            session.close()
        with self._lock:
            self._living -= 1
            self._wake(all_of_them=not self._living)

    def _wake(self, *, all_of_them: bool) -> None:
        """Tell the first waiting thread, or all of them, to look again: there is room for a new session."""
        while self._queue:
            self._queue.popleft().put(None)
            if not all_of_them:
                return

    def _hand_over(self) -> None:
        """Give free sessions to the waiting threads, in turn."""
        with self._lock:
            while self._queue and self._free:
                try:
                    session = self._free.pop()
                except IndexError:
                    return  # another thread took it, and comes here when it gives it back
                session.reused = True
                self._queue.popleft().put(session)

    def _wait_in(self, place: _Place, deadline: float, failure: DeliveryError | None) -> Session | None:
        """Wait for a session that is handed over; None means to look again."""
        self._on_wait()
        try:
            return place.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            pass
        with self._lock:
            if place in self._queue:
                self._queue.remove(place)
                raise failure or SessionLostError("all sessions with the mail server are taken")
        return place.get_nowait()  # it came at the last moment
