"""Connections that keep a thread waiting, for the rest of a frame or for a reply to be taken, the longest one first.

When every thread is taken, the one that has kept its own waiting longest is closed to let the next one in: so idlers
cannot keep users out. Called by `listener`.
"""

import socket
import threading
import time

from mailer.transport import Connection

# A connection that has waited less is not idle, its frame is on the way: nobody is let in at its cost.
FAIR_WAIT = 0.1  # seconds


class Idlers:
    """The connections that are waited for, and since when; one that is closed for others is `given_up`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[Connection, float] = {}
        self._ending = False

    def __bool__(self) -> bool:
        return bool(self._since)

    def enter(self, connection: Connection) -> None:
        """A thread is going to wait for this connection."""
        with self._lock:
            self._since.setdefault(connection, time.monotonic())
            if self._ending:
                connection.interrupt(socket.SHUT_RD)

    def leave(self, connection: Connection) -> bool:
        """It does so no more: whether the connection was not closed meanwhile."""
        if connection in self._since:
            with self._lock:
                self._since.pop(connection, None)
        return not connection.given_up

    def close_longest(self) -> bool:
        """Close the connection that has been waited for longest, if that is long enough to call it idle."""
        with self._lock:
            longest = next(iter(self._since), None)
            if longest is None or time.monotonic() - self._since[longest] < FAIR_WAIT:
                return False
            longest.given_up = True  # first: `leave` looks at both without the lock
            del self._since[longest]
            longest.interrupt()
            return True

    def end(self) -> None:
        """Wait for nobody any more: a frame that has arrived is still read, and answered."""
        with self._lock:
            self._ending = True
            for connection in self._since:
                connection.interrupt(socket.SHUT_RD)
