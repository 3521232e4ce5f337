"""One connection to an IMAP server, logged in: `imaplib` with bounds on time and size, TLS and SASL.

Every command has a deadline that only real progress extends, and an allowance of bytes that its answer may have:
literals, lines and endless untagged responses all count against it before they take memory. Refuses to send a secret
before the TLS that was asked for, a greeting that skips the login where STARTTLS is required (PREAUTH), and plaintext
injected before the handshake (CVE-2021-38371). Raises `MailboxError` only; called by `imap`.

Only `imaplib`'s public seams are used (`open`, `read`, `readline`, `send`, `shutdown`, `xatom`, `uid`, `literal`):
its inside differs between Python 3.11 and 3.14.
"""

import contextlib
import imaplib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

from mailer import sasl
from mailer.config import Endpoint, Security
from mailer.errors import ExitCode, LoginError, MailboxError, safe

# Bytes that the answer to a command may have, apart from mails that were asked for: a SEARCH that finds 100,000.
ALLOWANCE = 2 * 1024 * 1024
# A command's deadline moves on by a second for so many bytes received: slower is a drip, not a slow line.
_SLOWEST = 1_000
# A wait for the server looks this often whether the collector is to stop.
_LOOK = 0.5
_RECEIVE = 262_144
# RFC 5530: refusals that are about the moment, not about the login, the folder or the mail.
FOR_NOW = re.compile(r"\[(?:UNAVAILABLE|INUSE|LIMIT)\]", re.IGNORECASE)
# What `imaplib` raises over foreign bytes, besides its own errors: it unpacks and decodes without looking.
_GARBAGE = (ValueError, TypeError, LookupError, AttributeError)


