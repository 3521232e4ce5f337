"""What of a mailbox is still to be taken: the unseen of its beginning, and all that came later.

Goes on behind the saved position, or begins with a mailbox that is new to it, was made anew, or was set back: then
what is unseen is noted before anything of it is read. Called by `collect`.
"""

import itertools
import logging
from array import array
from bisect import bisect
from collections.abc import Iterator

from mailer.collect_ledger import Ledger, Mailbox
from mailer.progress import Selected, unpack

_log = logging.getLogger("mailer.collect")


class Backlog:
    """What there is to take from the mailbox, by the progress in the ledger."""

    def __init__(self, mailbox: Mailbox, ledger: Ledger) -> None:
        self._mailbox = mailbox
        self._ledger = ledger
        self._pending = unpack(ledger.progress.pending)
        self._told: Selected | None = None  # what the server said, as long as nothing has come of it

    def take_up(self) -> bool:
        """Open the mailbox; whether it is another one than the progress was of, which begins anew then."""
        selected = self._mailbox.open()
        if self._told and not selected.told and self._told.uidvalidity == selected.uidvalidity:
            selected = self._told
        self._told = selected
        progress = self._ledger.progress
        made_anew = progress.uidvalidity != selected.uidvalidity
        # As when it was restored from a backup: it gives new mails the numbers of others, which it has lost.
        set_back = selected.told and selected.next_uid < max(progress.next_uid, progress.done + 1)
        if made_anew and progress.uidvalidity:
            _log.warning("the mailbox was made anew (UIDVALIDITY changed): taking what is unseen")
        elif set_back and not made_anew:
            _log.warning("the mailbox was set back (its next UID is lower than before): taking what is unseen")
        if made_anew or set_back:
            self._begin(selected)
        self._told = None  # it is known, and saved
        return made_anew or set_back

    def left(self) -> tuple[int, Iterator[int]]:
        """All that is to be taken care of: how many mails, and their UIDs, ascending."""
        progress = self._ledger.progress
        done = bisect(self._pending, progress.done)
        later = self._mailbox.since(max(progress.next_uid, progress.done + 1))
        pending = itertools.islice(self._pending, done, None)
        return len(self._pending) - done + len(later), itertools.chain(pending, later)

    def end(self) -> None:
        """All of it is taken care of, or is not there any more."""
        self._pending = array("I")

    def _begin(self, selected: Selected) -> None:
        """Note what is unseen now, before anything of it is read."""
        pending = array("I", (uid for uid in self._mailbox.unseen() if uid < selected.next_uid))
        self._ledger.begin(selected, pending)
        self._pending = pending
