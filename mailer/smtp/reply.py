"""Replies of a mail server (RFC 5321, section 4.2): where one ends, what it says, and what a refusal means.

Bounded and strict: bytes that are neither a reply nor the beginning of one are recognised. Pure; called by the other
`smtp` modules, and by `desk` for its errors.
"""

import re

from mailer.errors import Code, DeliveryError, Outcome
from mailer.secrecy import Secrets

# "250-text" lines, then "250 text" or "250", all with the same code.
_REPLY = re.compile(rb"([2-5][0-9][0-9])(?:-[^\n]*\n\1)*(?: [^\n]*)?\r?\n")
_BEGINNING = re.compile(rb"(?:([2-5][0-9][0-9])-[^\n]*\n(?:\1-[^\n]*\n)*)?[^\n]*")
_LONGEST = 1 << 16  # bytes; the longest normal replies, those to EHLO, have about one thousand

# The first reply in what was received: code in group 1, the whole in group 0.
first_reply = _REPLY.match


class SessionLostError(DeliveryError):
    """The session cannot go on, and the final dot has not been written: a new session may succeed."""

    def __init__(self, text: str) -> None:
        super().__init__(Code.MAIL_UNAVAILABLE, text, Outcome.TEMPORARY)


class LoginDeferredError(SessionLostError):
    """The mail server neither takes the login nor refuses it for good."""


def may_become_reply(received: bytes) -> bool:
    """Whether these bytes are the beginning of a reply."""
    return len(received) <= _LONGEST and _BEGINNING.fullmatch(received) is not None


def words(reply: bytes) -> bytes:
    """The text of a reply, without codes and line ends."""
    return b"\n".join(line[4:].strip() for line in reply.split(b"\n") if line)


def said(reply: bytes, secrets: Secrets, given: str = "") -> str:
    """A reply made safe to show, without these secrets (but see `hide`): its code and its text on one line."""
    return secrets.safe(f"{reply[:3].decode()} {words(reply).decode('utf-8', 'replace')}", given)


def refusal(code: bytes, text: str, *, of_person: bool = False) -> DeliveryError:
    """The error for a negative reply: temporary (4xx) or permanent (5xx); `of_person`: it is about the address."""
    if code[:1] == b"4":
        return DeliveryError(Code.RECIPIENT_REFUSED if of_person else Code.MAIL_UNAVAILABLE, text, Outcome.TEMPORARY)
    return DeliveryError(Code.RECIPIENT_REFUSED if of_person else Code.MAIL_REJECTED, text, Outcome.PERMANENT)
