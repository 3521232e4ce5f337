"""Who wrote a mail and when: the From (or Sender), Date and Message-ID fields as the record shows them.

Promises a string or None for any bytes, in linear time. Called by `reading`.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_tz
from functools import lru_cache

from mailer.reading import charsets, headers

_DATE = re.compile(
    rb"(?:[A-Za-z]{2,9},?\s*)?([0-9]{1,2})[\s-]+([A-Za-z]{3})[a-z]*[\s-]+([0-9]{4})"
    rb"\s+([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?\s*(?:GMT|UTC?)?([+-][0-9]{2}):?([0-9]{2})?(?![0-9])"
)
_NAMES = (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}
_QUOTED = re.compile(rb"\"(?:[^\"\\]|\\.)*+\"")
_COMMENT = re.compile(rb"\([^()]*\)")
_ANGLE = re.compile(rb"<([^<>]*)>")
_ADDRESS = re.compile(rb"(?<![^\s<>()\[\],:;\"@])[^\s<>()\[\],:;\"@]++@(?:\[[^\]\s]*\]|[^\s<>()\[\],:;\"@]+)")
_QUOTED_ADDRESS = re.compile(rb"\"(?:[^\"\\]|\\.)*+\"@[^\s<>(),:;\"]+")
# The first address in angle brackets, if its local part is quoted; a name and comments may come before it.
_QUOTED_IN_ANGLES = re.compile(
    rb"(?:[^\"<(]|\"(?:[^\"\\]|\\.)*+\"(?!@)|\([^()]*\))*+<\s*(" + _QUOTED_ADDRESS.pattern + rb")\s*>"
)
_USUAL = re.compile(rb"[^\"()<>]*<([A-Za-z0-9._+-]++@[A-Za-z0-9.-]++)>[ \t]*")
# Longer than any address with its display name (RFC 5321, section 4.5.3.1).
_ADDRESS_LIMIT = 2048
_ID = re.compile(rb"<[^<>\s]*>")


def sender(fields: headers.Fields) -> str | None:
    """The address of whoever wrote the mail: the first one in From, else in Sender."""
    for name in ("from", "sender"):
        value = headers.first(fields, name)
        value = value[:_ADDRESS_LIMIT]
        address = _address(value)
        if not address and b"=?" in value:
            address = _address(headers.decode(value).replace("=?", "").encode("utf-8", "replace")[:_ADDRESS_LIMIT])
        if address:
            return address
    return None


def _address(value: bytes) -> str | None:
    """The first mailbox address in a list of them, without its display name."""
    if usual := _USUAL.fullmatch(value):
        return usual[1].decode("ascii")
    if quoted := _QUOTED_IN_ANGLES.match(value):
        return charsets.decode(quoted[1], None)
    plain = _COMMENT.sub(b" ", _QUOTED.sub(b" ", value) if b'"' in value else value)
    for angle in _ANGLE.findall(plain):
        address = b"".join(angle.split()).rpartition(b":")[2]
        if b"@" in address[1:]:
            return charsets.decode(address, None)
    found = _QUOTED_ADDRESS.search(value) or _ADDRESS.search(plain) or _ADDRESS.search(value)
    if found:
        return charsets.decode(found[0], None)
    if b"=?" in value:
        return None
    words = plain.split(b"<")[-1].strip(b"<> \t").split()
    return charsets.decode(words[0], None) if len(words) == 1 else None


def date(fields: headers.Fields) -> str | None:
    """The Date field in ISO 8601, with its own offset from UTC; None if it is no date."""
    value = headers.first(fields, "date")
    found = _DATE.match(value)
    try:
        if found and found[2].lower() in _MONTHS:
            day, month, year, hour, minute, second, zone, minutes = found.groups()
            moment = (int(year), _MONTHS[month.lower()], int(day), int(hour), int(minute), min(int(second or 0), 59))
            return datetime(*moment, tzinfo=_zone(zone + (minutes or b"00"))).isoformat()
        parsed = parsedate_tz(value[:100].decode("ascii", "replace")) if value else None
        if parsed is None:
            return None
        return datetime(*parsed[:5], min(parsed[5], 59), tzinfo=_within_a_day(parsed[9] or 0)).isoformat()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


@lru_cache(maxsize=256)
def _zone(zone: bytes) -> timezone:
    seconds = int(zone[1:3]) * 3600 + int(zone[3:5]) * 60
    return _within_a_day(-seconds if zone[:1] == b"-" else seconds)


def _within_a_day(offset: int) -> timezone:
    return timezone(timedelta(seconds=offset)) if abs(offset) < 86400 else UTC


def message_id(fields: headers.Fields) -> str | None:
    """The Message-ID with its angle brackets, or the whole field where it has none."""
    value = headers.first(fields, "message-id")[:998]
    found = _ID.search(value)
    return charsets.decode(found[0] if found else value, None) or None
