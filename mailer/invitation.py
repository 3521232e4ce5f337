"""What an invitation to a meeting says it is to: the SUMMARY of a calendar (RFC 5545). Called by `content`."""

import re

# How much of the words is shown.
_LONGEST = 1000
# Lines are folded within words, and within characters of UTF-8 (section 3.1).
_FOLD = re.compile(rb"\r?\n[ \t]")
_SUMMARY = re.compile(r"^SUMMARY[^:\n]*+:(.*)", re.MULTILINE)
_ESCAPED = re.compile(r"\\(.)")


def unfolded(data: bytes) -> bytes:
    """A calendar with each of its lines in one."""
    return _FOLD.sub(b"", data)


def words(calendar: str) -> str:
    """What stands in the place of a text, where there is none."""
    found = _SUMMARY.search(calendar)
    if not found:
        return "[Calendar]"
    # Commas, semicolons and backslashes are escaped, and line ends (section 3.3.11).
    summary = _ESCAPED.sub(lambda sign: " " if sign[1] in "nN" else sign[1], found[1][: 2 * _LONGEST])
    return f"[Calendar: {' '.join(summary.split())[:_LONGEST]}]"
