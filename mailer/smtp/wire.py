"""Commands and replies on one SMTP connection: `smtplib.SMTP` with replies bounded in size and in time.

However the server drips, stalls, floods or babbles, a reply takes at most `timeout` seconds and 64 KiB,
and no operation lasts beyond `deadline`. Replies that arrive together are read one by one, so that commands may be
pipelined (RFC 2920). A failure of the connection closes it and raises `SessionLostError`. Called by `smtp.session`
and `smtp.login`.
"""

import contextlib
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from re import Match
from typing import NoReturn

from mailer.errors import connection_words
from mailer.patience import QUICK, TOO_LONG, be_quick, receive_at_once, send_at_once
from mailer.secrecy import Secrets
from mailer.smtp.reply import SessionLostError, first_reply, may_become_reply, refusal, said, words

_READ_SIZE = 1 << 12
# Seconds to connect to an address while others are left to try: where IPv6 does not work, every new session tries it
# first.
_ONE_OF_MANY = 5.0


class Wire(smtplib.SMTP):
    """One connection. `deadline` (monotonic) ends whatever is going on; `on_wait` is called before each long wait.

    `secrets` are hidden wherever the server's words are shown.
    """

    def __init__(self, timeout: float, on_wait: Callable[[], None]) -> None:
        super().__init__(local_hostname="localhost", timeout=timeout)  # a stand-in: EHLO gives the real name
        self.deadline = time.monotonic() + timeout
        self.secrets = Secrets()
        self.given = ""  # by a client, whose message is under way
        self._patience = timeout
        self._place = "the mail server"
        self._on_wait = on_wait
        self._buffer = b""  # received, and not yet read as a reply
        self._interrupted = False
        self._far = False  # whether the last reply had to be waited for: so will the next one

    def attach(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Connect, with TLS from the start where there is a context."""
        self._on_wait()
        self._place = f"{host}:{port}"
        failure: OSError = OSError("no address")
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as unknown:
            self.fail(f"no address of {host} is to be found", unknown)
        end = self._end()
        for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
            others = len(addresses) - number
            try:
                self.sock = sock = socket.socket(family, kind, protocol)
                share = _time_left(end) / (others + 1)  # any address may be dead
                sock.settimeout(min(share, _ONE_OF_MANY) if others else share)
                if not self._interrupted:  # checked before and after, as `interrupt` may come in between
                    sock.connect(address)
                if self._interrupted:
                    raise ConnectionAbortedError("it was ended")
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as refused:
                self.close()
                failure = refused
                continue
            be_quick(sock)
            if context:
                self.secure(host, context)
            return
        self.fail(f"no connection to {host}:{port}", failure)

    def secure(self, host: str, context: ssl.SSLContext) -> None:
        """Go on over TLS with the server of this name."""
        if self._buffer:  # CVE-2011-0411: replies sent in clear would pass for replies inside TLS
            self.fail("the mail server sent more in clear before the TLS handshake: injected plaintext, refused")
        sock = self.connected()
        try:
            sock.settimeout(_time_left(self._end()))
            # Assigned before the handshake, so that `interrupt` finds the new socket.
            name = host.rstrip(".")
            self.sock = secured = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
            if self._interrupted:  # `interrupt` may have met the old socket
                raise ConnectionAbortedError("it was ended")
            secured.do_handshake()
        except ssl.SSLCertVerificationError as untrusted:
            self.fail(f"the certificate of {host} is not to be trusted: {untrusted.verify_message}")
        except (OSError, ValueError) as failure:
            self.fail(f"TLS with {host} failed", failure)
        be_quick(self.connected())

    def interrupt(self) -> None:
        """End the connection from another thread: the thread that uses it fails at once, or no longer connects."""
        self._interrupted = True
        sock = self.sock  # read once: the thread that uses the connection may close it meanwhile
        if sock:
            with contextlib.suppress(OSError):  # it has ended by itself
                # Not SSLSocket's own method, which drops the TLS state while the other thread may be reading.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def connected(self) -> socket.socket:
        """The socket; raises SessionLostError when the connection is closed."""
        return self.sock or self.fail("the connection is closed")

    def send(self, s: str | bytes) -> None:  # type: ignore[override]  # smtplib itself sends nothing else
        """Hand all of the data to the system; after a SessionLostError its last byte has not been handed over."""
        data = s.encode() if isinstance(s, str) else s
        sock = self.connected()
        try:
            done = send_at_once(sock, data)
        except OSError as failure:
            self.fail("the connection was lost", failure)
        if done < len(data):
            self._send_slowly(sock, memoryview(data)[done:])

    def reply(self) -> tuple[bytes, bytes]:
        """The next reply: its code, and all of its bytes."""
        found = first_reply(self._buffer) or self._await_reply()
        self._buffer = self._buffer[found.end() :]
        return found[1], found[0]

    def getreply(self) -> tuple[int, bytes]:
        """The next reply as smtplib wants it: the code, and the lines without the code."""
        code, whole = self.reply()
        return int(code), words(whole)

    def ask(self, line: str) -> tuple[bytes, bytes]:
        """Send one command and return its reply."""
        self.send(f"{line}\r\n".encode())
        return self.reply()

    def said(self, reply: bytes) -> str:
        """A reply made safe to show, without secrets that were not `given`."""
        return said(reply, self.secrets, self.given)

    def expect(self, reply: tuple[bytes, bytes], otherwise: str) -> None:
        """Raise DeliveryError unless the reply is positive (2xx)."""
        code, whole = reply
        if code[:1] == b"2":
            return
        text = f"the mail server {otherwise}: {self.said(whole)}"
        if code == b"421" or code[:1] == b"3":
            self.fail(text)
        raise refusal(code, text)

    def fail(self, text: str, failure: Exception | None = None) -> NoReturn:
        """Close the connection and raise SessionLostError."""
        self.close()
        raise SessionLostError(f"{text} ({connection_words(failure)})" if failure else text) from None

    @property
    def silent(self) -> bool:
        """Whether the connection is open and the server has sent nothing unasked."""
        if not self.sock or self._buffer:
            return False
        try:
            return receive_at_once(self.sock, 1) is None
        except OSError:
            return False

    def _end(self) -> float:
        """When an operation that begins now has to end."""
        end = time.monotonic() + self._patience
        return end if end < self.deadline else self.deadline

    def _await_reply(self) -> Match[bytes]:
        end = self._end()
        while not (found := first_reply(self._buffer)):
            if self._buffer and not may_become_reply(self._buffer):
                self.fail(f"the reply of {self._place} makes no sense")
            try:
                data = self._read(self.connected(), end)
            except OSError as failure:
                self.fail(f"no reply from {self._place}", failure)
            if not data:
                self.fail("the server has ended" if self._interrupted else f"{self._place} closed the connection")
            self._buffer += data
        return found

    def _read(self, sock: socket.socket, end: float) -> bytes:
        left = _time_left(end)  # raises TimeoutError: the server may send on and on, and never a whole reply
        if not self._far:
            try:
                return sock.recv(_READ_SIZE)
            except TOO_LONG:
                left = _time_left(end)
        self._on_wait()
        sock.settimeout(left)
        data = sock.recv(_READ_SIZE)
        self._far = end - time.monotonic() < left - QUICK
        be_quick(sock)
        return data

    def _send_slowly(self, sock: socket.socket, rest: memoryview) -> None:
        self._on_wait()
        end = self._end()
        try:
            while rest:
                sock.settimeout(_time_left(end))
                rest = rest[sock.send(rest) :]
            be_quick(sock)
        except OSError as failure:
            self.fail("the connection was lost", failure)


def _time_left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
