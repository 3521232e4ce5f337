"""One line of JSON for one mail: what the two product logs are made of.

Promises one line whatever is in the mail, in which nothing can steer a terminal, and from which `json.loads` gives
exactly the same strings back. Called by `collect`, and by the collector's `--read`. Pure: the time is given.
"""

import itertools
import json
from datetime import datetime
from io import BytesIO
from typing import Any

from mailer.reading import Reading

_encode = json.JSONEncoder(ensure_ascii=False).encode
# What JSON leaves as it is and a terminal does not: DEL, C1, the line separators, and what turns the direction of text
# (Unicode, annex 9), so that a line would read as another one; and what UTF-8 cannot carry.
_CONTROL = itertools.chain(
    range(0x7F, 0xA0), (0x61C, 0x200E, 0x200F), range(0x2028, 0x202F), range(0x2066, 0x206A), range(0xD800, 0xE000)
)
_PIECE = 65_536
_ESCAPES = {code: f"\\u{code:04x}" for code in _CONTROL}


def success_or_error(reading: Reading) -> str:
    """Which log the record belongs to: "success" for ticket mail, "error" for all other."""
    return "error" if reading.ticket is None else "success"


def line(
    reading: Reading, *, time: datetime, uidvalidity: int | None = None, uid: int | None = None, file: str | None = None
) -> bytes:
    """The record in UTF-8, with its line end. With `file`, it is of a mail that lies in a file and in no mailbox."""
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
    if encoded.isprintable():  # which is quickly seen, and false of all with one of these
        return encoded.encode() + b"\n"
    written = BytesIO()  # piece by piece, as one emoji makes four bytes of every character of an escape
    for start in range(0, len(encoded), _PIECE):
        written.write(encoded[start : start + _PIECE].translate(_ESCAPES).encode())
    written.write(b"\n")
    return written.getvalue()
