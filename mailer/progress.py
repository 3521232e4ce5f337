"""How far a mailbox has been read: the values that the collector saves, compares and hands around.

A mailbox is read in the order of its UIDs. On the first pass over a UIDVALIDITY the UIDs of the unseen mails below
UIDNEXT are noted as `pending`, which never changes; from then on every mail at or above `next_uid` is taken, whatever
its flags. `done` is the one pointer that moves: of the mails to be taken, all up to this UID are recorded or in
`refused`. Pure; `collect` moves the pointer, `position` keeps it, `journal` and `imap` fill in the rest.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Mark(NamedTuple):
    """The end of a log file and its modification time (in nanoseconds); device and inode find a renamed file."""

    device: int = 0
    inode: int = 0
    size: int = 0
    time: int = 0


class Mail(NamedTuple):
    """A mail as fetched: its beginning, None if the server refuses it; `complete`: the beginning is all of the mail.

    `refused`: the server refuses more that is wanted; `cut`: there may be more text, but it could not be reached.
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
    """What the server says about the mailbox when it is opened; `told`: it gave the next UID itself, and just now."""

    uidvalidity: int
    next_uid: int
    told: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """The saved position in one mailbox; a mailbox that was never read has no UIDVALIDITY here.

    refused: mails that the server did not give, by UID; marking: recorded mails, those of the last batch among them,
    whose \\Seen may not have been stored yet; marks: places in the success and the error log before which there is no
    record of a mail that is still to come.
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
    """What tells mails with the same UID apart, as of two mailboxes: the Message-ID, or else all other values."""
    return str(message_id) if message_id else f"{sender}\n{subject}\n{date}\n{_digest(text or '')}"


def _digest(text: object) -> str:
    """A short digest of the beginning of a text, as its end may have been cut off."""
    return hashlib.blake2b(str(text)[:_BEGINNING].encode("utf-8", "replace"), digest_size=16).hexdigest()


def pack(uids: Iterable[int]) -> str:
    """Ascending UIDs as an IMAP sequence set (RFC 3501, section 9): `1:4,7`."""
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in _ranges(uids))


def unpack(text: str) -> "array[int]":
    """The UIDs of a sequence set, in an array that takes four bytes for each."""
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
