"""Collecting: one pass over the new mail of a mailbox.

Recovery rests on the order of four steps for each batch of mails:

    1. the records are in the logs, durable         (journal.append)
    2. the position behind them is saved, durable   (position.save)
    3. the mails are marked as seen                 (mailbox.mark)
    4. the next batch

After a crash before 1 the batch is read again. After one between 1 and 2 the next start finds the records at the ends
of the logs, and does not log those mails again. After one between 2 and 3 the position says which mails to mark. A
pass that fails is followed by the same recovery as a crash.

Works on a mailbox, two journals and a position that `mailroom` hands in; never imports them.
"""

import itertools
import logging
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from mailer.collect.backlog import Backlog
from mailer.collect.ledger import Journal, Ledger, Mailbox, Position
from mailer.collect.refusals import Refusals
from mailer.errors import ExitCode, MailboxError
from mailer.progress import Mail
from mailer.reading import Reading, read, wants_more

# A single mail can make every pass fail in these ways: the connection breaks, or the server says to try again later.
PASSING = (ExitCode.UNAVAILABLE, ExitCode.TEMPORARY)

_Batch = list[tuple[int, Reading | None]]  # each mail's UID and reading, None if the server refused it

_log = logging.getLogger(__name__)

# Mails asked for at once; the mailbox fetches them in smaller batches.
_ASKED = 1_000
# A batch is committed when it has so many mails or characters of text (one mail may have a million of them), or after
# so many seconds (one mail may take many commands).
_MAILS = 500
_CHARACTERS = 500_000
_SECONDS = 20.0
# Mails that are to be marked once the server takes marks again; beyond that only the newest are.
_MOST_UNMARKED = 10_000


