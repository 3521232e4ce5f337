"""One connection to an IMAP server: `imaplib` with bounds on time and size, and TLS.

Every command has a deadline that only real progress extends, and an allowance of bytes that its answer may have:
literals, lines and endless untagged responses all count against it before they take memory. Nothing that was sent is
kept. Raises `MailboxError` only; `imap_login` makes one and `imap` uses it.

Only `imaplib`'s public seams are used (`open`, `read`, `readline`, `send`, `shutdown`, `xatom`, `uid`, `literal`):
its inside differs between Python 3.11 and 3.14. `imaplib` waits for the answer to each command; a FETCH is therefore
sent and read here, so that the server can look for the next mails while the last ones are read.
"""

import contextlib
import imaplib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mailer.errors import MailboxError
from mailer.secrecy import Secrets
from mailer.settings import Endpoint, Security

# Bytes that the answer to a command may have, apart from what was asked for: other mails come and go meanwhile.
_ALLOWANCE = 256 * 1024
# A command's deadline moves on by a second for so many bytes received: slower is a drip, not a slow line.
_SLOWEST = 1_000
# A wait for the server looks this often, in seconds, whether the collector is to stop.
_LOOK = 0.5
_RECEIVE = 262_144
# What `imaplib` raises over foreign bytes, besides its own errors: it unpacks and decodes without looking.
_GARBAGE = (ValueError, TypeError, LookupError, AttributeError)
_FETCH = re.compile(rb"\* \d+ FETCH ", re.IGNORECASE)
_LITERAL = re.compile(rb"\{(\d{1,10})\}\r?\n\Z")

_T = TypeVar("_T")
_Answer = tuple[str, list[Any], str]  # status (OK, NO), the untagged responses, and the words of a refusal


