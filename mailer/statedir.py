"""The state folder, `STATE_DIR`: made before anything is kept in it, durably and for its owner alone.

Whatever Mailer makes from then on is its owner's alone as well. Warns of a folder that others can write to, as they
could have tickets numbered twice and mail logged twice. Called by `desk` and `mailroom`; what it knows of disks, by
those who write to one.
"""

import contextlib
import errno
import logging
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

from mailer.errors import StateError

_MAGIC = b"SQLite format 3\0"
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # the disk, or the owner's part of it

_log = logging.getLogger(__name__)


def prepare(folder: Path) -> None:
    """Make the folder unless it is there, and what is made from now on private (umask 077); raises StateError."""
    os.umask(0o077)
    try:
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as failure:
        raise StateError(
            f"STATE_DIR: {folder} cannot be used ({failure.strerror or failure})", passing=is_full(failure, folder)
        ) from failure
    for place in made or [folder]:  # it may have been made just before a kill
        with contextlib.suppress(OSError):  # a parent that cannot be read, like systemd's, was not made here
            make_names_durable(place.parent)
    if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
        _log.warning("%s can be written to by others: chmod go-w %s", folder, folder)


def check(file: Path) -> None:
    """Raise StateError when a database that is there cannot be used; changes nothing."""
    try:
        with file.open("r+b") as database:
            if database.read(len(_MAGIC)) not in (b"", _MAGIC):
                raise StateError(f"{file}: is no database of Mailer's")
    except FileNotFoundError:
        return
    except OSError as failure:
        raise StateError(f"{file}: {failure.strerror or failure}") from failure


def is_full(failure: Exception, folder: Path) -> bool:
    """Whether it failed because the folder's disk has no room, or no file more, which passes when some is freed."""
    if isinstance(failure, OSError):
        return failure.errno in _FULL
    code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CANTOPEN and hasattr(os, "statvfs"):  # SQLite does not say why
        with contextlib.suppress(OSError):
            disk = os.statvfs(folder)
            return disk.f_files > 0 and not disk.f_favail  # some count no files at all
    return code == sqlite3.SQLITE_FULL


def make_names_durable(folder: Path, fsync: Callable[[int], None] = os.fsync) -> None:
    """Have the names of files and folders made in this one outlast a power cut, where folders can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            fsync(opened)
        finally:
            os.close(opened)