class Collector:
    """Reads one mailbox. `keep(name, raw)` durably saves the bytes of a mail that cannot be read.

    `progress(done, total)` is called with numbers of mails, at the beginning of a pass and after each batch.

    Beside the position it remembers from one pass to the next whether the last one failed (`_unsure`), so that the logs
    have to be looked at; which mails may be to blame for that (`_careful`, then `_suspect`); and which recorded mails
    are still to be marked (`_unmarked`).
    """

    def __init__(
        self, mailbox: Mailbox, success: Journal, error: Journal, position: Position, *,
        keep: Callable[[str, bytes], None], now: Callable[[], datetime] = lambda: datetime.now(UTC),
        stopping: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], object] = lambda *_: None,
    ) -> None:
        self._mailbox = mailbox
        self._ledger = Ledger(success, error, position, now)
        self._backlog = Backlog(mailbox, self._ledger)
        self._keep = keep
        self._stopping = stopping
        self._progress = progress
        self._careful = 0  # mails up to this UID are asked for one by one: a fetch of some of them failed
        self._suspect = 0  # the UID whose fetch failed even alone; the next pass finds out whether it is to blame
        self._refusals = Refusals()
        self._unsure = True  # whether the logs may hold records that the position does not know of
        self._unmarked = self._ledger.progress.marking  # recorded, and perhaps not marked yet
        self._marked = False  # whether the last marks were set

    def run_pass(self) -> tuple[int, int]:
        """Take all new mail; return how many records went into the success log and into the error log."""
        if self._unsure:
            self._ledger.recover()
        self._unsure = True
        self._take_up()
        before = list(self._ledger.counts)
        self._blame()
        refused = [uid for uid, tries in self._ledger.progress.refused.items() if self._refusals.due(tries)]
        if self._refusals.crowded:  # one more refusal would end the pass: make them fewer first
            self._try_again(refused)
            refused = []
        total, new = self._backlog.left()
        self._progress(0, total)
        taken = 0
        for asked in self._portions(new):
            for batch, done in self._batches(asked):
                self._commit(batch, done)
                del batch
                self._progress(taken + bisect(asked, done), total)
                if self._stopping():
                    break
            taken += len(asked)
            if self._stopping():
                break
        else:
            self._backlog.end()
            self._try_again(refused)
        if self._marked:
            self._ledger.marked()
        self._unsure = False
        tickets, others = self._ledger.counts
        return tickets - before[0], others - before[1]

    @property
    def over_a_mail(self) -> bool:
        """Whether the last pass failed and mails are now asked for one by one, so that the next may get further."""
        return bool(self._careful and self._unsure)

    @property
    def refused(self) -> int:
        """How many mails that the server refused are to be tried again."""
        return len(self._ledger.progress.refused)

    def place(self) -> object:
        """How far the passes have come: a value to compare with an earlier one."""
        return self._ledger.progress.done, self._ledger.progress.refused

    def _take_up(self) -> None:
        """Open the mailbox, and first mark the recorded mails that may not be marked yet."""
        if self._backlog.take_up():
            self._unmarked = ()
            self._suspect = self._careful = 0  # they belong to the former mailbox, and so do the fragments
            self._refusals.fragments.clear()
            self._ledger.recover()
        unmarked, self._unmarked = self._unmarked, ()
        if unmarked:
            self._mark(unmarked)  # if this breaks the connection they stay unmarked: reading matters more

    # -- the mails, batch by batch -------------------------------------------------------------------------------------

    def _portions(self, uids: Iterator[int]) -> Iterator[list[int]]:
        """The UIDs, ascending, in portions to ask the mailbox for."""
        while portion := list(itertools.islice(uids, 1)):
            if portion[0] > self._careful:
                portion.extend(itertools.islice(uids, _ASKED - 1))
            yield portion

    def _batches(self, asked: Sequence[int]) -> Iterator[tuple[_Batch, int]]:
        """The mails asked for, in batches to commit, each with the UID up to which all mail is done then."""
        batch: _Batch = []
        size = done = 0
        due = time.monotonic() + _SECONDS
        try:
            for mail in self._mailbox.fetch(asked, wants_more):
                uid, reading = mail.uid, self._read(mail)
                batch.append((uid, reading))
                size, given = size + (len(reading.text) if reading else 0), reading is not None
                del mail, reading  # perhaps megabytes, not needed while the next mails come
                full = len(batch) >= _MAILS or size > _CHARACTERS or time.monotonic() > due or self._stopping()
                if full and given:  # after a refused mail first see whether the connection broke over it
                    done = uid
                    yield batch, done
                    batch, size = [], 0
                    due = time.monotonic() + _SECONDS
        except (MailboxError, MemoryError) as failure:
            # Asking for these mails again, one by one, will show whether a mail or the connection is to blame.
            before, self._careful = self._careful, max(self._careful, asked[-1])
            passing = isinstance(failure, MemoryError) or failure.exit_code in PASSING
            if len(asked) == 1 and asked[0] <= before and passing and not self._stopping():
                self._suspect = asked[0]
            if isinstance(failure, MemoryError):
                raise MailboxError("there is too little memory to read the mail", ExitCode.TEMPORARY) from failure
            raise
        if not done or batch:  # UIDs without a mail move nothing on: a server may have made them up
            yield batch, batch[-1][0] if batch else 0

    def _blame(self) -> None:
        """Count the mail over which the last pass failed as refused, if the server gives other mails now."""
        suspect, self._suspect = self._suspect, 0
        if suspect and self._mailbox.gives_others({suspect, *self._ledger.progress.refused}):
            self._commit([(suspect, None)], suspect, to_blame=True)

    def _try_again(self, refused: Sequence[int]) -> None:
        """Ask once more for the mails refused before."""
        for uid in refused:
            for batch, done in self._batches([uid]):
                self._commit(batch, done, gone=[] if batch else [uid])

    # -- one batch -------------------------------------------------------------------------------------------------

    def _read(self, mail: Mail) -> Reading | None:
        """The reading of a mail; None if the server refuses it, or the rest of it, and it is to be tried again."""
        if mail.raw is None:
            return None
        reading = read(mail.raw, complete=mail.complete)
        if reading.reason == "unreadable":
            self._keep(f"{self._ledger.progress.uidvalidity}-{mail.uid}.eml", mail.raw)
        if mail.refused or mail.cut:
            reading = reading._replace(truncated=True, defects=(*reading.defects, "missing"))
        return None if mail.refused and self._refusals.wait_for_more(mail.uid, reading) else reading

    def _commit(self, batch: _Batch, done: int, gone: Sequence[int] = (), *, to_blame: bool = False) -> None:
        """Log the mails, save the position and mark the mails, in that order."""
        progress, fragments = self._ledger.progress, self._refusals.fragments
        all_refused = batch and not any(reading or uid in fragments for uid, reading in batch)
        # The mails are to blame only if the server gives other ones.
        if all_refused and not to_blame and not self._mailbox.gives_others({*dict(batch), *progress.refused}):
            raise MailboxError("the server refuses all mails that it is asked for")
        refused = {uid: tries for uid, tries in progress.refused.items() if uid not in gone}
        readings = [(uid, reading or self._refusals.count(uid, refused)) for uid, reading in batch]
        readings += [(uid, fragments.get(uid)) for uid in gone]
        read_whole = [uid for uid, reading in batch if reading]
        for uid in read_whole:
            refused.pop(uid, None)
        marking = sorted({*self._unmarked, *read_whole})[-_MOST_UNMARKED:]
        progress = replace(progress, done=max(progress.done, done), refused=refused, marking=marking)
        recorded = [(uid, reading) for uid, reading in readings if reading]
        self._ledger.record(recorded, progress)
        for uid, _ in recorded:
            fragments.pop(uid, None)
        self._unmarked = marking
        self._mark(marking)

    def _mark(self, uids: Sequence[int]) -> None:
        self._marked = False
        self._marked = self._mailbox.mark(uids)
        self._unmarked = () if self._marked else uids
