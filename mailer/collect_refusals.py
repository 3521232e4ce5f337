"""Mails that the server refuses, or refuses to give more of: tried again, and at last recorded as far as they came.

The numbers of tries are in the saved progress, and outlive the process; the fragments are not, and are fetched again.
"""

import logging
import time
from collections.abc import Callable

from mailer.errors import MailboxError
from mailer.progress import Tries
from mailer.reading import UNREADABLE, Reading

# A mail that the server refuses by itself is tried so many times before it is recorded as unreadable, after so many
# seconds and then after twice as many each time, which is a minute in all: a server's short trouble costs no text.
_TRIES = 5
_PAUSE = 4.0
# With so many refused mails at once it is not the mails that are at fault. So many fragments are kept until there is
# more of the mail, further ones are recorded at once; and so many refusals are told of.
_MOST, _MOST_FRAGMENTS, _MOST_TOLD = 10_000, 20, 20

_NOTHING = UNREADABLE._replace(defects=("missing",))

_log = logging.getLogger("mailer.collect")


class Refusals:
    """What is known of refused mails besides the tries: `fragments`, by UID, say what was given of them.

    `crowded`: the last one could not be added to them, as there are too many.
    `clock` gives Unix time: the tries may be those of processes, of which each makes one pass.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.fragments: dict[int, Reading] = {}
        self.crowded = False
        self._clock = clock

    def due(self, tries: Tries) -> bool:
        """Whether it is time to try a refused mail again; it is after the clock was set back."""
        return not 0 <= self._clock() - tries.last < _PAUSE * 2 ** (tries.number - 1)

    def wait_for_more(self, uid: int, fragment: Reading) -> bool:
        """Keep a fragment until there is more of the mail; False where there are too many, and it is to be recorded."""
        self.fragments.pop(uid, None)
        if len(self.fragments) >= _MOST_FRAGMENTS:
            return False
        self.fragments[uid] = fragment
        return True

    def count(self, uid: int, refused: dict[int, Tries]) -> Reading | None:
        """Count one more try in `refused`; what to record of the mail: nothing yet, while it is to be tried again."""
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
