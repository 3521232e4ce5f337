"""Mails that the server refuses in whole or in part: tried again, and at last recorded as far as they came.

The numbers of tries are saved with the progress and outlive the process; the fragments do not, and are fetched again.
"""

import logging
import time
from collections.abc import Callable

from mailer.errors import MailboxError
from mailer.progress import Tries
from mailer.reading import UNREADABLE, Reading

# A mail that the server refuses while it gives others is tried so many times before it is recorded as far as it came.
# The first pause has so many seconds, each next one twice as many, a minute in all: short trouble costs no text.
_TRIES = 5
_PAUSE = 4.0
# With more refused mails than this at once, the server is at fault and not the mails. So many fragments are kept for
# another try, and further ones are recorded at once. No new refusal is logged while there are so many.
_MOST, _MOST_FRAGMENTS, _MOST_TOLD = 10_000, 20, 20

_NOTHING = UNREADABLE._replace(defects=("missing",))

_log = logging.getLogger("mailer.collect")


class Refusals:
    """What is known of refused mails besides the tries: `fragments`, by UID, are the readings of what was given.

    `crowded`: too many mails are refused, so that the last one could not be added.
    `clock` gives Unix time, as the tries before may be those of other processes, each of which made one pass.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.fragments: dict[int, Reading] = {}
        self.crowded = False
        self._clock = clock

    def due(self, tries: Tries) -> bool:
        """Whether it is time to try a refused mail again; it always is when the clock was set back."""
        return not 0 <= self._clock() - tries.last < _PAUSE * 2 ** (tries.number - 1)

    def wait_for_more(self, uid: int, fragment: Reading) -> bool:
        """Keep a fragment for another try; False if too many are kept already, so that it has to be recorded now."""
        self.fragments.pop(uid, None)
        if len(self.fragments) >= _MOST_FRAGMENTS:
            return False
        self.fragments[uid] = fragment
        return True

    def count(self, uid: int, refused: dict[int, Tries]) -> Reading | None:
        """Count one more try in `refused`; return what to record of the mail, or None if it is to be tried again."""
        tries = refused.pop(uid).number + 1 if uid in refused else 1
        self.crowded = tries == 1 and len(refused) >= _MOST
        if self.crowded:
            raise MailboxError("the server refuses one mail after the other")
        if tries == 1 and len(refused) < _MOST_TOLD:
            what = "more of the mail" if uid in self.fragments else "the mail"
            _log.warning("the server refuses %s with UID %d and gives others: it is tried again", what, uid)
        if tries < _TRIES:
            refused[uid] = Tries(tries, self._clock())
            return None
        _log.warning("the mail with UID %d was refused %d times: recorded as far as it was given", uid, tries)
        return self.fragments.get(uid, _NOTHING)
