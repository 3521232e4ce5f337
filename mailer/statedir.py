"""The state folder, `STATE_DIR`: made before anything is kept in it, durably and for its owner alone.

Whatever Mailer makes from then on is its owner's alone as well. Warns of a folder that others can write to, as they
could have tickets numbered twice and mail logged twice. Called by `desk` and `mailroom`.
"""

import contextlib
import logging
import os
import stat
from pathlib import Path

from mailer.errors import StateError

_MAGIC = b"SQLite format 3\0"

_log = logging.getLogger(__name__)


def prepare(folder: Path) -> None:
    """Make the folder unless it is there, and what is made from now on private (umask 077); raises StateError."""
    os.umask(0o077)
    try:
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as failure:
        raise StateError(f"STATE_DIR: {folder} cannot be used ({failure.strerror or failure})") from failure
    for place in made or [folder]:  # it may have been made just before a kill
        with contextlib.suppress(OSError):  # a parent that cannot be read, like systemd's, was not made here
            _make_names_durable(place.parent)
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


def _make_names_durable(folder: Path) -> None:
    """Without this a power cut may take a folder that was made in this one, with all that is in it."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
