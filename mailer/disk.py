"""What whoever keeps something on a disk has to know: whether it is full, when a new name on it is there to stay, and
whether a file is a database at all.

Called by `journal`, `position`, `sequence`, `statedir` and `mailroom`.
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from mailer.errors import StateError

_MAGIC = b"SQLite format 3\0"
# The disk is full, or the owner's part of it, or has trouble; or the system has nothing left for one more open file.
_PASSING = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def may_pass(failure: Exception, folder: Path) -> bool:
    """Whether it failed because the folder's disk has trouble, no room, or no file more, or the system nothing left.

    Or because somebody else holds the database.
    """
    if isinstance(failure, OSError):
        return failure.errno in _PASSING
    code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CANTOPEN and hasattr(os, "statvfs"):  # SQLite does not say why
        with contextlib.suppress(OSError):
            disk = os.statvfs(folder)
            return disk.f_files > 0 and not disk.f_favail  # some count no files at all
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY)


def make_names_durable(folder: Path, fsync: Callable[[int], None] = os.fsync) -> None:
    """Have the names of files and folders made in this one outlast a power cut, where folders can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            fsync(opened)
        finally:
            os.close(opened)


def check_database(file: Path, advice: str) -> None:
    """Raise StateError when a database that is there cannot be used, advice with it if it is none; changes nothing."""
    try:
        with file.open("r+b") as database:
            if database.read(len(_MAGIC)) not in (b"", _MAGIC):
                raise StateError(f"{file}: is no database of Mailer's{advice}")
    except FileNotFoundError:
        return
    except OSError as failure:
        raise StateError(f"{file}: {failure.strerror or failure}") from failure
