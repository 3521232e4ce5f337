"""One line of JSON for one mail: what the two product logs are made of.

Promises one line whatever is in the mail: nothing in it can steer a terminal, and `json.loads` gives exactly the same
strings back. Called by `collect.ledger`, and by `mailroom` for `--read`. Pure: the time is given.
"""

import itertools
import json
from datetime import datetime
from io import BytesIO
from typing import Any

from mailer.reading import Reading

_encode = json.JSONEncoder(ensure_ascii=False).encode
# Characters that JSON leaves as they are but a terminal acts on: DEL, C1, the line separators, and those that turn the
# direction of text (Unicode, annex 9) and make a line read as another; and surrogates, which UTF-8 cannot carry.
_CONTROL = itertools.chain(
    range(0x7F, 0xA0), (0x61C, 0x200E, 0x200F), range(0x2028, 0x202F), range(0x2066, 0x206A), range(0xD800, 0xE000)
)
_PIECE = 65_536
_ESCAPES = {code: f"\\u{code:04x}" for code in _CONTROL}


def success_or_error(reading: Reading) -> str:
    """Which log the record belongs to: "success" for ticket mail, "error" for all other mail."""
    return "error" if reading.ticket is None else "success"


def line(
    reading: Reading, *, time: datetime, uidvalidity: int | None = None, uid: int | None = None, file: str | None = None
) -> bytes:
    """The record in UTF-8, with its line end. With `file`, the mail comes from that file and from no mailbox."""
    record: dict[str, Any] = {} if file is None else {"file": file}
    record["time"] = time.isoformat(timespec="seconds")
    if reading.ticket is not None:
        record["ticket"] = reading.ticket
    else:
        record["reason"] = reading.reason
        if reading.related_ticket is not None:
            record["related_ticket"] = reading.related_ticket
    record["from"] = reading.sender
    record["subject"] = reading.subject
    record["text"] = reading.text
    record["date"] = reading.date
    record["message_id"] = reading.message_id
    if file is None:
        record["uidvalidity"] = uidvalidity
        record["uid"] = uid
    if reading.attachments:
        record["attachments"] = list(reading.attachments)
    if reading.truncated:
        record["truncated"] = True
    if reading.defects:
        record["defects"] = list(reading.defects)
    encoded = _encode(record)
    if encoded.isprintable():  # a quick test, which fails for all of those characters
        return encoded.encode() + b"\n"
    written = BytesIO()  # in pieces: in a string with one emoji, each character of an escape takes four bytes
    for start in range(0, len(encoded), _PIECE):
        written.write(encoded[start : start + _PIECE].translate(_ESCAPES).encode())
    written.write(b"\n")
    return written.getvalue()
