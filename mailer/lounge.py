"""Connections that have been answered once and will probably say no more.

Nearly every client asks once and closes. Who waits for that, however shortly, waits in vain: the worker that answered
leaves the connection here and serves the next one. In passing it closes one whose peer has ended meanwhile; what still
rests after some milliseconds is looked at by one thread, and goes to another worker. Called by `listener`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from mailer.transport import Connection

# Many times what a client nearby needs to close; what a second request on the same connection may lose, once.
_GLANCE = 0.005  # seconds
_SLOWEST_GLANCE = 0.1  # seconds, as long as no worker is free for those that rest
_MOST_RESTING = 64  # they hold an open file, and no worker

_Visit = tuple[Connection, str]  # a connection, and the host it comes from


class Lounge:
    """`resume(connection, host)` gives a connection to a worker, and says whether there was one for it."""

    def __init__(self, resume: Callable[[Connection, str], bool]) -> None:
        self._resume = resume
        self._resting: deque[_Visit] = deque()  # every thread takes and puts: each connection is in one hand at a time
        self._due = threading.Event()
        self._open = True

    def start(self) -> None:
        """Look after those that rest from now on."""
        threading.Thread(target=self._look_after, name="lounge", daemon=True).start()

    def rest(self, connection: Connection, host: str) -> bool:
        """Take a connection; not when it goes on to ask, nor when too many rest already."""
        if connection.buffered or len(self._resting) >= _MOST_RESTING:
            return False
        self._resting.append((connection, host))
        if not self._due.is_set():
            self._due.set()
        if len(self._resting) > 1:
            self._pass_by(lambda _connection, _host: False)
        return True

    def close(self) -> list[_Visit]:
        """End, and leave those that rest to the caller."""
        self._open = False
        self._due.set()
        left = []
        while self._resting:
            left.append(self._resting.popleft())
        return left

    def _pass_by(self, resume: Callable[[Connection, str], bool]) -> bool:
        """Look at the one that rests longest; False when it goes on resting."""
        try:
            connection, host = self._resting.popleft()
        except IndexError:
            return True  # another thread was quicker
        more = connection.look()
        if more is False:
            connection.close()
        elif not resume(connection, host):
            self._resting.append((connection, host))
            return False
        return True

    def _look_after(self) -> None:
        pause = _GLANCE
        while self._due.wait() and self._open:
            time.sleep(pause)
            self._due.clear()
            gone = [self._pass_by(self._resume) for _ in range(len(self._resting))]
            pause = _GLANCE if all(gone) else min(2 * pause, _SLOWEST_GLANCE)
            if self._resting:
                self._due.set()
