"""The bytes of one connection to an IMAP server: what `imaplib` reads and sends, with bounds on time and size, and TLS.

Every command has a deadline that only real progress extends, and an allowance of bytes that its answer may have:
literals, lines and endless untagged responses all count against it before they take memory. Nothing that was sent is
kept. Apart from `_log`, only public methods of `imaplib` are overridden (`open`, `read`, `readline`, `send`,
`shutdown`): its inside differs between Python 3.11 and 3.14. Called by `imap.wire`.
"""

import contextlib
import errno
import imaplib
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mailer.errors import MailboxError
from mailer.settings import Endpoint, Security

# Bytes that an answer may have beyond what was asked for: the server also tells of other mails that come and go.
_ALLOWANCE = 256 * 1024
# A command's deadline moves on by a second for so many bytes received, but is never further off than the time-out:
# a slower answer is a drip, not a slow line, and bytes that came quickly earn no credit for a silence.
_SLOWEST = 1_000
# Seconds after which a wait for the server looks again whether the collector is to stop.
_LOOK = 0.5
# Seconds that an answer which goes on coming may still take after a stop.
_LAST_SECONDS = 5.0
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)
_RECEIVE = 262_144

_T = TypeVar("_T")


class Stream(imaplib.IMAP4):
    """A connection, its greeting read; `protection` says how it is protected.

    The answer to the next command may have `expected` bytes more than the usual allowance.
    """

    def __init__(
        self, endpoint: Endpoint, context: ssl.SSLContext, timeout: float, stopping: Callable[[], bool]
    ) -> None:
        self._endpoint = endpoint
        self._context = context
        self._timeout = timeout
        self._stopping = stopping
        self._buffer = bytearray()
        self._allowance = _ALLOWANCE
        self._deadline = 0.0
        self._stop_heard: float | None = None
        self.expected = 0
        self.protection = "without TLS"
        self._hint = ""
        super().__init__(endpoint.host, endpoint.port, timeout)

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:  # noqa: ARG002 - ours
        """Connect, with TLS from the first byte if the endpoint says so."""
        self.host, self.port = host, port
        self._reach(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.start_clock()
        if self._endpoint.security is Security.TLS:
            self.wrap()
        else:
            self._hint = "; if it speaks TLS from the first byte, set IMAP_SECURITY=tls"

    def read(self, size: int) -> bytes:
        """Read `size` bytes of a literal."""
        if size > self._allowance + len(self._buffer):
            raise imaplib.IMAP4.abort(f"it sends {size} bytes where fewer were asked for")
        while len(self._buffer) < size:
            self._receive()
        return self._take(size)

    def readline(self) -> bytes:
        """Read a line with its line end."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            self._receive()
        return self._take(end + 1)

    def send(self, data: Any) -> None:
        """Send a command, or a part of one, and give its answer the full time and allowance."""
        self.start_clock()
        self.sock.settimeout(self._timeout)
        self.sock.sendall(data)

    def shutdown(self) -> None:
        """Close the connection, whatever its state."""
        if hasattr(self, "sock"):
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()

    def _log(self, line: object) -> None:
        """Keep no record of what was sent: imaplib's would hold the password."""

    def _take(self, size: int) -> bytes:
        data = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return data

    def start_clock(self) -> None:
        """Give the answer that is read next the full time and allowance."""
        self._deadline = time.monotonic() + self._timeout
        self._allowance = _ALLOWANCE + self.expected

    def _reach(self, addresses: list[tuple[Any, ...]]) -> None:
        """Connect to the first of the addresses that answers; some may be dead, so they share the time."""
        end = time.monotonic() + self._timeout
        failure = OSError("no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            now = time.monotonic()
            self._deadline = now + (end - now) / (len(addresses) - number)
            try:
                with contextlib.ExitStack() as failing:
                    self.sock = failing.enter_context(socket.socket(family, kind, protocol))
                    self._reach_one(address)
                    failing.pop_all()
                return
            except OSError as refused:
                failure = refused
            if self._stopping():
                break
        raise failure

    def _reach_one(self, address: Any) -> None:
        self.sock.setblocking(False)
        error = self.sock.connect_ex(address)
        if error in _UNDER_WAY:
            error = self._patiently(self._connected, "connection")
        if error:
            words = getattr(socket, "errorTab", {})  # Windows has error numbers of its own
            raise OSError(error, words.get(error) or os.strerror(error))

    def _connected(self) -> int:
        """How connecting ended, as an error number; raises TimeoutError while it has not."""
        # Windows reports a failure in the third list.
        _, done, failed = select.select([], [self.sock], [self.sock], self.sock.gettimeout())
        if not done and not failed:
            raise TimeoutError
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _receive(self) -> None:
        """Wait for more bytes, within the deadline and the allowance."""
        data = self._patiently(lambda: self.sock.recv(_RECEIVE))
        if not data:
            raise ConnectionError("it closed the connection")
        self._deadline = min(self._deadline + len(data) / _SLOWEST, time.monotonic() + self._timeout)
        self._allowance -= len(data)
        if self._allowance < 0:
            raise imaplib.IMAP4.abort("it sends more than was asked for")
        self._buffer += data
        self._hint = ""
        if self._stopping():
            self._stop_heard = self._stop_heard or time.monotonic()
            if time.monotonic() - self._stop_heard > _LAST_SECONDS:
                raise TimeoutError("stopped in the middle of an answer")

    def _patiently(self, step: Callable[[], _T], what: str = "complete answer") -> _T:
        """Do a step that waits for the server; raise TimeoutError at the deadline, or soon after a stop."""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no {what} within {self._timeout:g} s{self._hint}")
            self.sock.settimeout(min(left, _LOOK))
            with contextlib.suppress(TimeoutError):
                return step()
            if self._stopping():
                raise TimeoutError(f"stopped while waiting for a {what}")

    def wrap(self) -> None:
        """Go on inside TLS; text that came in clear before it is refused, as an attacker may have injected it."""
        if self._buffer:
            raise MailboxError(f"{self.host} sent text in clear after STARTTLS: the connection is tampered with")
        name = self.host.rstrip(".")  # names in certificates have no dot at their end
        secured = self._context.wrap_socket(self.sock, server_hostname=name, do_handshake_on_connect=False)
        self.sock = secured
        self.start_clock()
        self._patiently(secured.do_handshake)
        self.protection = str(secured.version())
