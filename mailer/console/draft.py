"""Drafts: a message that was typed and not yet sent, in a private file, so that it is never lost.

Each running client writes a file of its own: a line of JSON with the address, the request's id, and whether it may have
been sent, then the text, line by line as it is typed. A file that no client has locked is a waiting draft. Where the
folder cannot be used there is no draft, but the message can be sent: `trouble` says why. Called by `conversation` and
`form`.
"""

import errno
import json
import os
import secrets
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from mailer.console.draft_file import LOCKS, encoded, is_waiting, lock, open_draft, state_folder
from mailer.protocol import Request


class Draft:
    """The draft of this client: `write` the whole, `add` a line, `discard` when it is sent."""

    def __init__(self) -> None:
        self.trouble = ""
        self.written = False  # whether there is a text worth keeping
        self.doubtful = False  # whether it may have been sent
        self.path: Path | None = None
        self._last: Request | None = None  # as it was last written in full
        self._added: list[str] = []  # what was added since then
        self._file: BinaryIO | None = None
        try:
            self.folder = state_folder()
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (OSError, RuntimeError) as wrong:  # RuntimeError: there is no home
            self.trouble = str(wrong)
        else:
            # In containers every client may be process 1: the random part keeps their drafts apart.
            self.path = self.folder / f"draft-{os.getpid()}-{secrets.token_hex(4)}"

    @property
    def may_have_been_sent(self) -> bool:
        """Whether the text in the draft may have been sent, and not only an earlier text."""
        return self.doubtful and bool(self._last is None or self._last.id)

    def write(self, request: Request) -> None:
        """Replace the draft by this request, in one step. A request without an `id` was never sent."""
        self.written = bool(request.message.strip())
        self._last, self._added = request, []
        doubtful = self.may_have_been_sent
        header = json.dumps({"email": request.email, "id": request.id, "doubtful": doubtful}) + "\n"
        if not self.path:
            return
        new = self.path.with_name(self.path.name.replace("draft", "new"))
        try:
            new.unlink(missing_ok=True)
            with ExitStack() as failing:
                file = failing.enter_context(open_draft(new, os.O_CREAT | os.O_EXCL))
                lock(file)  # before it gets the name that other clients look for
                file.write(encoded(header + request.message))
                file.flush()
                self._rename(file, new)
                failing.pop_all()
            self.trouble = ""  # clears that of an earlier write
        except OSError as wrong:
            self.trouble = str(wrong)
            if doubtful:
                self._doubt_in_place(self.path)
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)  # if it is still there

    def _doubt_in_place(self, path: Path) -> None:
        """Mark the former draft as doubtful in place, when no new one can be written: that needs no disk space."""
        with suppress(OSError), path.open("r+b") as file:
            header = file.readline()
            file.seek(0)
            file.write(header.replace(b'"doubtful": false', b'"doubtful": true '))

    def add(self, text: str) -> None:
        """Append to the text that was written; the file keeps it even if this process is killed."""
        self.written = True
        self._added.append(text)
        if self._file is None or self.trouble:
            self._try_again()
            return
        try:
            self._file.write(encoded(text))
            self._file.flush()
        except OSError as wrong:
            self.trouble = str(wrong)

    def _try_again(self) -> None:
        """Write the whole text anew, as a part of it may not be in the file."""
        if self._last:
            self.write(replace(self._last, message=self._last.message + "".join(self._added)))

    def close(self) -> None:
        """Close the file; the draft stays for a later client."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as wrong:  # a failed write is tried again here, and fails again
                self.trouble = self.trouble or str(wrong)

    def make_sure(self) -> None:
        """Write the draft again if its file is incomplete or, as after an interrupt while it was made, missing."""
        if self.trouble or (self.path and not self.path.exists()):
            self._try_again()

    def discard(self) -> None:
        """Delete the draft: the text has been sent, or is no longer wanted."""
        self.written = self.doubtful = False
        self.close()
        if self.path:
            with suppress(OSError):  # as on Windows, while a virus scanner reads it: it is offered again
                self.path.unlink(missing_ok=True)

    def waiting(self) -> list[Path]:
        """The drafts of clients that are gone, the newest first."""
        if self.trouble:
            return []
        found: list[tuple[float, Path]] = []
        with suppress(OSError):
            for path in self.folder.iterdir():
                with suppress(OSError):  # another client has just taken it
                    if path != self.path and is_waiting(path):
                        found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found, reverse=True)]

    def take(self, path: Path, doubtful: bool) -> None:
        """Make a waiting draft this client's own; raises OSError when another client was quicker."""
        file = open_draft(path)
        try:
            if not lock(file):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._rename(file, path)
        except OSError:
            file.close()
            raise
        self.written, self.doubtful = True, doubtful

    def _rename(self, file: BinaryIO, path: Path) -> None:
        """Make an open file this client's draft, in place of the former one."""
        if not self.path:
            raise FileNotFoundError(errno.ENOENT, self.trouble)
        if not LOCKS:  # on Windows an open file can be neither renamed nor replaced
            file.close()
            self.close()
        path.replace(self.path)
        self.close()  # the former file of that name, and with it its lock
        self._file = file if LOCKS else open_draft(self.path)
