"""What of a mailbox is still to be taken: the unseen of its beginning, and all that came later.

Goes on behind the saved position, or begins with a mailbox that is new to it, was made anew, or was set back: then
what is unseen is noted before anything of it is read, without what is in logs that outlived a lost state. Called by
`collect`.
"""

import itertools
import logging
from array import array
from bisect import bisect
from collections.abc import Iterator, Sequence

from mailer.collect_ledger import Ledger, Mailbox, identity_of
from mailer.collect_refusals import NOTHING
from mailer.progress import Selected, unpack
from mailer.reading import read

_log = logging.getLogger("mailer.collect")

# Mails whose beginnings are asked for at once.
_ASKED = 1_000


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
        """All of it is taken care of."""
        self._pending = array("I")

    def _begin(self, selected: Selected) -> None:
        """Note what is unseen now, before anything of it is read."""
        unseen = [uid for uid in self._mailbox.unseen() if uid < selected.next_uid]
        known, marking = self._known(selected.uidvalidity, unseen)
        pending = array("I", (uid for uid in unseen if uid not in known))
        self._ledger.begin(selected, pending, marking)
        self._pending = pending

    def _known(self, uidvalidity: int, unseen: Sequence[int]) -> tuple[set[int], tuple[int, ...]]:
        """The unseen mails that are in logs which outlived a lost state: not to be repeated; which of them to mark."""
        logged = self._ledger.outlived(uidvalidity, unseen)
        # Those that the server would not give are not asked for again: the connection may break over them.
        not_given = {uid for uid, identities in logged.items() if identity_of(NOTHING) in identities}
        given: list[int] = []
        asked = sorted(logged.keys() - not_given)
        for start in range(0, len(asked), _ASKED):
            mails = self._mailbox.fetch(asked[start : start + _ASKED], None)
            # The numbers may also be those of another mailbox that was logged here.
            given += [mail.uid for mail in mails if mail.raw and identity_of(read(mail.raw)) in logged[mail.uid]]
        return not_given.union(given), tuple(given)
