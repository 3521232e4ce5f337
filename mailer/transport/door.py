"""The listening socket: gives the next connection to the thread that asks for it, and turns away those without a place.

When the system has no file descriptor or memory left for a connection, an idle one is closed to make room. `close` ends
the wait of every thread in `next`. Called by `listener`; `desk` calls `listen`, `decoder` `busy`.
"""

import contextlib
import errno
import logging
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable

from mailer.errors import Code, Problem
from mailer.protocol import Reply, encode_reply
from mailer.transport import Connection

# Connections that the kernel completes before they are accepted; the system's own limit (somaxconn) may be lower.
_BACKLOG = 1024
_TURN_AWAY_SECONDS = 0.5  # for a connection to hear that there is no room
_MOST_LEAVING = 64  # connections that are being told so at the same time; each is an open file
# Seconds to wait after a connection could not be accepted: when an idle one was closed for it, and when none was.
_ENDING_PAUSE, _PAUSE = 0.002, 0.1
_QUIET_SECONDS = 60.0  # between two warnings about that
_NOTHING_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Arrival = tuple[socket.socket, str]  # a connection, and the host it comes from

_log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError. Port 0 takes any free one; `::` takes IPv4 as well where the system can."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)


class Door:
    """Accepts connections. `make_room()` closes one that is idle, and returns whether there was one."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext | None, make_room: Callable[[], bool]) -> None:
        self._listening = listening
        self._listening.setblocking(False)
        self._context = context
        self._make_room = make_room
        self._bell, self._rope = socket.socketpair()  # once the rope is closed, the bell stays readable
        self._quiet_until = 0.0
        self._leaving: deque[tuple[float, Connection]] = deque()  # connections turned away, and when to close them
        self._most_leaving = _MOST_LEAVING
        self._open = True

    def next(self, seconds: float | None) -> Arrival | None:
        """The next connection; None when none comes in so many seconds (None: no limit), or when the door is closed."""
        while self._open:
            try:
                if seconds != 0:
                    select.select([self._listening, self._bell], [], [], seconds)
                return self._accept()
            except BlockingIOError:
                if seconds is not None:
                    return None
            except ValueError:  # the socket has just been closed
                break
            except ConnectionError:
                continue  # the peer has gone already
            except (OSError, MemoryError) as failure:
                pause = self._complain(failure) if self._open else 0
                if seconds is not None:  # the caller has other visits, which may hold what is missing
                    return None
                time.sleep(pause)
        return None

    def close(self) -> None:
        """Accept no more connections: threads that wait for the next one get None."""
        self._open = False
        self._rope.close()

    def send_home(self, until: float) -> None:
        """Turn away connections that came too late, until the moment `until` (monotonic), and stop listening."""
        with contextlib.suppress(OSError, MemoryError):
            while time.monotonic() < until:
                with contextlib.suppress(ConnectionError):  # the peer has gone already
                    self.turn_away(self._accept()[0])
        self._listening.close()  # before the wait: a client that comes now is refused, and knows that nothing was sent
        if self._leaving:
            time.sleep(min(_TURN_AWAY_SECONDS, max(until - time.monotonic(), 0)))
        self._most_leaving = 0
        self._see_off(0)
        self._bell.close()

    def turn_away(self, sock: socket.socket) -> None:
        """Answer `busy` to a connection; it is closed a little later, so that the answer arrives."""
        try:
            # A TLS handshake gets less time, as this thread waits for it.
            seconds = _TURN_AWAY_SECONDS / 5 if self._context else _TURN_AWAY_SECONDS
            connection = Connection(sock, seconds, context=self._context)
            self._leaving.append((time.monotonic() + _TURN_AWAY_SECONDS, connection))
            connection.send(encode_reply(busy()))
            connection.interrupt(socket.SHUT_WR)
        except (OSError, MemoryError) as failure:
            _log.debug("a connection that was turned away: %s", failure)
        self._see_off(self._most_leaving)

    def _see_off(self, most: int) -> None:
        """Close the connections turned away whose time is over, and older ones until at most so many are left."""
        with contextlib.suppress(IndexError):  # none is left
            while len(self._leaving) > most or self._leaving[0][0] < time.monotonic():
                self._leaving.popleft()[1].close()

    def _accept(self) -> Arrival:
        sock, address = self._listening.accept()
        if not address:  # on macOS, when the connection was reset before it was accepted
            sock.close()
            raise ConnectionAbortedError
        return sock, address[0]

    def _complain(self, failure: OSError | MemoryError) -> float:
        """Log that no connection can be accepted, and make room if need be; returns the seconds to wait."""
        if time.monotonic() > self._quiet_until:
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            _log.warning("cannot accept a connection: %s", failure or "no memory")
        nothing_left = isinstance(failure, MemoryError) or failure.errno in _NOTHING_LEFT
        return _ENDING_PAUSE if nothing_left and self._make_room() else _PAUSE


def busy() -> Reply:
    """The reply to a client that cannot be served now."""
    return Reply(problems=(Problem(Code.BUSY, "The server is busy; please try again in a moment."),), retry=True)