class Session(imaplib.IMAP4):
    """A connection that is open, protected and logged in once it is made; `protection` says how it is protected."""

    def __init__(
        self, endpoint: Endpoint, login: sasl.Login, context: ssl.SSLContext, timeout: float,
        stopping: Callable[[], bool],
    ) -> None:
        self._endpoint = endpoint
        self._context = context
        self._timeout = timeout
        self._stopping = stopping
        self._buffer = bytearray()
        self._expected = 0
        self._allowance = ALLOWANCE
        self._deadline = 0.0
        self.protection = "without TLS"
        with self.translated(f"{endpoint.host}:{endpoint.port}"):
            super().__init__(endpoint.host, endpoint.port, timeout)
        try:
            if endpoint.security is Security.STARTTLS:
                self._start_tls()
            if self.state == "NONAUTH":
                self._log_in(login)
        except BaseException:
            self.shutdown()
            raise

    # -- what imaplib asks of a connection -------------------------------------------------------------------------

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:
        """Connect, inside TLS where the endpoint says so from the first byte."""
        self.host, self.port = host, port
        self.sock = socket.create_connection((host, port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._start_clock()
        if self._endpoint.security is Security.TLS:
            self._wrap()

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
        self._start_clock()
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

    def _start_clock(self) -> None:
        self._deadline = time.monotonic() + self._timeout
        self._allowance = ALLOWANCE + self._expected

    def _receive(self) -> None:
        """Wait for more bytes, within the deadline and the allowance, and not much longer than until a stop."""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no complete answer within {self._timeout:g} s")
            self.sock.settimeout(min(left, _LOOK))
            with contextlib.suppress(TimeoutError):
                data = self.sock.recv(_RECEIVE)
                break
            if self._stopping():
                raise TimeoutError("stopped while waiting for an answer")
        if not data:
            raise ConnectionError("it closed the connection")
        self._deadline += len(data) / _SLOWEST
        self._allowance -= len(data)
        if self._allowance < 0:
            raise imaplib.IMAP4.abort("it sends more than was asked for")
        self._buffer += data

    # -- TLS and login ---------------------------------------------------------------------------------------------

    def _wrap(self) -> None:
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)
        self.protection = str(self.sock.version())

    def _start_tls(self) -> None:
        if self.state != "NONAUTH":
            raise MailboxError(f"{self.host} skips the login, and STARTTLS with it (PREAUTH): refused")
        if "STARTTLS" not in self.capabilities:
            raise MailboxError(f"{self.host} offers no STARTTLS: nothing is sent to it in clear")
        status, words = self.command("STARTTLS")
        if status != "OK":
            raise MailboxError(f"{self.host} refuses STARTTLS: {words}")
        if self._buffer:
            raise MailboxError(f"{self.host} sent text in clear after STARTTLS: the connection is tampered with")
        with self.translated(self.host):
            self.sock.settimeout(self._timeout)
            self._wrap()
            self._refresh_capabilities()

    def _refresh_capabilities(self) -> None:
        _, answer = self.capability()
        self.capabilities = tuple(str(answer[-1], "ascii").upper().split())

    def _log_in(self, login: sasl.Login) -> None:
        mechanism = sasl.choose([word[5:] for word in self.capabilities if word.startswith("AUTH=")], login)
        if not mechanism and (login.oauth or "LOGINDISABLED" in self.capabilities):
            wanted = "OAuth" if login.oauth else "password"
            raise MailboxError(f"{self.host} offers no {wanted} login", ExitCode.LOGIN_REFUSED)
        status, words = self._authenticate(mechanism, login, fresh=False)
        if status != "OK" and login.oauth and not FOR_NOW.search(words):
            status, words = self._authenticate(mechanism, login, fresh=True)
        if status != "OK":
            code = ExitCode.UNAVAILABLE if FOR_NOW.search(words) else ExitCode.LOGIN_REFUSED
            raise MailboxError(f"{self.host} refuses the login of {login.user}: {words}", code)
        self.state = "AUTH"
        if "ID" in self.capabilities:  # some providers open no folder to a client that does not say its name
            self.command("ID", '("name" "Mailer")')

    def _authenticate(self, mechanism: str | None, login: sasl.Login, *, fresh: bool) -> tuple[str, str]:
        """Log in with the mechanism, or with the LOGIN command where there is none."""
        try:
            secret = login.secret(fresh)
        except LoginError as failure:
            code = ExitCode.UNAVAILABLE if failure.temporary else ExitCode.LOGIN_REFUSED
            raise MailboxError(f"the login of {login.user}: {failure}", code) from None
        if mechanism is None:
            if secret.isascii() and secret.isprintable():
                return self.command("LOGIN", quoted(login.user), quoted(secret))
            self.literal = secret.encode()  # type: ignore[assignment]  # bytes are what it is for
            return self.command("LOGIN", quoted(login.user))
        answers = [sasl.initial_response(mechanism, login.user, secret, self.host, self.port)]
        if mechanism == "LOGIN":
            answers.append(secret.encode())
        if mechanism in sasl.TOKEN_MECHANISMS:  # its reason for a refusal comes as a challenge that wants an answer
            answers.append(b"\1" if mechanism == "OAUTHBEARER" else b"")
        reasons: list[str] = []

        def respond(challenge: bytes) -> bytes:
            reasons.append(challenge.decode("utf-8", "replace"))
            if not answers:
                raise imaplib.IMAP4.abort("it goes on asking during the login")
            return answers.pop(0)

        with self.translated(self.host):
            try:
                self.authenticate(mechanism, respond)
            except imaplib.IMAP4.abort:
                raise
            except imaplib.IMAP4.error as failure:
                return "NO", safe(" ".join([str(failure), *reasons[1:]]))
        return "OK", ""

    # -- commands --------------------------------------------------------------------------------------------------

    def command(self, name: str, *arguments: Any) -> tuple[str, str]:
        """Send a command; its status (OK, NO), and the server's words, made safe to show."""
        with self.translated(self.host):
            self.untagged_responses.clear()  # or they would pile up for as long as the connection lives
            try:
                status, answer = self.xatom(name, *arguments)
            except imaplib.IMAP4.abort:
                raise
            except imaplib.IMAP4.error as failure:  # BAD
                return "NO", safe(str(failure))
            return str(status), _words(answer)

    def ask(self, name: str, *arguments: str, expected: int = 0) -> tuple[str, list[Any], str]:
        """Send a UID command: its status, the untagged responses that answer it, and the words of a refusal.

        The answer may have `expected` bytes more than the usual allowance.
        """
        self._expected = expected
        with self.translated(self.host):
            self.untagged_responses.clear()
            try:
                status, answer = self.uid(name, *arguments)
            except imaplib.IMAP4.abort:
                raise
            except imaplib.IMAP4.error as failure:  # BAD
                status, answer = "NO", [str(failure).encode()]
            finally:
                self._expected = 0
            return (str(status), answer, "") if status == "OK" else ("NO", [], _words(answer))

    @contextlib.contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Whatever goes wrong on the way becomes a MailboxError, and ends the connection."""
        try:
            yield
        except MailboxError:
            self.shutdown()
            raise
        except ssl.SSLCertVerificationError as failure:
            self.shutdown()
            raise MailboxError(f"{what}: its certificate is not to be trusted: {failure.verify_message}") from None
        except (OSError, imaplib.IMAP4.error, *_GARBAGE) as failure:
            self.shutdown()
            words = getattr(failure, "reason", None) or getattr(failure, "strerror", None) or str(failure)
            raise MailboxError(f"{what}: {safe(str(words)) or type(failure).__name__}") from None


def quoted(text: str) -> bytes:
    """A quoted string (RFC 3501, section 9); the text has no line ends."""
    return b'"' + text.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'


def _words(answer: list[Any]) -> str:
    return safe(" ".join(part.decode("utf-8", "replace") for part in answer if isinstance(part, bytes)))
