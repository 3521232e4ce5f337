"""Durable unique ticket numbers, reserved in blocks from SQLite in the state folder.

A number is handed out only from a block whose end is on disk, so no crash, restart or second process repeats one. After
a crash the rest of the block stays unused: gaps happen, repetitions never. Blocks start small (small gaps) and grow as
long as each is soon used up (few flushes). Raises StateError for a folder that is read-only, full or damaged. The file
is put in place with its table in it: an empty one is damaged, too, and not taken for a first start.
"""

import contextlib
import logging
import math
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mailer import disk
from mailer.errors import StateError

DATABASE = "tickets.db"
_FIRST_BLOCK = 10
_LARGEST_BLOCK = 10_000
_SOON = 10.0  # seconds
_LOCK_WAIT = 10.0  # seconds to wait for another process on the same folder, which holds the lock for one flush
_LOCK_WAIT_AT_END = 0.5  # seconds: a process that ends has little time, and can do without
_LOST = (
    "so what it knew of tickets is lost: put a backup in its place, or delete it and set TICKET_START above all "
    "tickets that were given"
)
_TABLE = "CREATE TABLE IF NOT EXISTS reserved (below INTEGER NOT NULL)"
_HIGHEST = 10**18 - 1  # a ticket number has at most 18 digits

_log = logging.getLogger(__name__)


def _nothing() -> None:
    """Do nothing: nobody needs to know of a wait."""


class Sequence:
    """Numbers n ≥ start with n ≡ offset (mod step); `on_wait` is called before each wait for the disk."""

    def __init__(
        self, state_dir: Path, *, start: int, step: int, offset: int, on_wait: Callable[[], None] = _nothing
    ) -> None:
        self._path = state_dir / DATABASE
        self._first = start + (offset - start) % step
        self._step = step
        self._on_wait = on_wait
        self._lock = threading.Lock()
        self._block = 0
        self._reserved_at = 0.0
        self._next = self._end = 0
        self._warned = False
        self._failure = StateError("never tried")
        self._failed = -math.inf  # when that was (monotonic)
        with self._translated():  # an unusable folder is found before anything is served
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._path.exists():
                self._make()
            _require_content(self._path)
        with self._transaction() as database:
            self._require_sound(database)
            database.execute(_TABLE)

    def next(self) -> int:
        """A number that was never given before; raises StateError."""
        asked = time.monotonic()
        if not self._lock.acquire(blocking=False):
            self._on_wait()  # another thread may be reserving
            self._lock.acquire()
        try:
            if self._next >= self._end:
                if self._failed > asked:  # in another thread, while this one waited: it does not wait that long again
                    raise StateError(str(self._failure))
                self._try_to_reserve()
            number = self._next
            self._next += self._step
        finally:
            self._lock.release()
        return number

    def close(self) -> None:
        """Give back what is left of the block, if possible, and if no other process has reserved beyond it."""
        if not self._lock.acquire(timeout=_LOCK_WAIT_AT_END):
            return
        with contextlib.suppress(StateError):  # then there is a gap, as after a crash
            if self._end:
                with self._transaction(wait=_LOCK_WAIT_AT_END) as database:  # the OR mends an older file
                    words = "UPDATE reserved SET below = :next WHERE below = :end OR below < :next"
                    database.execute(words, {"next": self._next, "end": self._end})
                self._end = self._next
        self._lock.release()

    def _try_to_reserve(self) -> None:
        try:
            self._reserve()
        except StateError as failure:
            self._failure, self._failed = failure, time.monotonic()
            raise

    def _reserve(self) -> None:
        self._on_wait()
        soon = self._block and time.monotonic() - self._reserved_at < _SOON
        block = min(2 * self._block, _LARGEST_BLOCK) if soon else _FIRST_BLOCK
        with self._transaction() as database:
            below = self._at_least_as_before(self._reserved(database))
            first = max(self._first, below + (self._first - below) % self._step)
            end = first + block * self._step
            if end > _HIGHEST:
                raise StateError(f"{self._path}: there are no more ticket numbers of 18 digits")
            database.execute("DELETE FROM reserved")
            database.execute("INSERT INTO reserved VALUES (?)", (end,))
        self._next, self._end = first, end
        self._block, self._reserved_at = block, time.monotonic()

    def _require_sound(self, database: sqlite3.Connection) -> None:
        """Raise StateError for a file that is cut off (SQLite reads the missing end as zeros) or otherwise damaged."""
        (page_size,) = database.execute("PRAGMA page_size").fetchone()
        (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok" or self._path.stat().st_size % page_size:
            raise StateError(f"{self._path}: is damaged or cut off, {_LOST}")

    def _reserved(self, database: sqlite3.Connection) -> int:
        """The number below which all are reserved, according to the file."""
        rows = [below for (below,) in database.execute("SELECT below FROM reserved")]
        if not all(isinstance(below, int) for below in rows):
            raise StateError(f"{self._path}: is damaged, it holds {rows!r} where a number should be")
        return max(rows, default=0)

    def _at_least_as_before(self, below: int) -> int:
        """`below`, or what this process has reserved if that is more: an older file may have been put in place."""
        if below < self._end and not self._warned:
            self._warned = True
            words = "%s: holds less than was reserved here, as an older copy of it does; numbers go on above that"
            _log.warning(words, self._path)
        return max(below, self._end)

    def _make(self) -> None:
        """Make the file under another name and then give it its own, unless another server was quicker."""
        handle, name = tempfile.mkstemp(".new", "tickets-", self._path.parent)
        os.close(handle)
        try:
            with self._transaction(Path(name)) as database:
                database.execute(_TABLE)
            with contextlib.suppress(OSError):  # it exists, or there are no hard links: SQLite makes it then
                self._path.hardlink_to(name)
        finally:
            Path(name).unlink()

    @contextlib.contextmanager
    def _transaction(self, file: Path | None = None, wait: float | None = None) -> Iterator[sqlite3.Connection]:
        """A transaction: on disk when the block ends without an error, undone otherwise."""
        with self._translated():
            database = sqlite3.connect(file or self._path, timeout=wait or _LOCK_WAIT, isolation_level=None)
            with contextlib.closing(database):
                # FULL does not flush the journal's removal: after a power cut the journal could undo a commit.
                database.execute("PRAGMA synchronous = EXTRA")
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, UnicodeError) as failure:  # UnicodeError: from damaged text in an error's words
            words = f"{self._path}: ticket numbers cannot be reserved ({failure})"
            raise StateError(words, passing=disk.may_pass(failure, self._path.parent)) from failure


def check(state_dir: Path) -> None:
    """Raise StateError when the file exists and cannot be used; changes nothing."""
    file = state_dir / DATABASE
    disk.check_database(file, f", {_LOST}")
    _require_content(file)


def _require_content(file: Path) -> None:
    if file.exists() and not file.stat().st_size:
        raise StateError(f"{file}: is empty, {_LOST}")
