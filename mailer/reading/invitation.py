"""The title of an invitation to a meeting: the SUMMARY in its calendar (RFC 5545). Called by `content`."""

import re

# How many characters of a title are looked at, and how many are shown.
_LOOK_AT, _LONGEST = 2_000, 1_000
_SUMMARY = re.compile(r"^SUMMARY[^:\n]*+:(.*)", re.MULTILINE)
# How lines are folded, even within words and UTF-8 characters (section 3.1). Each kind is replaced by itself, because a
# regular expression takes a hundred MB for a million folds.
_FOLDS = (b"\r\n ", b"\n ", b"\r\n\t", b"\n\t")
_ESCAPED = re.compile(r"\\(.)")


def unfolded(calendar: bytes) -> bytes:
    """A calendar with its folded lines joined, but unchanged in UTF-16, where these bytes may be other characters."""
    for fold in _FOLDS if b"\0" not in calendar[:_LOOK_AT] else ():
        calendar = calendar.replace(fold, b"")
    return calendar


def words(calendar: str) -> str:
    """What is shown of an invitation when its mail has no text."""
    found = _SUMMARY.search(calendar)
    # Commas, semicolons, backslashes and line ends are escaped (section 3.3.11).
    plain = _ESCAPED.sub(lambda sign: " " if sign[1] in "nN" else sign[1], found[1][:_LOOK_AT] if found else "")
    shown = " ".join(plain.split())[:_LONGEST]
    return f"[Calendar: {shown}]" if shown else "[Calendar]"
