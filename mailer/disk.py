"""What modules that keep files need: whether a failure may pass, how to make a new name durable, and whether a file
is a database.

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
# The disk or the owner's quota is full, or the disk has trouble; or the system has no file descriptor or memory left.
_PASSING = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def may_pass(failure: Exception, folder: Path) -> bool:
    """Whether a failure may pass by itself: the folder's disk has trouble or no room, or the system no resources left.

    The same is true when another process holds the database.
    """
    if isinstance(failure, OSError):
        return failure.errno in _PASSING
    code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CANTOPEN and hasattr(os, "statvfs"):  # SQLite does not say why: perhaps no inode is left
        with contextlib.suppress(OSError):
            disk = os.statvfs(folder)
            return disk.f_files > 0 and not disk.f_favail  # some file systems count no files
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY)


def make_names_durable(folder: Path, fsync: Callable[[int], None] = os.fsync) -> None:
    """Make the names of new files and folders in this one outlast a power cut, where the system can open folders."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            fsync(opened)
        finally:
            os.close(opened)


def check_database(file: Path, advice: str) -> None:
    """Raise StateError when an existing file cannot be used, or, with `advice`, is no database; changes nothing."""
    try:
        with file.open("r+b") as database:
            if database.read(len(_MAGIC)) not in (b"", _MAGIC):
                raise StateError(f"{file}: is no database of Mailer's{advice}")
    except FileNotFoundError:
        return
    except OSError as failure:
        raise StateError(f"{file}: {failure.strerror or failure}") from failure
