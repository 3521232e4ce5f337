"""Which mails of a mailbox are still to be taken: those that were unseen at the beginning, and all that came later.

Goes on behind the saved position, or begins with a mailbox that is new, was made anew, or was set back: then its
unseen mails are noted before any of them is read. Called by `collect`.
"""

import itertools
import logging
from array import array
from bisect import bisect
from collections.abc import Iterator

from mailer.collect.ledger import Ledger, Mailbox
from mailer.progress import Selected, unpack

_log = logging.getLogger("mailer.collect")


class Backlog:
    """The mails still to be taken from the mailbox, according to the progress in the ledger."""

    def __init__(self, mailbox: Mailbox, ledger: Ledger) -> None:
        self._mailbox = mailbox
        self._ledger = ledger
        self._pending = unpack(ledger.progress.pending)
        self._told: Selected | None = None  # what the server said last, until it has been acted on

    def take_up(self) -> bool:
        """Open the mailbox; return whether it was made anew or set back, so that the progress begins anew."""
        selected = self._mailbox.open()
        if self._told and not selected.told and self._told.uidvalidity == selected.uidvalidity:
            selected = self._told
        self._told = selected
        progress = self._ledger.progress
        made_anew = progress.uidvalidity != selected.uidvalidity
        # As after it was restored from a backup: new mails get the UIDs of mails that it has lost.
        set_back = selected.told and selected.next_uid < max(progress.next_uid, progress.done + 1)
        if made_anew and progress.uidvalidity:
            _log.warning("the mailbox was made anew (UIDVALIDITY changed): taking what is unseen")
        elif set_back and not made_anew:
            _log.warning("the mailbox was set back (its next UID is lower than before): taking what is unseen")
        if made_anew or set_back:
            self._begin(selected)
        self._told = None  # it has been acted on
        return made_anew or set_back

    def left(self) -> tuple[int, Iterator[int]]:
        """How many mails are still to be taken, and their UIDs, ascending."""
        progress = self._ledger.progress
        done = bisect(self._pending, progress.done)
        later = self._mailbox.since(max(progress.next_uid, progress.done + 1))
        pending = itertools.islice(self._pending, done, None)
        return len(self._pending) - done + len(later), itertools.chain(pending, later)

    def end(self) -> None:
        """Forget the pending mails: each has been taken, or is not there any more."""
        self._pending = array("I")

    def _begin(self, selected: Selected) -> None:
        """Note the mails that are unseen now, before any of them is read."""
        pending = array("I", (uid for uid in self._mailbox.unseen() if uid < selected.next_uid))
        self._ledger.begin(selected, pending)
        self._pending = pending
