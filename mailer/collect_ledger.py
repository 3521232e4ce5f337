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
    """The logs and the position of one mailbox. `counts` are the records made, success and error."""

    def __init__(self, success: Journal, error: Journal, position: Position, now: Callable[[], datetime]) -> None:
        self._journals = (success, error)
        self._position = position
        self._now = now
        self.counts = [0, 0]
        self.progress = position.load()
        # Mails to come that are in the logs behind the saved marks, by UID, with what tells apart those of one number.
        self._logged: dict[int, tuple[str, ...]] = {}

    def recover(self) -> None:
        """Cut off what a crash left torn, and find what is logged behind the saved marks of mails still to come."""
        progress = self.progress
        self._logged.clear()
        pending = unpack(progress.pending)
        for found in self._behind(progress.marks) if progress.uidvalidity else ():
            to_come = found.uid >= progress.next_uid or _holds(pending, found.uid)
            if found.uidvalidity == progress.uidvalidity and to_come and not self._knows(found.uid, found.identity):
                self._logged[found.uid] = (*self._logged.get(found.uid, ()), found.identity)
        self.progress = self._marked_up(progress)

    def begin(self, selected: Selected, pending: Sequence[int]) -> None:
        """Start with a mailbox, or again with one that was made anew or set back.

        Its mails may be anywhere in the logs: those can outlive the state, and hold what a mailbox has lost.
        """
        progress = Progress(selected.uidvalidity, selected.next_uid, pack(pending))
        self._position.begin(progress)
        self.progress = progress

    def record(self, readings: Sequence[tuple[int, Reading]], progress: Progress) -> None:
        """Log what was read, by UID, and then save the progress."""
        time = self._now()
        for index, name in enumerate(("success", "error")):
            lines = [
                line(reading, time=time, uidvalidity=progress.uidvalidity, uid=uid)
                for uid, reading in readings
                if success_or_error(reading) == name and not self._knows(uid, _identity(reading))
            ]
            if lines:
                self._journals[index].append(b"".join(lines))
                self.counts[index] += len(lines)
        progress = self._marked_up(progress)
        self._position.save(progress)
        self.progress = progress

    def marked(self) -> None:
        """Those of the last batch are marked: if somebody takes a mark away, a later start leaves it so."""
        if self.progress.marking:
            progress = replace(self.progress, marking=())
            self._position.save(progress)
            self.progress = progress

    def _marked_up(self, progress: Progress) -> Progress:
        """The progress with the ends of the logs as its marks; with those before, while mails logged are to be met.

        They have to be found again, should this process end until then.
        """
        if any(uid > progress.done or uid in progress.refused for uid in self._logged):
            return replace(progress, marks=self.progress.marks)
        self._logged.clear()
        return replace(progress, marks=tuple(journal.mark for journal in self._journals))

    def _knows(self, uid: int, identity: str) -> bool:
        """Whether a mail is logged. The numbers may also be those of another mailbox's mail."""
        return identity in self._logged.get(uid, ())

    def _behind(self, marks: Sequence[Mark]) -> Iterator[Logged]:
        """What is in the logs behind the marks."""
        for journal, mark in zip(self._journals, marks, strict=True):
            yield from journal.recover(mark)


def _identity(reading: Reading) -> str:
    """What tells a mail apart from others with the same numbers."""
    return identity(reading.message_id, reading.sender, reading.subject, reading.date, reading.text)


def _holds(ascending: Sequence[int], uid: int) -> bool:
    index = bisect(ascending, uid)
    return index > 0 and ascending[index - 1] == uid
