"""What has been recorded, and how far: the two logs and the position, kept in step.

Steps 1 and 2 of the order in `collect`: `record` returns when the lines are durable and the position behind them is
saved. After a start, or a failure anywhere, `recover` finds what is logged behind the saved position, and `record`
leaves that out.
"""

from bisect import bisect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from mailer.progress import Logged, Mail, Mark, Progress, Selected, identity, pack
from mailer.reading import Reading
from mailer.record import line, success_or_error


class Journal(Protocol):
    """A product log: see `journal.Journal`."""

    mark: Mark

    def append(self, lines: bytes) -> None: ...
    def recover(self, since: Mark | None) -> Iterator[Logged]: ...


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
    def fetch(self, uids: Sequence[int], wants_more: Callable[[bytes], bool] | None) -> Iterator[Mail]: ...
    def mark(self, uids: Sequence[int]) -> bool: ...
    def gives_others(self, refused: Collection[int]) -> bool: ...


class Ledger:
    """The logs and the position of one mailbox. `counts` are the records made, success and error."""

    def __init__(self, success: Journal, error: Journal, position: Position, now: Callable[[], datetime]) -> None:
        self._journals = (success, error)
        self._position = position
        self._now = now
        self.counts = [0, 0]
        self.progress = position.load()
        # Mails that are in the logs behind the saved marks, with what tells apart those of one number.
        self._logged: dict[tuple[int, int], set[str]] = {}

    def recover(self) -> None:
        """Cut off what a crash left torn, and find what is logged behind the saved position.

        Of a mailbox that was set back that may be anywhere in the logs.
        """
        progress = self.progress
        self._logged.clear()
        for found in self._behind(progress.marks) if progress.uidvalidity else ():
            self._logged.setdefault(found[:2], set()).add(found.identity)
        if progress.done + 1 < progress.known_below:
            for found in self._behind((None, None)):
                if found.uidvalidity == progress.uidvalidity and found.uid >= progress.next_uid:
                    self._logged.setdefault(found[:2], set()).add(found.identity)

    def outlived(self, uidvalidity: int, uids: Sequence[int]) -> dict[int, set[str]]:
        """Those of the (ascending) UIDs that are anywhere in the logs, with what tells apart those of one number."""
        outlived: dict[int, set[str]] = {}
        for found in self._behind((None, None)):
            if found.uidvalidity == uidvalidity and _holds(uids, found.uid):
                outlived.setdefault(found.uid, set()).add(found.identity)
        return outlived

    def begin(self, selected: Selected, pending: Sequence[int], marking: Sequence[int]) -> None:
        """Start with a mailbox, or again with one that was made anew or set back; `marking` are logged already."""
        uidvalidity, next_uid, _ = selected
        last = self.progress
        known_below = max(last.next_uid, last.done + 1, last.known_below) if last.uidvalidity == uidvalidity else 0
        progress = Progress(
            uidvalidity, next_uid, pack(pending), marking=marking, marks=self._marks(), known_below=known_below
        )
        self._position.begin(progress)
        self.progress = progress

    def record(self, readings: Sequence[tuple[int, Reading]], progress: Progress) -> None:
        """Log what was read, by UID, and then save the progress."""
        time = self._now()
        for index, name in enumerate(("success", "error")):
            lines = [
                line(reading, time=time, uidvalidity=progress.uidvalidity, uid=uid)
                for uid, reading in readings
                if success_or_error(reading) == name and not self._knows(progress.uidvalidity, uid, reading)
            ]
            if lines:
                self._journals[index].append(b"".join(lines))
                self.counts[index] += len(lines)
        if self._awaits(progress):  # they have to be found again, should this end before they are met
            progress = replace(progress, marks=self.progress.marks)
        else:
            progress = replace(progress, marks=self._marks())
            self._logged.clear()
        self._position.save(progress)
        self.progress = progress

    def marked(self) -> None:
        """Those of the last batch are marked: if somebody takes a mark away, a later start leaves it so."""
        if self.progress.marking:
            progress = replace(self.progress, marking=())
            self._position.save(progress)
            self.progress = progress

    def _awaits(self, progress: Progress) -> bool:
        """Whether mails that are logged are still to be met behind this progress."""
        return any(
            uidvalidity == progress.uidvalidity and (uid > progress.done or uid in progress.refused)
            for uidvalidity, uid in self._logged
        )

    def _knows(self, uidvalidity: int, uid: int, reading: Reading) -> bool:
        """Whether a mail is logged. The numbers may also be those of another mailbox's mail."""
        known = self._logged.get((uidvalidity, uid))
        return known is not None and identity_of(reading) in known

    def _behind(self, marks: Sequence[Mark | None]) -> Iterator[Logged]:
        """What is in the logs behind the marks, or anywhere in them."""
        for journal, mark in zip(self._journals, marks, strict=True):
            yield from journal.recover(mark)

    def _marks(self) -> tuple[Mark, ...]:
        return tuple(journal.mark for journal in self._journals)


def identity_of(reading: Reading) -> str:
    """What tells a mail apart from others with the same numbers."""
    return identity(reading.message_id, reading.sender, reading.subject, reading.date, reading.text)


def _holds(ascending: Sequence[int], uid: int) -> bool:
    index = bisect(ascending, uid)
    return index > 0 and ascending[index - 1] == uid
