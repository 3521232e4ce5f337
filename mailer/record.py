"""One line of JSON for one mail: what the two product logs are made of.

Promises one line whatever is in the mail, in which nothing can steer a terminal, and from which `json.loads` gives
exactly the same strings back. Called by `collect`, and by the collector's `--read`. Pure: the time is given.
"""

import json
import re
from datetime import datetime
from typing import Any

from mailer.reading import Reading

_encode = json.JSONEncoder(ensure_ascii=False).encode
# What JSON leaves as it is and a terminal does not: DEL, C1, the line separators, and what turns the direction of text
# (Unicode, annex 9), so that a line would read as another one; and what UTF-8 cannot carry.
_CONTROL = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def success_or_error(reading: Reading) -> str:
    """Which log the record belongs to: "success" for ticket mail, "error" for all other."""
    return "error" if reading.ticket is None else "success"


def line(
    reading: Reading, *, time: datetime, uidvalidity: int | None = None, uid: int | None = None, file: str | None = None
) -> str:
    """The record with its line end. With `file`, it is one for a mail that lies in a file and in no mailbox."""
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
    if not encoded.isprintable():  # which is quickly seen, and true of all of _CONTROL
        encoded = _CONTROL.sub(lambda control: f"\\u{ord(control[0]):04x}", encoded)
    return encoded + "\n"
