"""The listening socket: connections come in one by one, whoever asks for the next one; a few are turned away.

One that cannot be taken in, as the system has no file descriptor or memory left, is made room for. `close` brings out
whoever waits at the door. Called by `listener`.
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
_MOST_LEAVING = 64  # connections that do so at the same time; each is an open file
# Seconds after the system had nothing left for a connection: in which one that is idle ends, or in which one may.
_ENDING_PAUSE, _PAUSE = 0.002, 0.1
_QUIET_SECONDS = 60.0  # between two complaints of that
_NOTHING_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Arrival = tuple[socket.socket, str]  # a connection, and the host it comes from

_log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError. Port 0 takes any free one; `::` is for IPv4 as well where the system can."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)


class Door:
    """`make_room()` is asked to end a connection that is idle, and says whether there was one."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext | None, make_room: Callable[[], bool]) -> None:
        self._listening = listening
        self._listening.setblocking(False)
        self._context = context
        self._make_room = make_room
        self._bell, self._rope = socket.socketpair()  # the bell rings, for ever, once its other end is closed
        self._quiet_until = 0.0
        self._leaving: deque[tuple[float, Connection]] = deque()  # told to go, and when they are closed
        self._most_leaving = _MOST_LEAVING
        self._open = True

    def next(self, seconds: float | None) -> Arrival | None:
        """The next connection; None when there is none in so many seconds, if limited, or when the door is closed."""
        while self._open:
            try:
                if seconds != 0:
                    select.select([self._listening, self._bell], [], [], seconds)
                return self._accept()
            except BlockingIOError:
                if seconds is not None:
                    return None
            except ValueError:  # closed in this moment
                break
            except ConnectionError:
                continue  # it has gone already
            except (OSError, MemoryError) as failure:
                pause = self._complain(failure) if self._open else 0
                if seconds is not None:  # who asks has others to look after, and what they hold may be what is missing
                    return None
                time.sleep(pause)
        return None

    def close(self) -> None:
        """Let in nobody more: whoever waits for the next one gets none."""
        self._open = False
        self._rope.close()

    def send_home(self, until: float) -> None:
        """Turn away those who came too late, but not beyond a moment (monotonic), and stop listening."""
        with contextlib.suppress(OSError, MemoryError):
            while time.monotonic() < until:
                with contextlib.suppress(ConnectionError):  # it has gone already
                    self.turn_away(self._accept()[0])
        self._listening.close()  # before the wait: who comes now is refused, and knows that nothing was sent
        if self._leaving:
            time.sleep(min(_TURN_AWAY_SECONDS, max(until - time.monotonic(), 0)))
        self._most_leaving = 0
        self._see_off(0)
        self._bell.close()

    def turn_away(self, sock: socket.socket) -> None:
        """Tell a connection that there is no room for it; it is closed a little later, so that it hears that."""
        try:
            # There is less time for a TLS handshake: it is waited for.
            seconds = _TURN_AWAY_SECONDS / 5 if self._context else _TURN_AWAY_SECONDS
            connection = Connection(sock, seconds, context=self._context)
            self._leaving.append((time.monotonic() + _TURN_AWAY_SECONDS, connection))
            connection.send(encode_reply(busy()))
            connection.interrupt(socket.SHUT_WR)
        except (OSError, MemoryError) as failure:
            _log.debug("a connection that was turned away: %s", failure)
        self._see_off(self._most_leaving)

    def _see_off(self, most: int) -> None:
        """Close those whose time is over, and more until so many are left."""
        with contextlib.suppress(IndexError):  # at the end several threads may do so
            while len(self._leaving) > most or self._leaving[0][0] < time.monotonic():
                self._leaving.popleft()[1].close()

    def _accept(self) -> Arrival:
        sock, address = self._listening.accept()
        if not address:  # on macOS, of one that was reset before it was accepted
            sock.close()
            raise ConnectionAbortedError
        return sock, address[0]

    def _complain(self, failure: OSError | MemoryError) -> float:
        """Make room after the system had none; the seconds until there may be some."""
        if time.monotonic() > self._quiet_until:
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            _log.warning("cannot accept a connection: %s", failure or "no memory")
        nothing_left = isinstance(failure, MemoryError) or failure.errno in _NOTHING_LEFT
        return _ENDING_PAUSE if nothing_left and self._make_room() else _PAUSE


def busy() -> Reply:
    """What a connection hears for which nobody has time."""
    return Reply(problems=(Problem(Code.BUSY, "The server is busy; please try again in a moment."),), retry=True)
