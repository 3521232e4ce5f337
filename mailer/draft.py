"""Drafts: a message that was typed and not yet sent, in a private file, so that it is never lost.

Each running client writes a file of its own, line by line as they are typed: a line of JSON with the address, the
request's id, and whether it may have been sent, then the text as it is. A file whose client is gone is a waiting
draft. A folder that cannot be used costs the draft and never the message: `trouble` then says why. Called by
`conversation` and `form`.
"""

import json
import os
import re
import secrets
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from mailer.protocol import Request

_NAME = re.compile(r"draft-([0-9]+)(?:-[0-9a-f]+)?")


def state_folder() -> Path:
    """The person's own folder for state (XDG Base Directory Specification), never the one of the scripts."""
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local").expanduser() / "mailer"
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (given if given.is_absolute() else Path("~/.local/state").expanduser()) / "mailer"


class Draft:
    """The draft of this client: `write` the whole, `add` a line, `discard` when it is sent."""

    def __init__(self) -> None:
        self.trouble = ""
        self.written = False  # whether there is a text worth keeping
        self.doubtful = False  # whether it may have been sent
        self._file: BinaryIO | None = None
        try:
            self.folder = state_folder()
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (OSError, RuntimeError) as wrong:  # RuntimeError: there is no home
            self.trouble = str(wrong)
        else:
            # In a container every client may be process 1: the rest of the name keeps apart what different ones wrote.
            self.path = self.folder / f"draft-{os.getpid()}-{secrets.token_hex(4)}"

    def write(self, request: Request) -> None:
        """Replace the draft by this request, in one step."""
        header = json.dumps({"email": request.email, "id": request.id, "doubtful": self.doubtful}) + "\n"
        self.written = bool(request.message.strip())
        if self.trouble:
            return
        new = self.path.with_name(self.path.name.replace("draft", "new"))
        try:
            self.close()
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(_bytes(header + request.message))
            new.replace(self.path)
            self._file = self.path.open("ab")
        except OSError as wrong:
            self.trouble = str(wrong)
            with suppress(OSError):
                new.unlink(missing_ok=True)

    def add(self, text: str) -> None:
        """Append to the text that was written; the file keeps it even if this process is killed."""
        self.written = True
        if self._file is None or self.trouble:
            return
        try:
            self._file.write(_bytes(text))
            self._file.flush()
        except OSError as wrong:
            self.trouble = str(wrong)

    def close(self) -> None:
        """Leave the draft as it is."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """The text has been sent, or is no longer wanted."""
        self.close()
        self.doubtful = False
        if not self.trouble:
            self.path.unlink(missing_ok=True)

    def waiting(self) -> list[Path]:
        """The drafts of clients that are gone, the newest first."""
        try:
            found = [path for path in self.folder.iterdir() if self._left_behind(path)] if not self.trouble else []
            return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
        except OSError:
            return []

    def take(self, path: Path, doubtful: bool) -> None:
        """Make a waiting draft this client's own; raises OSError when another client was quicker."""
        path.rename(self.path)
        self.written, self.doubtful = True, doubtful

    def _left_behind(self, path: Path) -> bool:
        """Whether it is a draft and its client is gone. On Windows, a file that is in use cannot be taken anyway."""
        found = _NAME.fullmatch(path.name)
        if not found or path == self.path:
            return False
        if os.name == "nt" or int(found[1]) == os.getpid():
            return True
        try:
            os.kill(int(found[1]), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False


def read(path: Path) -> tuple[Request, datetime, bool]:
    """A draft, when it was last added to, and whether it may have been sent; raises OSError.

    A file that was tampered with is all text.
    """
    content = path.read_bytes().decode("utf-8", "replace")
    written = datetime.fromtimestamp(path.stat().st_mtime)
    header, _newline, text = content.partition("\n")
    try:
        known = json.loads(header)
        return Request(str(known["email"]), text, str(known["id"])), written, bool(known.get("doubtful"))
    except (ValueError, LookupError, TypeError):
        return Request("", content, None), written, False


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
