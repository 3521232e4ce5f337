"""Lets only one collector write to a log: records name no mailbox, so after a crash two could not tell theirs apart.

Called by `mailroom`.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from mailer.errors import StateError

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def only_writer(log: Path) -> Iterator[None]:
    """Keep the collectors of other mailboxes from this log; raises StateError (`passing`) when one of them has it.

    The lock is SQLite's, which ends with the process. It has a file of its own, because the log may be renamed.
    """
    place = log.resolve()
    with contextlib.ExitStack() as held:
        try:
            lock = sqlite3.connect(place.with_name(f".{place.name}.lock"), timeout=0, isolation_level=None)
            held.callback(lock.close)
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as failure:
            if getattr(failure, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                text = f"another collector writes to {log}: each mailbox has to have logs of its own"
                raise StateError(text, passing=True) from None
            _log.warning("%s cannot be locked (%s): no other mailbox may have the same log", log, failure)
        yield
