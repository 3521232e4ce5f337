"""One collector at a time writes to a log: those of several mailboxes, with state folders of their own, may share it.

Without this one could take what another is just writing for torn, and cut it off. Called by `journal`.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from mailer.errors import StateError

_WAIT = 10.0  # seconds: another process holds the lock for one batch

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(log: Path) -> Iterator[None]:
    """While nobody else is so with this log; raises StateError (`passing`) when somebody is for too long.

    The lock is SQLite's, which ends with the process, on an empty file of its own: a log can be renamed meanwhile.
    """
    with contextlib.ExitStack() as held:
        try:
            place = log.resolve()
            lock = sqlite3.connect(place.with_name(f".{place.name}.lock"), timeout=_WAIT, isolation_level=None)
            held.callback(lock.close)
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as failure:
            if getattr(failure, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise StateError(f"{log}: another process keeps it locked", passing=True) from None
            _log.debug("%s: it is not locked: %s", log, failure)  # better that than no record
        yield
