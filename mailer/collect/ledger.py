"""The two logs and the position, kept in step: what has been recorded, and how far the mailbox has been read.

`record` does steps 1 and 2 of the order in `collect`: it returns when the lines are durable and the position behind
them is saved. After a start, or any failure, `recover` finds the mails that are logged behind the saved position, and
`record` does not log them again. Called by `collect` and `backlog`.
"""

import hashlib
from bisect import bisect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from mailer.progress import Logged, Mail, Mark, Progress, Selected, identity, pack, unpack
from mailer.reading import Reading
from mailer.record import line, success_or_error


class Journal(Protocol):
    """A product log: see `journal.Journal`."""

    mark: Mark

    def append(self, lines: bytes) -> None: ...
    def recover(self, since: Mark) -> Iterator[Logged]: ...


class Position(Protocol):
    """Where the progress is kept: see `position.Position`."""

    def load(self) -> Progress: ...
    def begin(self, progress: Progress) -> None: ...
    def save(self, progress: Progress) -> None: ...


class Mailbox(Protocol):
    """The folder that is read: see `imap.Mailbox`."""

    def open(self) -> Selected: ...
    def unseen(self) -> Sequence[int]: ...
    def since(self, uid: int) -> Sequence[int]: ...
    def fetch(self, uids: Sequence[int], wants_more: Callable[[bytes], bool]) -> Iterator[Mail]: ...
    def mark(self, uids: Sequence[int]) -> bool: ...
    def gives_others(self, refused: Collection[int]) -> bool: ...


class Ledger:
    """The logs and the position of one mailbox. `counts`: the records written to the success and the error log."""

    def __init__(self, success: Journal, error: Journal, position: Position, now: Callable[[], datetime]) -> None:
        self._journals = (success, error)
        self._position = position
        self._now = now
        self.counts = [0, 0]
        self.progress = position.load()
        # Mails still to come that are logged behind the saved marks, as numbers because there may be many; their
        # highest UID; and the marks up to which the logs have been searched for them.
        self._logged: set[int] = set()
        self._highest = 0
        self._searched = self.progress.marks

    def recover(self) -> None:
        """Cut off what a crash left torn, and find which mails still to come are logged behind the saved marks."""
        progress = self.progress
        pending = unpack(progress.pending)
        for found in self._behind(self._searched) if progress.uidvalidity else ():
            to_come = found.uid >= progress.next_uid or _holds(pending, found.uid)
            if found.uidvalidity == progress.uidvalidity and to_come:
                self._logged.add(_number(found.uid, found.identity))
                self._highest = max(self._highest, found.uid)
        self._searched = self._ends()
        self._advance(progress)
        if self.progress.marks != progress.marks:  # so that no later start has to search as much
            self._position.save(self.progress)

    def begin(self, selected: Selected, pending: Sequence[int]) -> None:
        """Start with a new mailbox, or again with one that was made anew or set back.

        Its mails may be anywhere in the logs, which can outlive the state and hold mails that the mailbox has lost.
        """
        progress = Progress(selected.uidvalidity, selected.next_uid, pack(pending))
        self._position.begin(progress)
        self.progress = progress
        self._logged.clear()
        self._highest = 0
        self._searched = progress.marks

    def record(self, readings: Sequence[tuple[int, Reading]], progress: Progress) -> None:
        """Log the readings, each with its UID, unless they are logged already; then save the progress."""
        time = self._now()
        for index, name in enumerate(("success", "error")):
            lines = [
                line(reading, time=time, uidvalidity=progress.uidvalidity, uid=uid)
                for uid, reading in readings
                if success_or_error(reading) == name and not self._knows(uid, reading)
            ]
            if lines:
                self._journals[index].append(b"".join(lines))
                self.counts[index] += len(lines)
        # As long as logged mails are still to come, a new process has to find their records: the marks stay.
        progress = replace(progress, marks=self.progress.marks if self._awaits(progress) else self._ends())
        self._position.save(progress)
        self._advance(progress)

    def marked(self) -> None:
        """Note that all recorded mails are marked, so that no later start marks a mail that somebody made unseen."""
        if self.progress.marking:
            progress = replace(self.progress, marking=())
            self._position.save(progress)
            self.progress = progress

    def _knows(self, uid: int, reading: Reading) -> bool:
        """Whether a mail is logged already; its UID alone does not tell, as another mail may have had it."""
        return bool(self._logged) and _number(uid, _identity(reading)) in self._logged

    def _awaits(self, progress: Progress) -> bool:
        """Whether mails that are logged already may still come, beyond this progress."""
        return bool(self._logged and (self._highest > progress.done or progress.refused))

    def _advance(self, progress: Progress) -> None:
        """Go on from what is saved: when no logged mail is still to come, only the ends of the logs matter."""
        if not self._awaits(progress):
            self._logged.clear()
            self._highest = 0
            self._searched = self._ends()
            progress = replace(progress, marks=self._searched)
        self.progress = progress

    def _ends(self) -> tuple[Mark, ...]:
        return tuple(journal.mark for journal in self._journals)

    def _behind(self, marks: Sequence[Mark]) -> Iterator[Logged]:
        """The records in the logs behind the marks."""
        for journal, mark in zip(self._journals, marks, strict=True):
            yield from journal.recover(mark)


def _number(uid: int, identity: str) -> int:
    """The number that stands for a logged mail: of 64 bits, so that two mails hardly ever share one."""
    return int.from_bytes(hashlib.blake2b(f"{uid} {identity}".encode("utf-8", "replace"), digest_size=8).digest())


def _identity(reading: Reading) -> str:
    """What tells a mail apart from others with the same UIDVALIDITY and UID."""
    return identity(reading.message_id, reading.sender, reading.subject, reading.date, reading.text)


def _holds(ascending: Sequence[int], uid: int) -> bool:
    index = bisect(ascending, uid)
    return index > 0 and ascending[index - 1] == uid
