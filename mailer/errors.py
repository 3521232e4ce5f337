"""Everything that can go wrong, in one place: the stable codes of the wire, the exit codes, one family of exceptions.

Foreign exceptions (`OSError`, those of `smtplib`, `imaplib`, `sqlite3`, `json`) are translated into these in the part
of Mailer where they arise, such as `smtp` or `imap`, before another part sees them. Imports nothing of Mailer.
"""

import re
import unicodedata
from enum import Enum, IntEnum, StrEnum
from typing import NamedTuple


class Code(StrEnum):
    """The codes a reply can carry. Clients and scripts depend on these words: never rename one."""

    BAD_REQUEST = "bad_request"
    FRAME_TOO_LARGE = "frame_too_large"
    EMAIL_INVALID = "email_invalid"
    MESSAGE_EMPTY = "message_empty"
    MESSAGE_TOO_LONG = "message_too_long"
    MESSAGE_INVALID = "message_invalid"
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    BUSY = "busy"
    RECIPIENT_REFUSED = "recipient_refused"
    MAIL_REJECTED = "mail_rejected"
    MAIL_UNAVAILABLE = "mail_unavailable"
    MAIL_AUTH_FAILED = "mail_auth_failed"
    DELIVERY_UNCERTAIN = "delivery_uncertain"
    INTERNAL_ERROR = "internal_error"


# The input field a problem belongs to; codes that are not here concern no single field.
FIELDS = {
    Code.EMAIL_INVALID: "email",
    Code.RECIPIENT_REFUSED: "email",
    Code.MESSAGE_EMPTY: "message",
    Code.MESSAGE_TOO_LONG: "message",
    Code.MESSAGE_INVALID: "message",
}


class ExitCode(IntEnum):
    """How the scripts end; 64 and above follow BSD's sysexits.h."""

    DONE = 0
    REFUSED = 1
    USAGE = 64
    NO_INPUT = 66
    UNAVAILABLE = 69
    UNCERTAIN = 74
    TEMPORARY = 75
    LOGIN_REFUSED = 77
    CONFIG = 78
    INTERRUPTED = 130


class Problem(NamedTuple):
    """One thing that is wrong: its code and a sentence that a person understands."""

    code: Code
    text: str

    @property
    def field(self) -> str | None:
        """The input that has to change: "email", "message", or None."""
        return FIELDS.get(self.code)


class MailerError(Exception):
    """Base of all errors that Mailer raises on purpose."""


class RequestError(MailerError):
    """A request that is answered with these problems; `retry` says whether it may succeed later."""

    def __init__(self, *problems: Problem, retry: bool = False) -> None:
        super().__init__("; ".join(problem.text for problem in problems))
        self.problems = problems
        self.retry = retry


class Outcome(Enum):
    """What is known of a delivery that did not succeed."""

    TEMPORARY = "not sent, may succeed later"
    PERMANENT = "not sent, will not succeed"
    UNCERTAIN = "may have been sent"


class DeliveryError(MailerError):
    """The mail server did not take the message, or (UNCERTAIN) nobody can tell."""

    def __init__(self, code: Code, text: str, outcome: Outcome) -> None:
        super().__init__(text)
        self.problem = Problem(code, text)
        self.outcome = outcome

    @property
    def retry(self) -> bool:
        """Whether the same request may succeed later."""
        return self.outcome is Outcome.TEMPORARY


class LoginError(MailerError):
    """The account's password or access token cannot be obtained; `temporary` when asking again later may help."""

    def __init__(self, text: str, *, temporary: bool = False) -> None:
        super().__init__(text)
        self.temporary = temporary


class ConfigError(MailerError):
    """Settings that cannot be used: one line for each problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StateError(MailerError):
    """A file or folder of Mailer's state or logs cannot be used; `passing`: it is in use, or the disk is full."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class TransportError(MailerError):
    """No answer from Mailer's server; `sent` tells whether the request may have reached it."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class UnsentInterrupt(KeyboardInterrupt):
    """Ctrl-C before there was a connection, so that nothing can have been sent."""


class MailboxError(MailerError):
    """The mailbox cannot be read; a script that gives up because of it ends with `exit_code`."""

    def __init__(self, text: str, exit_code: ExitCode = ExitCode.UNAVAILABLE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


# The reasons by which OpenSSL, in its various versions, says that the other side does not speak TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"}


def speaks_clear(failure: OSError) -> bool:
    """Whether TLS failed (an `ssl.SSLError`) because the other side does not speak it."""
    return getattr(failure, "reason", None) in _NO_TLS


def tls_words(failure: OSError) -> str:
    """Why TLS failed, in words: the reason of an `ssl.SSLError`."""
    if speaks_clear(failure):
        return "the other side goes on in clear"
    return (getattr(failure, "reason", None) or str(failure)).replace("_", " ").lower()


def connection_words(failure: Exception) -> str:
    """Why a connection cannot be had or was lost, in words."""
    if isinstance(failure, TimeoutError):
        return "no answer in time"
    if isinstance(failure, OSError) and hasattr(failure, "library"):  # an `ssl.SSLError`
        return tls_words(failure)
    return (isinstance(failure, OSError) and failure.strerror) or str(failure)


_BLANKS = re.compile(r"\s+")


def safe(text: str, limit: int = 500) -> str:
    """Foreign words as one printable line of at most `limit` characters, without any that control a terminal."""
    printable = "".join(
        " " if character.isspace() else "\N{REPLACEMENT CHARACTER}" if _steers(character) else character
        for character in text[: 4 * limit]
    )
    line = _BLANKS.sub(" ", printable).strip()
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"


def _steers(character: str) -> bool:
    """Whether it is a control, a surrogate, or a format character that may turn the text (but no emoji joiner)."""
    category = unicodedata.category(character)
    return category in ("Cc", "Cs") or (category == "Cf" and character not in "\u200c\u200d")
