"""The ticket subject `[Ticket #12345] Mailer` and the Message-ID that carries the same number.

Formats both and recognises both. Refuses everything that is not exactly that subject, alone or after reply and
forward prefixes. Called by `compose` on the way out and by `reading` on the way in.
"""

import re

# One reply or forward prefix, as mail programs write them, with an optional counter: `Re:`, `AW: `, `Re[2]:`, `回复：`.
_PREFIX = (
    r"(?:re|fwd?|aw|wg|sv|vs|vl|vb|rv|tr|rif|i|r|antw|odp|pd|res|enc|ynt|ilt|отв|ответ|на|пересл|回复|转发|答复|回覆|轉寄)"
    r"(?:\s?\[\d{1,4}\]|\s?\(\d{1,4}\)|\^\d{1,4})?\s?[:：]\s?"
)
_SUBJECT = re.compile(rf"(?:(?i:{_PREFIX}))*+\[Ticket #([0-9]{{1,18}})\] Mailer")
_MESSAGE_ID = re.compile(r"<ticket\.([0-9]{1,18})\.[0-9a-z]+@")


def format_subject(ticket: int) -> str:
    """The subject of a ticket mail."""
    return f"[Ticket #{ticket}] Mailer"


def recognise(subject: str) -> int | None:
    """The ticket of a decoded, unfolded subject; None when it is no ticket subject."""
    found = _SUBJECT.fullmatch(" ".join(subject.split()))
    return int(found[1]) if found else None


def message_id(ticket: int, unique: str, domain: str) -> str:
    """A Message-ID (RFC 5322, section 3.6.4) that carries the ticket; `unique` is lower-case hexadecimal."""
    return f"<ticket.{ticket}.{unique}@{domain}>"


def ticket_of_message_id(text: str) -> int | None:
    """The ticket of the first of our Message-IDs in a text such as a References header."""
    found = _MESSAGE_ID.search(text)
    return int(found[1]) if found else None
