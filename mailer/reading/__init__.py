"""Turns the bytes of a mail into what the log record says of it.

Promises a `Reading` for any bytes at all, in time linear in them; it raises nothing but MemoryError. What was not read
shows in `truncated` and `defects`: "header" (over a megabyte, or 10,000 fields or more), "parts" (over a thousand),
"nesting" (over twenty levels), "encoding" (damaged base64 or uuencode), "unreadable" (no mail at all). Called by
`collect` for each mail, by `mailroom` for `--read`, and by `imap.fetch` to learn how much of a mail is worth fetching.
"""

import logging
from typing import NamedTuple

from mailer import tickets
from mailer.reading import bounces, content, correspondence, headers, mime

# A text that comes after attachments is looked for within so many bytes; attachments before it are seldom larger.
LOOK_BEHIND = 4_194_304

_logger = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What the record says of one mail: ticket mail has a `ticket` and no `reason`, all other mail the reverse."""

    ticket: int | None
    subject: str | None
    sender: str | None
    date: str | None
    message_id: str | None
    text: str
    attachments: tuple[str, ...]
    truncated: bool
    reason: str | None
    related_ticket: int | None
    defects: tuple[str, ...]


UNREADABLE = Reading(None, None, None, None, None, "", (), False, "unreadable", None, ("unreadable",))


def read(raw: bytes, *, complete: bool = True) -> Reading:
    """Read a mail, or with `complete=False` the beginning of one."""
    try:
        return _read(mime.as_mail(raw), complete)
    except MemoryError:
        raise  # the mail is not to blame
    except Exception:  # whatever a stranger's mail breaks here, it gets a record, and the next one is read
        _logger.exception("a mail could not be read")
        return UNREADABLE


def _read(raw: bytes, complete: bool) -> Reading:
    root, defects = mime.parse(raw, complete=complete)
    if not root.fields:
        return UNREADABLE
    found = content.Content(defects=defects)
    found.gather(root)
    found.make_up()
    subject = headers.text(root.fields, "subject", root.parameters.get("charset"))
    ticket = tickets.recognise(subject or "")
    reason = None if ticket is not None else bounces.reason(root, subject or "")
    return Reading(
        ticket=ticket,
        subject=subject,
        sender=correspondence.sender(root.fields),
        date=correspondence.date(root.fields),
        message_id=correspondence.message_id(root.fields),
        text=found.text,
        attachments=tuple(found.attachments),
        truncated=found.truncated,
        reason=reason,
        related_ticket=bounces.related_ticket(root, reason) if reason else None,
        defects=tuple(dict.fromkeys(found.defects)),
    )


def wants_more(raw: bytes) -> bool:
    """Whether more bytes of the mail that begins with `raw` could change its header or its text."""
    try:
        root, _ = mime.parse(mime.as_mail(raw), complete=False)
        found = content.Content(measuring=True)
        found.gather(root)
    except MemoryError:
        raise
    except Exception:  # a stranger's mail: more bytes would not make it readable
        _logger.exception("a mail could not be read")
        return False
    last = root
    while last.children:
        last = last.children[-1]
    if last.closed or found.truncated or len(found.attachments) >= mime.PARTS:
        return False
    if last.in_headers:
        return last.end - last.start < headers.BLOCK_LIMIT
    if id(last) in found.shown or last.kind.startswith(("multipart/", "message/rfc822")):
        return True
    nothing_behind = last is root and not last.kind.startswith("text/")
    return not found.complete_texts and not nothing_behind and len(raw) < LOOK_BEHIND
