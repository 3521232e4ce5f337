"""How far a mailbox has been read: the values that the collector saves, compares and hands around.

A mailbox is read in the order of its UIDs. On the first pass over a UIDVALIDITY the unseen mails below UIDNEXT are
noted once, as `pending`, and never change; from then on everything at or above `next_uid` is taken, whatever its
flags. `done` is the one pointer that moves: every UID up to it has been taken care of. Pure; `collect` moves the
pointer, `position` keeps it, `journal` and `imap` fill in the rest.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Mark(NamedTuple):
    """The end of a log file at a time (its modification time, in nanoseconds), found again after it was renamed."""

    device: int = 0
    inode: int = 0
    size: int = 0
    time: int = 0


class Mail(NamedTuple):
    """A mail as fetched: its beginning, whether that is all of it; `raw` is None when the server will not give it.

    `refused`: it would not give more that is wanted; `cut`: what else there is cannot be found out.
    """

    uid: int
    raw: bytes | None
    complete: bool = True
    refused: bool = False
    cut: bool = False


class Tries(NamedTuple):
    """How often a mail was asked for and refused, and when last (Unix time, in seconds)."""

    number: int
    last: float


class Logged(NamedTuple):
    """What identifies a record found in a log."""

    uidvalidity: int
    uid: int
    identity: str


class Selected(NamedTuple):
    """What the server says about the mailbox when it is opened; `told`: it said the next UID, and just now."""

    uidvalidity: int
    next_uid: int
    told: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """The saved position in one mailbox; without a UIDVALIDITY it was never read before.

    refused: mails that the server did not give, by UID; marking: the mails of the last batch, whose
    \\Seen may not have been stored yet; marks: in the logs, success and error, nothing before them is of mails that
    are still to come.
    """

    uidvalidity: int = 0
    next_uid: int = 0
    pending: str = field(default="", repr=False)
    done: int = 0
    refused: Mapping[int, Tries] = field(default_factory=dict)
    marking: Sequence[int] = ()
    marks: Sequence[Mark] = (Mark(), Mark())


_BEGINNING = 1000  # characters


def identity(
    message_id: str | None, sender: str | None, subject: str | None, date: str | None, text: str | None
) -> str:
    """What tells mails with the same numbers apart, as those of two mailboxes: the Message-ID, or else the others."""
    return str(message_id) if message_id else f"{sender}\n{subject}\n{date}\n{_digest(text or '')}"


def _digest(text: object) -> str:
    """The beginning of a text, which may have been cut, in a few characters."""
    return hashlib.blake2b(str(text)[:_BEGINNING].encode("utf-8", "replace"), digest_size=16).hexdigest()


def pack(uids: Iterable[int]) -> str:
    """Ascending UIDs as an IMAP sequence set (RFC 3501, section 9): `1:4,7`."""
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in _ranges(uids))


def unpack(text: str) -> "array[int]":
    """The UIDs of a sequence set, four bytes each however many they are."""
    uids = array("I")
    for low, high in re.findall(r"(\d+)(?::(\d+))?", text):
        uids.extend(range(int(low), int(high or low) + 1))
    return uids


def _ranges(uids: Iterable[int]) -> Iterator[tuple[int, int]]:
    low = high = 0
    for uid in uids:
        if uid != high + 1 or not low:
            if low:
                yield low, high
            low = uid
        high = uid
    if low:
        yield low, high
