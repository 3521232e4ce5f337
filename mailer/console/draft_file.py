"""The files of drafts: where they are, and how they are opened, locked against other clients, and read.

Called by `draft` and `conversation`.
"""

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be renamed, and so not taken
    fcntl = None  # type: ignore[assignment]

from mailer.protocol import Request

LOCKS = fcntl is not None  # whether drafts are locked, and can be renamed while they are open
_NAME = re.compile(r"draft-[0-9]+(?:-[0-9a-f]+)?")


def state_folder() -> Path:
    """The person's own folder for state (XDG Base Directory Specification), not that of the scripts."""
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local").expanduser() / "mailer"
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (given if given.is_absolute() else Path("~/.local/state").expanduser()) / "mailer"


def is_waiting(path: Path) -> bool:
    """Whether a file is a draft whose client is gone."""
    try:
        if not _NAME.fullmatch(path.name):
            return False
        with open_draft(path) as file:
            return lock(file)
    except OSError:
        return False


def read(path: Path) -> tuple[Request, datetime, bool]:
    """A draft, when it was last added to, and whether it may have been sent; raises OSError.

    A file without a valid first line is taken for text as a whole.
    """
    content = path.read_bytes().decode("utf-8", "replace")
    written = datetime.fromtimestamp(path.stat().st_mtime)
    header, _newline, text = content.partition("\n")
    try:
        known = json.loads(header)
        name = known["id"] and str(known["id"])
        return Request(str(known["email"]), text, name), written, bool(known.get("doubtful"))
    except (ValueError, LookupError, TypeError):
        return Request("", content, None), written, False


def open_draft(path: Path, flags: int = 0) -> BinaryIO:
    """Open a draft to append to it, or create it if the flags say so; raises OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0) | flags, 0o600), "ab")


def lock(file: BinaryIO) -> bool:
    """Lock a draft against other clients until it is closed; False when one of them has locked it."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # the file system has no locks
    return True


def encoded(text: str) -> bytes:
    """A text as it is in the file; half a surrogate pair, which no file can hold, becomes a question mark."""
    return text.encode("utf-8", "replace")
