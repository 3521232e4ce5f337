"""Collecting: one pass over the new mail of a mailbox.

Everything that makes recovery obvious is in the order of four effects, for each batch of mails:

    1. the records are in the logs, durable         (journal.append)
    2. the position behind them is saved, durable   (position.save)
    3. the mails are marked as seen                 (mailbox.mark)
    4. the next batch

A crash before 1 changes nothing: the batch is read again. Between 1 and 2 the records are found in the ends of the
logs at the next start, and those mails are passed over. Between 2 and 3 the position says which mails to mark. A pass
that fails is followed by the same recovery as a crash.

Works on a mailbox, two journals and a position that the script hands in; never imports them.
"""

import itertools
import logging
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from mailer.collect_backlog import Backlog
from mailer.collect_ledger import Journal, Ledger, Mailbox, Position
from mailer.collect_refusals import Refusals
from mailer.errors import ExitCode, MailboxError
from mailer.progress import Mail
from mailer.reading import Reading, read, wants_more

# How a pass can fail over a single mail: the connection breaks, or the server has it for another time, again and again.
PASSING = (ExitCode.UNAVAILABLE, ExitCode.TEMPORARY)

_Batch = list[tuple[int, Reading | None]]  # by UID; None for a mail that the server refused

_log = logging.getLogger(__name__)

# Mails asked for at once; the mailbox fetches them in smaller batches.
_ASKED = 1_000
# A batch is committed at so many mails, or characters of text in them, as one alone may have a million; or after so
# many seconds, as the parts of one may take many commands.
_MAILS = 500
_CHARACTERS = 500_000
_SECONDS = 20.0


class Collector:
    """Reads one mailbox. `keep(name, raw)` saves a mail that cannot be read, durably.

    `progress(done, total)` hears of the mails of a pass: at its beginning and after each batch.
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
        self._careful = 0  # up to this UID mails are asked for one by one: among them one broke the connection
        self._suspect = 0  # the one that was asked for when it broke; whether it is to blame shows with the next one
        self._refusals = Refusals()
        self._unsure = True  # whether something may be logged that the position does not tell of
        self._unmarked = self._ledger.progress.marking
        self._marked = False  # whether the last batch is

    def run_pass(self) -> tuple[int, int]:
        """Take everything that is new; how many records went into each log, success and error."""
        if self._unsure:
            self._ledger.recover()
        self._unsure = True
        self._take_up()
        before = list(self._ledger.counts)
        self._blame()
        refused = [uid for uid, tries in self._ledger.progress.refused.items() if self._refusals.due(tries)]
        if self._refusals.crowded:  # nothing gets on before there are fewer
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
        """Whether the last pass failed over a mail, and the next one may get on."""
        return bool(self._careful and self._unsure)

    @property
    def refused(self) -> int:
        """How many mails the server has refused that are to be tried again."""
        return len(self._ledger.progress.refused)

    def place(self) -> object:
        """How far the passes have come, to be compared with what it was before."""
        return self._ledger.progress.done, self._ledger.progress.refused

    def _take_up(self) -> None:
        """Go on with the mailbox, first of all with what may not be marked yet."""
        if self._backlog.take_up():
            self._unmarked = ()
            self._suspect = self._careful = 0  # which were of another mailbox, as the fragments are
            self._refusals.fragments.clear()
            self._ledger.recover()
        unmarked, self._unmarked = self._unmarked, ()  # if it fails once more, it is given up: reading is what matters
        if unmarked:
            self._mark(unmarked)

    # -- the mails, batch by batch -------------------------------------------------------------------------------------

    def _portions(self, uids: Iterator[int]) -> Iterator[list[int]]:
        """UIDs, ascending, in portions to ask the mailbox for."""
        while portion := list(itertools.islice(uids, 1)):
            if portion[0] > self._careful:
                portion.extend(itertools.islice(uids, _ASKED - 1))
            yield portion

    def _batches(self, asked: Sequence[int]) -> Iterator[tuple[_Batch, int]]:
        """The mails asked for in batches to commit, each with the UID up to which everything is taken care of then."""
        batch: _Batch = []
        size = done = 0
        due = time.monotonic() + _SECONDS
        try:
            for mail in self._mailbox.fetch(asked, wants_more):
                uid, reading = mail.uid, self._read(mail)
                batch.append((uid, reading))
                size, given = size + (len(reading.text) if reading else 0), reading is not None
                del mail, reading  # megabytes, perhaps, that nobody needs while the next ones come
                full = len(batch) >= _MAILS or size > _CHARACTERS or time.monotonic() > due or self._stopping()
                if full and given:  # over one that is not, the connection may have broken: that shows next
                    done = uid
                    yield batch, done
                    batch, size = [], 0
                    due = time.monotonic() + _SECONDS
        except (MailboxError, MemoryError) as failure:
            # Whether the connection or a mail is to blame shows when they are asked for once more, one by one.
            before, self._careful = self._careful, max(self._careful, asked[-1])
            passing = isinstance(failure, MemoryError) or failure.exit_code in PASSING
            if len(asked) == 1 and asked[0] <= before and passing and not self._stopping():
                self._suspect = asked[0]
            if isinstance(failure, MemoryError):
                raise MailboxError("there is too little memory to read the mail", ExitCode.TEMPORARY) from failure
            raise
        if not done or batch:  # those that are not there do not count: a server may have made them up
            yield batch, batch[-1][0] if batch else 0

    def _blame(self) -> None:
        """Count the mail that the last pass failed over as refused, if the server gives others now."""
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
        """What a mail says; None for one that the server refused, or refused to give more of."""
        if mail.raw is None:
            return None
        reading = read(mail.raw, complete=mail.complete)
        if reading.reason == "unreadable":
            self._keep(f"{self._ledger.progress.uidvalidity}-{mail.uid}.eml", mail.raw)
        if mail.refused or mail.cut:
            reading = reading._replace(truncated=True, defects=(*reading.defects, "missing"))
        return None if mail.refused and self._refusals.wait_for_more(mail.uid, reading) else reading

    def _commit(self, batch: _Batch, done: int, gone: Sequence[int] = (), *, to_blame: bool = False) -> None:
        """Log the mails, save the position, mark them: in that order."""
        progress, fragments = self._ledger.progress, self._refusals.fragments
        all_refused = batch and not any(reading or uid in fragments for uid, reading in batch)
        # It is the mails' fault only if there are others that the server gives.
        if all_refused and not to_blame and not self._mailbox.gives_others({*dict(batch), *progress.refused}):
            raise MailboxError("the server refuses all mails that it is asked for")
        refused = {uid: tries for uid, tries in progress.refused.items() if uid not in gone}
        readings = [(uid, reading or self._refusals.count(uid, refused)) for uid, reading in batch]
        readings += [(uid, fragments.get(uid)) for uid in gone]
        marking = tuple(uid for uid, reading in batch if reading)
        for uid in marking:
            refused.pop(uid, None)
        progress = replace(progress, done=max(progress.done, done), refused=refused, marking=marking)
        recorded = [(uid, reading) for uid, reading in readings if reading]
        self._ledger.record(recorded, progress)
        for uid, _ in recorded:
            fragments.pop(uid, None)
        self._unmarked = marking
        self._mark(marking)
        self._unmarked = ()

    def _mark(self, uids: Sequence[int]) -> None:
        self._marked = False
        self._marked = self._mailbox.mark(uids)
