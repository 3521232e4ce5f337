"""IMAP's syntax (RFC 3501, section 9): folder names, FETCH and SEARCH responses, and refusals.

Pure. Called by `imap`, `imap.fetch` and `imap.login`.
"""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any

HIGHEST = (1 << 32) - 1  # the highest UID there can be
_UID = re.compile(rb"[ (]UID (\d{1,10})\b", re.IGNORECASE)
_WORD = re.compile(rb"\b\d{1,10}\b")
# A string without its closing quote extends to the end of the text: a search for others in it would be quadratic.
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.?)*+)(?:"|\Z)', re.DOTALL)
# NIL means that there is no data: that is an answer for a part, but for a whole mail only behind its beginning.
_SECTION = re.compile(
    rb"BODY\[([\w.]*)\](?:(?:<[1-9]\d*>|(?<!\[\])(?:<0>)?+) NIL|(?:<\d+>)? (?:\{\d+\}$|" + _QUOTED.pattern + rb"))",
    re.IGNORECASE | re.DOTALL,
)
# Refusals that are about the moment, not the login, folder or mail: RFC 5530; Gmail, Microsoft 365 and Dovecot.
_FOR_NOW = re.compile(
    r"\[(?:UNAVAILABLE|INUSE|LIMIT|THROTTLED)\]|too many simultaneous connections|exceeded .{0,20}bandwidth limits"
    r"|authenticated but not connected|temporary authentication failure",
    re.IGNORECASE,
)

# What these servers, and Exchange, Courier and Cyrus, say without a code when the server is in trouble.
_IN_TROUBLE = re.compile(
    r"server unavailable|temporar|try again later|system (?:i/o )?error|internal (?:server )?error|server (?:is )?busy"
    r"|mailbox is locked|time-?out|timed out",
    re.IGNORECASE,
)
_FOR_GOOD = re.compile(r"\[(?:AUTHENTICATIONFAILED|AUTHORIZATIONFAILED|EXPIRED|NONEXISTENT)\]", re.IGNORECASE)


def for_now(words: str) -> bool:
    """Whether the words of a refusal say that it is only for now."""
    return _FOR_NOW.search(words) is not None


def not_for_good(words: str) -> bool:
    """Whether a refused login, folder or STORE may succeed later; not for mails, with which trouble may last."""
    in_trouble = "[SERVERBUG]" in words.upper() or _IN_TROUBLE.search(words) is not None
    return for_now(words) or (in_trouble and not _FOR_GOOD.search(words))


def quoted(text: str) -> bytes:
    """A quoted string (RFC 3501, section 9); the text has no line ends."""
    return b'"' + text.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'


def mailbox_name(name: str) -> str:
    """A folder's name as IMAP commands have it: quoted, in modified UTF-7 (RFC 3501, section 5.1.3)."""

    def shifted(run: re.Match[str]) -> str:
        return "&" + b64encode(run[0].encode("utf-16-be")).decode().rstrip("=").replace("/", ",") + "-"

    return quoted(re.sub(r"[^ -~]+", shifted, name.replace("&", "&-"))).decode()


def responses(parts: Sequence[Any]) -> Iterator[tuple[int, dict[str, bytes]]]:
    """FETCH responses as `imaplib` gives them: the UID of each, and its bodies by section (empty, `2`, `2.MIME`)."""
    pieces: list[bytes] = []
    bodies: dict[str, bytes] = {}
    for part in parts:
        piece = part[0] if isinstance(part, tuple) else part or b""
        for body in _SECTION.finditer(piece):
            literal = isinstance(part, tuple) and body.end() == len(piece)
            data = part[1] if literal else re.sub(rb"\\(.)", rb"\1", body[2] or b"")
            bodies[body[1].decode().upper()] = data
        pieces.append(_QUOTED.sub(b"", piece) if b'"' in piece else piece)
        if not isinstance(part, tuple):  # the piece after the last literal, or the only one
            if uid := _UID.search(b" ".join(pieces)):
                yield int(uid[1]), bodies
            pieces, bodies = [], {}


def number(word: bytes | None) -> int:
    """A UIDVALIDITY, a UIDNEXT or a count, 0 where there is none; raises ValueError for what cannot be one."""
    if word and not re.fullmatch(rb"[0-9]{1,10}", word):
        raise ValueError(f"it counts in what is no number: {word[:40].decode('utf-8', 'replace')}")
    value = int(word or 0)
    if value > HIGHEST:
        raise ValueError(f"it counts in numbers that there are not: {value}")
    return value


def numbers(parts: Sequence[Any]) -> list[int]:
    """The UIDs in SEARCH responses, ascending."""
    found = {int(word) for part in parts if isinstance(part, bytes) for word in _WORD.findall(part)}
    return sorted(number for number in found if 0 < number <= HIGHEST)
