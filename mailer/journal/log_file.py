"""The lines of a log file: read from an offset on, told whether they are records, and the last one mended.

A crash can leave the last line without its end. Called by `journal`.
"""

import json
import os
from collections.abc import Iterator
from typing import BinaryIO

from mailer.progress import Logged, identity

# How much of a log is read at once.
BLOCK = 65_536
_LONGEST_LINE = 64 << 20  # bytes, far above any record: a longer line is none


def write(file: int, data: bytes) -> None:
    """Write the data, in one call unless the system takes only a part of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def lines(file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file from an offset on, each with its own offset; a line that is too long comes in pieces."""
    file.seek(start)
    end = start
    while piece := file.readline(_LONGEST_LINE if start == end else BLOCK):
        yield start, piece
        end += len(piece)
        if piece.endswith(b"\n"):
            start = end


def mend(file: int) -> None:
    """If the last line of a log lacks its line end, add that, or cut the line off if it is only a part of a record."""
    size = os.fstat(file).st_size
    start = last_line(file, size)
    if start == size:
        return
    os.lseek(file, start, os.SEEK_SET)
    first, rest = os.read(file, 1), size - start - 1
    # A line that begins neither like a record nor with a zero, as after a power cut, is somebody's note.
    if first not in (b"{", b"\0") or (rest <= _LONGEST_LINE and logged(first + os.read(file, rest))):
        write(file, b"\n")
    else:
        os.ftruncate(file, start)


def last_line(file: int, size: int) -> int:
    """Where the last line begins if it lacks its line end; the size of the file if it has one."""
    end, length = size, 1
    while end:
        start = max(0, end - length)
        os.lseek(file, start, os.SEEK_SET)
        found = os.read(file, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end, length = start, BLOCK
    return 0


def logged(line: bytes) -> Logged | None:
    """The mail that a line of a log is about; None for a line that is not such a record."""
    if not line.startswith(b"{"):  # a quick test, even for a gigabyte of something else
        return None
    try:
        record = json.loads(line)
        names = map(record.get, ("message_id", "from", "subject", "date", "text"))
        return Logged(int(record["uidvalidity"]), int(record["uid"]), identity(*names))
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
