"""Connections that threads wait for, to send a frame or to take a reply, in the order in which the waits began.

When every thread is taken, the connection that has kept its thread waiting longest is closed to let the next one in:
so idlers cannot keep users out. Nor can a crowd from one network: of young ones its own go first.

Called by `listener`.
"""

import socket
import threading
import time
from collections import Counter

from mailer.transport import Connection

# A connection that was waited for less than this is not idle, its frame is on the way: it is not closed for another.
FAIR_WAIT = 0.1  # seconds
# One that has waited for longer than this is idle wherever it comes from.
_LONG = 2.0  # seconds
# A network that has such a part of all connections has its own closed: others may be slow, and are not to pay for it.
_CROWD = 1 / 4


class Idlers:
    """The connections that are waited for, and since when; one that is closed to make room becomes `given_up`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[Connection, float] = {}
        self._open: Counter[str] = Counter()  # connections by network, waited for or not
        self._ending = False

    def __bool__(self) -> bool:
        return bool(self._since)

    def come(self, connection: Connection) -> None:
        """Note a new connection."""
        with self._lock:
            self._open[connection.network] += 1

    def go(self, connection: Connection) -> None:
        """Note that a connection is about to be closed."""
        with self._lock:
            self._since.pop(connection, None)
            self._open[connection.network] -= 1
            if not self._open[connection.network]:
                del self._open[connection.network]

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

        If they all are young, and may just be slow, it is one of the network that crowds the others out, if any does.
        """
        with self._lock:
            now = time.monotonic()
            longest = next(iter(self._since), None)
            if longest and now - self._since[longest] < _LONG:
                most = max(self._open.values())
                if most > _CROWD * self._open.total():
                    longest = next((each for each in self._since if self._open[each.network] == most), None)
            if longest is None or now - self._since[longest] < FAIR_WAIT:
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
