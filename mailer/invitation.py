"""What an invitation to a meeting says it is to: the SUMMARY of a calendar (RFC 5545). Called by `content`."""

import re

# How much of it is looked at, and how much is shown.
_LOOK_AT, _LONGEST = 2_000, 1_000
_SUMMARY = re.compile(r"^SUMMARY[^:\n]*+:(.*)", re.MULTILINE)
# Lines are folded within words, and within characters of UTF-8 (section 3.1). One after the other, as an expression
# takes a hundred MB for a million of them.
_FOLDS = (b"\r\n ", b"\n ", b"\r\n\t", b"\n\t")
_ESCAPED = re.compile(r"\\(.)")


def unfolded(calendar: bytes) -> bytes:
    """A calendar with each of its lines in one; but not in UTF-16, where these bytes may be others."""
    for fold in _FOLDS if b"\0" not in calendar[:_LOOK_AT] else ():
        calendar = calendar.replace(fold, b"")
    return calendar


def words(calendar: str) -> str:
    """What stands in the place of a text, where there is none."""
    found = _SUMMARY.search(calendar)
    # Commas, semicolons and backslashes are escaped, and line ends (section 3.3.11).
    plain = _ESCAPED.sub(lambda sign: " " if sign[1] in "nN" else sign[1], found[1][:_LOOK_AT] if found else "")
    shown = " ".join(plain.split())[:_LONGEST]
    return f"[Calendar: {shown}]" if shown else "[Calendar]"
