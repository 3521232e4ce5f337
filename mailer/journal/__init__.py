"""One product log: whole records, one line each, durable when `append` returns.

Promises that a failed append leaves the log as it was, and that after a crash `recover` leaves nothing but whole
lines and tells which mails they are about. The file is opened by its path for every batch, so that it can be rotated
by renaming, without a signal. Refuses to go on (`StateError`) when the disk does not take the lines.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mailer.disk import make_names_durable, may_pass
from mailer.errors import StateError
from mailer.journal.log_file import BLOCK, last_line, lines, logged, mend, write
from mailer.progress import Logged, Mark

_log = logging.getLogger(__name__)


class Journal:
    """A log; `mark` is its end after the last append or recovery."""

    def __init__(self, path: Path, *, fsync: Callable[[int], None] = os.fsync) -> None:
        self.path = Path(os.path.realpath(path))  # log rotation renames the file itself, not a link to it
        self.mark = Mark()
        self._fsync = fsync
        self._left_out: set[Path] = set()  # files that have been warned of

    def append(self, lines: bytes) -> None:
        """Add whole lines and make them durable, or raise and leave the log as it was."""
        with self._opened(self.path, os.O_CREAT) as file:
            mend(file)
            before = os.fstat(file).st_size
            try:
                write(file, lines)
                self._fsync(file)
                if not before:
                    make_names_durable(self.path.parent, self._fsync)
            except BaseException:
                # Lines that the disk took only in part must not be found there later. If this fails too, the next
                # append or start mends the log.
                with contextlib.suppress(OSError):
                    os.ftruncate(file, before)
                raise
            self.mark = _mark(file)

    def recover(self, since: Mark) -> Iterator[Logged]:
        """Cut off what a crash left torn, and yield the records written after the mark `since`.

        Reads the file of the mark from there on, and in whole the log, if it is another file, and siblings written to
        later (all, for an empty mark). Changes only the log and the file of the mark, whatever its name is now.
        """
        for path in self._files(since):
            yield from self._recovered(path, since)
        with self._opened(self.path, os.O_CREAT) as log:
            self.mark = _mark(log)

    def _recovered(self, path: Path, since: Mark) -> Iterator[Logged]:
        with _translated(self.path), path.open("rb", buffering=BLOCK) as file:
            found = _mark(file.fileno())
            known = found[:2] == since[:2]
            # Other files stay as they are: somebody may be writing to them just now.
            if (known or path == self.path) and last_line(file.fileno(), found.size) != found.size:
                with self._opened(path) as writable:
                    mend(writable)
                    found = _mark(writable)
            start = since.size if known and since.size <= found.size else None
            for offset, line in lines(file, start or 0):
                # Behind the mark, zeros are what a power cut left of lines never written; elsewhere they are old.
                if start is not None and b"\0" in line:
                    with self._opened(path) as writable:
                        os.ftruncate(writable, offset)
                    break
                if mail := logged(line):
                    yield mail

    def _files(self, since: Mark) -> list[Path]:
        """The files that can hold records made after the mark: the log, the file of the mark, and later siblings."""
        with _translated(self.path):
            return sorted(path for path in self._siblings() if self._matters(path, since))

    def _siblings(self) -> list[Path]:
        """The log and files named after it, or the log alone if the folder may not be read; raises OSError."""
        try:
            name = os.path.normcase(self.path.name)
            return [path for path in self.path.parent.iterdir() if os.path.normcase(path.name).startswith(name)]
        except PermissionError:
            self._leave_out(self.path.parent)
            return [self.path]

    def _leave_out(self, path: Path) -> None:
        if path not in self._left_out:
            self._left_out.add(path)
            _log.warning("%s: cannot be read, and is left out", path)

    def _matters(self, path: Path, since: Mark) -> bool:
        """Whether this is the log, the file of the mark, or a readable sibling that was written to later."""
        try:
            status = path.stat()
        except OSError as failure:  # such as for a file that was rotated away just now
            if path == self.path and not isinstance(failure, FileNotFoundError):
                raise
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        if path == self.path or (status.st_dev, status.st_ino) == since[:2]:
            return True
        if status.st_mtime_ns < since.time:
            return False
        readable = os.access(path, os.R_OK)
        if not readable:
            self._leave_out(path)
        return readable

    @contextlib.contextmanager
    def _opened(self, path: Path, flags: int = 0) -> Iterator[int]:
        with _translated(path):
            file = os.open(path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0) | flags, 0o600)
            try:
                yield file
            finally:
                os.close(file)


def keep(path: Path, raw: bytes) -> None:
    """Keep the bytes of a mail in a file of their own, durable, whole or not at all."""
    with _translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        make_names_durable(path.parent)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        words = f"{failure.filename or path}: {failure.strerror or failure}"
        raise StateError(words, passing=may_pass(failure, path.parent)) from failure


def _mark(file: int) -> Mark:
    status = os.fstat(file)
    return Mark(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
