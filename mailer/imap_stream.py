"""The bytes of one connection to an IMAP server: what `imaplib` reads and sends, with bounds on time and size, and TLS.

Every command has a deadline that only real progress extends, and an allowance of bytes that its answer may have:
literals, lines and endless untagged responses all count against it before they take memory. Nothing that was sent is
kept. Only `imaplib`'s public seams are used (`open`, `read`, `readline`, `send`, `shutdown`): its inside differs
between Python 3.11 and 3.14. Called by `imap_wire`.
"""

import contextlib
import imaplib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mailer.errors import MailboxError
from mailer.settings import Endpoint, Security

# Bytes that the answer to a command may have, apart from what was asked for: other mails come and go meanwhile.
_ALLOWANCE = 256 * 1024
# A command's deadline moves on by a second for so many bytes received, but is never further off than the time-out:
# slower is a drip, not a slow line, and what came quickly is no credit for a silence.
_SLOWEST = 1_000
# A wait for the server looks this often, in seconds, whether the collector is to stop.
_LOOK = 0.5
_RECEIVE = 262_144

_T = TypeVar("_T")


class Stream(imaplib.IMAP4):
    """A connection, greeted; `protection` says how it is protected.

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
        self.expected = 0
        self.protection = "without TLS"
        tls = endpoint.security is Security.TLS
        self._hint = "" if tls else "; if it speaks TLS from the first byte, set IMAP_SECURITY=tls"
        super().__init__(endpoint.host, endpoint.port, timeout)

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:
        """Connect, inside TLS where the endpoint says so from the first byte."""
        self.host, self.port = host, port
        self.sock = socket.create_connection((host, port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.start_clock()
        if self._endpoint.security is Security.TLS:
            self.wrap()

    def read(self, size: int) -> bytes:
        """So many bytes of a literal."""
        if size > self._allowance + len(self._buffer):
            raise imaplib.IMAP4.abort(f"it sends {size} bytes where fewer were asked for")
        while len(self._buffer) < size:
            self._receive()
        return self._take(size)

    def readline(self) -> bytes:
        """A line with its end."""
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

    def _patiently(self, step: Callable[[], _T]) -> _T:
        """A step that waits for the server, within the deadline, and not much longer than until a stop."""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no complete answer within {self._timeout:g} s{self._hint}")
            self.sock.settimeout(min(left, _LOOK))
            with contextlib.suppress(TimeoutError):
                return step()
            if self._stopping():
                raise TimeoutError("stopped while waiting for an answer")

    def wrap(self) -> None:
        """Go on inside TLS; what came before it is refused, as it may come from somebody in between."""
        if self._buffer:
            raise MailboxError(f"{self.host} sent text in clear after STARTTLS: the connection is tampered with")
        secured = self._context.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = secured
        self.start_clock()
        self._patiently(secured.do_handshake)
        self.protection = str(secured.version())