class Wire(imaplib.IMAP4):
    """A connection, greeted; `protection` says how it is protected.

    `secrets` are those that the server's words are shown without.
    """

    def __init__(
        self, endpoint: Endpoint, context: ssl.SSLContext, timeout: float, stopping: Callable[[], bool],
        secrets: Secrets,
    ) -> None:
        self.secrets = secrets
        self._endpoint = endpoint
        self._context = context
        self._timeout = timeout
        self._stopping = stopping
        self._buffer = bytearray()
        self._expected = 0
        self._allowance = _ALLOWANCE
        self._deadline = 0.0
        self._fetches = 0
        self._begun: tuple[str, str, int] | None = None  # the FETCH whose answer has not been read
        self._ahead: tuple[str, str, _Answer] | None = None  # the one whose answer nobody has asked for yet
        self.protection = "without TLS"
        with self.translated(f"{endpoint.host}:{endpoint.port}"):
            super().__init__(endpoint.host, endpoint.port, timeout)

    # -- what imaplib asks of a connection -------------------------------------------------------------------------

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:
        """Connect, inside TLS where the endpoint says so from the first byte."""
        self.host, self.port = host, port
        self.sock = socket.create_connection((host, port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._start_clock()
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
        self._allowance = _ALLOWANCE + self._expected

    def _receive(self) -> None:
        """Wait for more bytes, within the deadline and the allowance."""
        data = self._patiently(lambda: self.sock.recv(_RECEIVE))
        if not data:
            raise ConnectionError("it closed the connection")
        self._deadline += len(data) / _SLOWEST
        self._allowance -= len(data)
        if self._allowance < 0:
            raise imaplib.IMAP4.abort("it sends more than was asked for")
        self._buffer += data

    def _patiently(self, step: Callable[[], _T]) -> _T:
        """A step that waits for the server, within the deadline, and not much longer than until a stop."""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no complete answer within {self._timeout:g} s")
            self.sock.settimeout(min(left, _LOOK))
            with contextlib.suppress(TimeoutError):
                return step()
            if self._stopping():
                raise TimeoutError("stopped while waiting for an answer")

    # -- for those who use it --------------------------------------------------------------------------------------

    def wrap(self) -> None:
        """Go on inside TLS; what came before it is refused, as it may come from somebody in between."""
        if self._buffer:
            raise MailboxError(f"{self.host} sent text in clear after STARTTLS: the connection is tampered with")
        secured = self._context.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = secured
        self._start_clock()
        self._patiently(secured.do_handshake)
        self.protection = str(secured.version())

    def command(self, name: str, *arguments: Any) -> tuple[str, str]:
        """Send a command; its status (OK, NO), and the words of a refusal, made safe to show."""
        with self.translated(self.host):
            self._settle()
            self.untagged_responses.clear()  # or they would pile up for as long as the connection lives
            try:
                status, answer = self.xatom(name, *arguments)
            except imaplib.IMAP4.abort:
                raise
            except imaplib.IMAP4.error as failure:  # BAD
                return "NO", self.secrets.safe(str(failure))
            return str(status), "" if status == "OK" else self.words(answer)

    def ask(self, name: str, *arguments: str, expected: int = 0) -> _Answer:
        """Send a UID command: its status, the untagged responses that answer it, and the words of a refusal.

        The answer may have `expected` bytes more than the usual allowance.
        """
        with self.translated(self.host):
            self._settle()
            self._expected = expected
            self.untagged_responses.clear()
            try:
                status, answer = self.uid(name, *arguments)
            except imaplib.IMAP4.abort:
                raise
            except imaplib.IMAP4.error as failure:  # BAD
                status, answer = "NO", [str(failure).encode()]
            finally:
                self._expected = 0
            return (str(status), answer, "") if status == "OK" else ("NO", [], self.words(answer))

    def uid_fetch(self, uids: str, items: str, expected: int) -> _Answer:
        """Like `ask`, for a UID FETCH of these items."""
        with self.translated(self.host):
            if not self._begun or self._begun[:2] != (uids, items):
                self._settle()
            if not self._begun and (not self._ahead or self._ahead[:2] != (uids, items)):
                self._begin(uids, items, expected)
            self._settle()
            answer, self._ahead = self._ahead, None
            assert answer  # noqa: S101 - of the FETCH that was begun here or before
            return answer[2]

    def uid_fetch_ahead(self, uids: str, items: str, expected: int) -> None:
        """Begin a `uid_fetch` that will be asked for next."""
        with self.translated(self.host):
            self._settle()
            self._begin(uids, items, expected)

    def _begin(self, uids: str, items: str, expected: int) -> None:
        self._fetches += 1
        self._begun = uids, items, expected
        self.send(f"F{self._fetches} UID FETCH {uids} {items}\r\n".encode())

    def _settle(self) -> None:
        """Read the answer to the FETCH that was begun, if there is one: nothing else can be asked before."""
        if self._begun:
            (uids, items, self._expected), self._begun = self._begun, None
            self._start_clock()
            self._expected = 0
            self._ahead = uids, items, self._read_fetch(b"F%d " % self._fetches)

    def _read_fetch(self, tag: bytes) -> _Answer:
        """The answer to a FETCH, its responses in the form of `imaplib`'s: text, and pairs of text and literal."""
        parts: list[Any] = []
        while not (line := self.readline()).startswith(tag):
            if line[:5].upper() == b"* BYE" or line[:2] != b"* ":
                raise imaplib.IMAP4.abort(line[2:].decode("utf-8", "replace"))
            wanted = _FETCH.match(line)
            while literal := _LITERAL.search(line):
                part = (line[: literal.end(1) + 1], self.read(int(literal[1])))
                parts += [part] if wanted else []
                line = self.readline()
            parts += [line.rstrip(b"\r\n")] if wanted else []
        status, _, words = line.removeprefix(tag).strip().partition(b" ")
        return ("OK", parts, "") if status.upper() == b"OK" else ("NO", [], self.words([words]))

    def words(self, answer: list[Any]) -> str:
        """An answer made safe to show."""
        parts = (part.decode("utf-8", "replace") for part in answer if isinstance(part, bytes))
        return self.secrets.safe(" ".join(parts))

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
            raise MailboxError(f"the certificate of {what} is not to be trusted: {failure.verify_message}") from None
        except ssl.SSLError as failure:
            self.shutdown()
            reason = (failure.reason or str(failure)).replace("_", " ").lower()
            raise MailboxError(f"TLS with {what} failed ({self.secrets.safe(reason)})") from None
        except (OSError, imaplib.IMAP4.error, *_GARBAGE) as failure:
            self.shutdown()
            words = getattr(failure, "reason", None) or getattr(failure, "strerror", None) or str(failure)
            raise MailboxError(f"{what}: {self.secrets.safe(str(words)) or type(failure).__name__}") from None
