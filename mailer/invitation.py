"""What an invitation to a meeting says it is to: the SUMMARY of a calendar (RFC 5545). Called by `content`."""

import re

# How much of it is looked at, in bytes, and how much is shown.
_LOOK_AT, _LONGEST = 8_192, 1_000
_SUMMARY = re.compile(rb"^SUMMARY[^:\n]*+:(.*+(?:\n[ \t].*+)*+)", re.MULTILINE)
# Lines are folded within words, and within characters of UTF-8 (section 3.1).
_FOLD = re.compile(rb"\r?\n[ \t]")
_ESCAPED = re.compile(r"\\(.)")


def summary(calendar: bytes) -> bytes:
    """The summary in one line, as it is written there; nothing where there is none."""
    found = _SUMMARY.search(calendar)
    return _FOLD.sub(b"", found[1][:_LOOK_AT]) if found else b""


def words(written: str) -> str:
    """What stands in the place of a text, where there is none."""
    # Commas, semicolons and backslashes are escaped, and line ends (section 3.3.11).
    plain = _ESCAPED.sub(lambda sign: " " if sign[1] in "nN" else sign[1], written)
    shown = " ".join(plain.split())[:_LONGEST]
    return f"[Calendar: {shown}]" if shown else "[Calendar]"
