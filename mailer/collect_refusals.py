"""Mails that the server refuses, or refuses to give more of: tried again, and at last recorded as far as they came.

The numbers of tries are in the saved progress, and outlive the process; the fragments are not, and are fetched again.
"""

import logging

from mailer.errors import MailboxError
from mailer.reading import UNREADABLE, Reading

# A mail that the server refuses by itself is tried again in this many passes before it is recorded as unreadable.
_TRIES = 5
# With so many refused mails at once it is not the mails that are at fault; and so many fragments are kept.
_MOST = 20

_log = logging.getLogger("mailer.collect")


class Refusals:
    """What is known of refused mails besides the number of tries: `fragments`, by UID, say what was given of them."""

    def __init__(self) -> None:
        self.fragments: dict[int, Reading] = {}

    def wait_for_more(self, uid: int, fragment: Reading) -> bool:
        """Keep a fragment until there is more of the mail; False where there are too many, and it is to be recorded."""
        self.fragments.pop(uid, None)
        if len(self.fragments) >= _MOST:
            return False
        self.fragments[uid] = fragment
        return True

    def count(self, uid: int, refused: dict[int, int]) -> Reading | None:
        """Count one more try in `refused`; what to record of the mail: nothing yet, while it is to be tried again."""
        tries = refused.pop(uid, 0) + 1
        if tries == 1 and len(refused) >= _MOST and uid not in self.fragments:
            raise MailboxError("the server refuses one mail after the other")
        if tries == 1:
            what = "more of the mail" if uid in self.fragments else "the mail"
            _log.warning("the server refuses %s with UID %d and gives others: it is tried again", what, uid)
        if tries < _TRIES:
            refused[uid] = tries
            return None
        _log.warning("the mail with UID %d was refused %d times: recorded as far as it was given", uid, tries)
        return self.fragments.get(uid, UNREADABLE)
