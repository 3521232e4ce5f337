"""The position in each mailbox, durable in SQLite, and the lock that keeps a second collector away.

Promises that a saved position is on disk when `begin` or `save` returns, and that no other collector works with the
same state folder while this object lives: SQLite's exclusive lock ends with the process, however that ends. Raises
`StateError` for a folder that is in use or full (`passing`) or read-only, and for a damaged database.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from mailer.disk import may_pass
from mailer.errors import StateError
from mailer.progress import Mark, Progress, Tries, pack, unpack

DATABASE = "collector.db"
ADVICE = "; put a backup in its place, or delete it: what is unread and in no log is taken then"
# The pending set of a first pass may hold a million mails: it has a table of its own, written once.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS start (mailbox TEXT PRIMARY KEY, uidvalidity INTEGER, next_uid INTEGER, pending TEXT);
CREATE TABLE IF NOT EXISTS progress (mailbox TEXT PRIMARY KEY, done INTEGER, refused TEXT, marking TEXT, marks TEXT);
"""
_LOAD = """
SELECT uidvalidity, next_uid, pending, done, refused, marking, marks
FROM start JOIN progress USING (mailbox) WHERE mailbox = ?
"""


class Position:
    """The saved position in one mailbox; the name `mailbox` tells it from others in the same state folder."""

    def __init__(self, folder: Path, mailbox: str) -> None:
        self._file = folder / DATABASE
        self._mailbox = mailbox
        with self._translated():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._file, timeout=0, isolation_level=None)
            with contextlib.ExitStack() as failing:
                failing.callback(self._database.close)
                self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
                self._database.execute("PRAGMA journal_mode=WAL")
                (found,) = self._database.execute("PRAGMA integrity_check(1)").fetchone()
                if found != "ok":  # a missing end of the file would be read as zeros
                    raise sqlite3.DatabaseError(found)
                self._database.execute("PRAGMA synchronous=FULL")
                self._database.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} COMMIT")
                failing.pop_all()

    def load(self) -> Progress:
        """The progress that was saved last, or an empty one."""
        with self._translated():
            row = self._database.execute(_LOAD, (self._mailbox,)).fetchone()
            if row is None:
                return Progress()
            uidvalidity, next_uid, pending, done, refused, marking, marks = row
            return Progress(
                uidvalidity, next_uid, pending, done,
                refused={int(uid): Tries(int(tries), float(at)) for uid, (tries, at) in json.loads(refused).items()},
                marking=tuple(unpack(marking)),
                marks=tuple(Mark(*map(int, mark)) for mark in json.loads(marks)),
            )

    def others(self) -> list[str]:
        """The names of the other mailboxes with a saved position, if this one has none."""
        with self._translated():
            names = [name for (name,) in self._database.execute("SELECT mailbox FROM start ORDER BY mailbox")]
        return [] if self._mailbox in names else names

    def begin(self, progress: Progress) -> None:
        """Save a position in a mailbox that is read for the first time, or that was made anew or set back."""
        row = (self._mailbox, progress.uidvalidity, progress.next_uid, progress.pending)
        with self._translated(), self._transaction():
            self._database.execute("REPLACE INTO start VALUES (?, ?, ?, ?)", row)
            self._save(progress)

    def save(self, progress: Progress) -> None:
        """Save what may change after `begin`."""
        with self._translated(), self._transaction():
            self._save(progress)

    def close(self) -> None:
        """Let another collector have the folder."""
        self._database.close()

    def _save(self, progress: Progress) -> None:
        marks = json.dumps([list(mark) for mark in progress.marks])
        refused = json.dumps(dict(progress.refused))
        row = (self._mailbox, progress.done, refused, pack(progress.marking), marks)
        self._database.execute("REPLACE INTO progress VALUES (?, ?, ?, ?, ?)", row)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # a full disk may have rolled it back already
                self._database.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as failure:
            if getattr(failure, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StateError(f"another collector is running with {self._file.parent}", passing=True) from None
            raise self._unusable(failure) from failure
        except (OSError, ValueError, TypeError, AttributeError) as failure:  # no folder, or a damaged row
            raise self._unusable(failure) from failure

    def _unusable(self, failure: Exception) -> StateError:
        text = f"{self._file}: {' '.join(str(failure).split())}"  # SQLite may tell its findings in several lines
        if type(failure) is sqlite3.DatabaseError:
            text += ADVICE
        return StateError(text, passing=may_pass(failure, self._file.parent))
