"""Connections that threads wait for, to send a frame or to take a reply, in the order in which the waits began.

When every thread is taken, one of them is closed to let the next connection in: of the host with most of them the one
that has kept its thread waiting longest. So idlers cannot keep users out. Called by `listener`.
"""

import socket
import threading
import time
from collections import Counter

from mailer.transport import Connection

# A connection that was waited for less than this is not idle, its frame is on the way: it is not closed for another.
FAIR_WAIT = 0.1  # seconds
# The same for a connection of a host that has fewer than another: that one's are idle, too, in a moment.
_FAIR_WAIT_OF_OTHERS = 2.0  # seconds


class Idlers:
    """The connections that are waited for, and since when; one that is closed to make room becomes `given_up`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[Connection, float] = {}
        self._open: Counter[str] = Counter()  # connections by host, waited for or not
        self._ending = False

    def __bool__(self) -> bool:
        return bool(self._since)

    def come(self, connection: Connection) -> None:
        """Note a new connection."""
        with self._lock:
            self._open[connection.host] += 1

    def go(self, connection: Connection) -> None:
        """Note that a connection is about to be closed."""
        with self._lock:
            self._since.pop(connection, None)
            self._open[connection.host] -= 1
            if not self._open[connection.host]:
                del self._open[connection.host]

    def enter(self, connection: Connection) -> None:
        """Note that a thread is going to wait for this connection."""
        with self._lock:
            self._since.setdefault(connection, time.monotonic())
            if self._ending:
                connection.interrupt(socket.SHUT_RD)

    def leave(self, connection: Connection) -> bool:
        """Note that the thread waits no longer; False when the connection was closed to make room meanwhile."""
        if connection in self._since:
            with self._lock:
                self._since.pop(connection, None)
        return not connection.given_up

    def close_longest(self) -> bool:
        """Close the connection that has been waited for longest, if that is long enough to call it idle.

        It is one of the host with most connections, so that a flood from one host closes none of others, however slow.
        """
        with self._lock:
            longest = max(self._since, key=lambda connection: self._open[connection.host], default=None)
            if longest is None:
                return False
            is_of_most = self._open[longest.host] == max(self._open.values())
            if time.monotonic() - self._since[longest] < (FAIR_WAIT if is_of_most else _FAIR_WAIT_OF_OTHERS):
                return False
            longest.given_up = True  # before the entry goes: `leave` reads both without the lock
            del self._since[longest]
            longest.interrupt()
            return True

    def end(self) -> None:
        """End all waits for frames, and those to come; a frame that has arrived is still read and answered."""
        with self._lock:
            self._ending = True
            for connection in self._since:
                connection.interrupt(socket.SHUT_RD)
