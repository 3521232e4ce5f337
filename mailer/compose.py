"""A validated request and its ticket → the envelope and the message, as the bytes that go on the wire.

The message is built from parts that cannot hold a line break: validated addresses, numbers, and a base64 body. It is
what `email.message.EmailMessage` would build, in a hundredth of the time. Called by `intake`.
"""

import functools
import re
from binascii import b2a_base64
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from mailer.tickets import format_subject, message_id

# The last line of defence: an address that could end a header line or an SMTP command never gets into either.
_UNSAFE = re.compile(r"[\s<>\x00-\x1f\x7f-\x9f]")
# RFC 5322, section 2.1.1: lines should stay under 78 characters; a long address goes on a folded line of its own.
_HEADER_LINE = 76
_BASE64_LINE = 76  # characters (RFC 2045, section 6.8)


@dataclass(frozen=True, slots=True)
class Envelope:
    """One transaction: who sends, who gets it (the person first, the administrator last), and the message.

    `data` has CRLF line ends, the last line's included, and is not dot-stuffed. `given` is what a client gave, its
    address and text, which the mail server may repeat.
    """

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    smtputf8: bool
    given: tuple[str, ...] = ()


def compose(ticket: int, email: str, message: str, *, sender: str, sent: int, unique: str) -> Envelope:
    """The message for the person and the administrator, dated `sent` (Unix time, whole seconds).

    `unique` (lower-case hexadecimal) makes its Message-ID unique.

    Raises ValueError for an address that holds a blank, an angle bracket or a control character.
    """
    # Only ASCII letters are compared without case: a Kelvin sign becomes k in lower case, but is another mailbox.
    same = email.encode().lower() == sender.encode().lower()
    from_field, cc_field, domain = _of_sender(sender)
    headers = (
        f"{from_field}{_address_field('To', email)}{'' if same else cc_field}"
        f"Subject: {format_subject(ticket)}\r\n"
        f"Date: {_in_words(sent)}\r\n"
        f"Message-ID: {message_id(ticket, unique, domain)}\r\n"
        "Auto-Submitted: auto-generated\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: base64\r\n\r\n"
    )
    # Canonical text has CRLF line ends inside the base64 too (RFC 2045, section 6.8).
    text = message.replace("\n", "\r\n").encode()
    base64 = b2a_base64(text, newline=False)
    lines = [base64[start : start + _BASE64_LINE] for start in range(0, len(base64), _BASE64_LINE)]
    body = b"\r\n".join([*lines, b""])
    recipients = (sender,) if same else (email, sender)  # not `email`: a server may tell two spellings apart
    utf8 = not (email.isascii() and sender.isascii())
    return Envelope(sender, recipients, headers.encode() + body, utf8, (email, message))


@functools.lru_cache(maxsize=2)  # many messages have the same second
def _in_words(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))


@functools.lru_cache(maxsize=2)  # the sender is always the same
def _of_sender(sender: str) -> tuple[str, str, str]:
    return _address_field("From", sender), _address_field("Cc", sender), sender.rpartition("@")[2]


def _address_field(name: str, address: str) -> str:
    if _UNSAFE.search(address):
        raise ValueError("an address holds a blank, a bracket or a control character")
    separator = " " if len(name) + 2 + len(address) <= _HEADER_LINE else "\r\n "
    return f"{name}:{separator}{address}\r\n"
