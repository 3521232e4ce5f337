"""Commands and answers on one connection to an IMAP server, with `imaplib`, within the bounds of `imap.stream`.

`imaplib` waits for the answer to each command; a FETCH is therefore sent and read here, so that the server can look for
the next mails while the last ones are read.

Raises `MailboxError` only. Called by `imap`, `imap.fetch` and `imap.login`.
"""

import contextlib
import imaplib
import re
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

from mailer.errors import MailboxError, tls_words
from mailer.imap.stream import Stream
from mailer.secrecy import Secrets
from mailer.settings import Endpoint

# What `imaplib` raises over malformed answers, besides its own errors: it unpacks and decodes them unchecked.
_GARBAGE = (ValueError, TypeError, LookupError, AttributeError)
_FETCH = re.compile(rb"\* \d+ FETCH ", re.IGNORECASE)
_LITERAL = re.compile(rb"\{(\d{1,18})\}\r?\n\Z")

_Answer = tuple[str, list[Any], str]  # status (OK, NO), the untagged responses, and the words of a refusal


class Wire(Stream):
    """A connection, its greeting read. `secrets` are removed from the server's words before these are shown."""

    def __init__(
        self, endpoint: Endpoint, context: ssl.SSLContext, timeout: float, stopping: Callable[[], bool],
        secrets: Secrets,
    ) -> None:
        self.secrets = secrets
        self._fetches = 0
        self._begun: tuple[str, str, int] | None = None  # the FETCH that was sent ahead, its answer not read yet
        # A FETCH that was sent ahead, with its answer, which was not asked for yet, and the seconds that it took.
        self._ahead: tuple[str, str, _Answer, float] | None = None
        self.answered: Callable[[], object] = lambda: None  # called after each answer to a FETCH
        self.seconds = 0.0  # spent waiting for the answer to the last FETCH that was asked for
        with self.translated(f"{endpoint.host}:{endpoint.port}"):
            super().__init__(endpoint, context, timeout, stopping)

    def command(self, name: str, *arguments: Any) -> tuple[str, str]:
        """Send a command; return its status (OK, NO) and the words of a refusal, made safe to show."""
        status, _, words = self._answer_to(lambda: self.xatom(name, *arguments))
        return status, words

    def ask(self, name: str, *arguments: str, expected: int = 0) -> _Answer:
        """Send a UID command; return its status, the untagged responses that answer it, and the words of a refusal.

        The answer may have `expected` bytes more than the usual allowance.
        """
        return self._answer_to(lambda: self.uid(name, *arguments), expected)

    def _answer_to(self, ask: Callable[[], Any], expected: int = 0) -> _Answer:
        with self.translated(self.host):
            self._settle()
            self.expected = expected
            self.untagged_responses.clear()  # or they would pile up for as long as the connection lives
            try:
                status, answer = ask()
            except imaplib.IMAP4.abort:
                raise
            except imaplib.IMAP4.error as failure:  # BAD
                status, answer = "NO", [str(failure).encode()]
            finally:
                self.expected = 0
            return (str(status), answer, "") if status == "OK" else ("NO", [], self.words(answer))

    def uid_fetch(self, uids: str, items: str, expected: int) -> _Answer:
        """Like `ask`, for a UID FETCH of these items."""
        with self.translated(self.host):
            self._settle()
            if self._ahead and self._ahead[:2] == (uids, items):
                (_, _, answer, self.seconds), self._ahead = self._ahead, None
                return answer
            self._begin(uids, items)
            answer, self.seconds = self._finish(expected)
            return answer

    def uid_fetch_ahead(self, uids: str, items: str, expected: int) -> None:
        """Send the `uid_fetch` that will be asked for next, without waiting for its answer."""
        with self.translated(self.host):
            self._settle()
            self._begin(uids, items)
            self._begun = uids, items, expected

    def _settle(self) -> None:
        """Read the answer to the FETCH that was sent ahead, if there is one: no other command can be sent before."""
        if self._begun:
            (uids, items, expected), self._begun = self._begun, None
            self._ahead = uids, items, *self._finish(expected)

    def _begin(self, uids: str, items: str) -> None:
        self._fetches += 1
        self.send(f"F{self._fetches} UID FETCH {uids} {items}\r\n".encode())

    def _finish(self, expected: int) -> tuple[_Answer, float]:
        """The answer to the FETCH that was begun last, and the seconds spent waiting for it."""
        self.expected = expected
        self.start_clock()
        self.expected = 0
        began = time.monotonic()
        answer = self._read_fetch(b"F%d " % self._fetches)
        self.answered()
        return answer, time.monotonic() - began

    def _read_fetch(self, tag: bytes) -> _Answer:
        """The answer to a FETCH, its responses as `imaplib` gives them: text, and pairs of text and literal."""
        parts: list[Any] = []
        while not (line := self.readline()).startswith(tag):
            if line[:5].upper() == b"* BYE":
                raise imaplib.IMAP4.abort(line[2:].decode("utf-8", "replace"))
            if line[:2] != b"* ":  # perhaps words of a mail, which are not for the log
                raise imaplib.IMAP4.abort("the answer to FETCH makes no sense")
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
            raise MailboxError(f"TLS with {what} failed ({self.secrets.safe(tls_words(failure))})") from None
        except (OSError, imaplib.IMAP4.error, MemoryError, *_GARBAGE) as failure:
            self.shutdown()
            words = getattr(failure, "reason", None) or getattr(failure, "strerror", None) or _words(failure)
            raise MailboxError(f"{what}: {self.secrets.safe(str(words)) or type(failure).__name__}") from None


def _words(failure: Exception) -> str:
    """The words of an exception, decoded where `imaplib` passes on bytes, as of a greeting."""
    said = failure.args[0] if failure.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(failure)
