"""`collector.py --show`: a line for each of the latest tickets, or all mails of one ticket with its bounces.

Reads the logs and the files rotated away from them, and changes nothing. Memory stays bounded however big they are: the
latest tickets are found from the end, and a conversation is shown as it is read. Lines that are no records are skipped;
text is made safe for terminals.
"""

import errno
import glob
import heapq
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import IO, Any, TextIO

from mailer.errors import ExitCode, safe
from mailer.streams import BOLD, FAINT, complain, paint, show_any_text
from mailer.translation import _

_LATEST = 50  # tickets: as many as a person looks through
_BLOCK = 1 << 20
_LONGEST_LINE = 64 << 20  # far above any record: a longer line is none
_MARGIN = "  "  # so that no text can pass itself off as another mail
_COMPRESSED = {".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip"}


def show(success_log: Path, error_log: Path, ticket: int | None, out: TextIO | None) -> ExitCode:
    """Write the latest tickets, or one ticket's conversation, to `out`; through a pager when it is a terminal.

    If there is nothing to show, the reason goes to stderr.
    """
    show_any_text()
    out = out or StringIO()  # nobody reads it where standard output is closed
    try:
        logs = _logs(success_log)
        errors = list(filter(Path.exists, _logs(error_log)))
        lines = _latest(logs, out) if ticket is None else _conversation(logs, errors, ticket, out)
        first = next(lines, None)
    except OSError as failure:
        complain(_("The file cannot be read: {why}").format(why=failure))
        return ExitCode.NO_INPUT
    if first is not None:
        try:
            _page(first, lines, out)
        except OSError as failure:
            complain(str(failure))
            return ExitCode.TEMPORARY
        return ExitCode.DONE
    complain(_("No ticket yet.") if ticket is None else _("No mail of ticket {}.").format(ticket))
    return ExitCode.DONE if ticket is None else ExitCode.REFUSED


def _logs(log: Path) -> list[Path]:
    """The uncompressed files rotated away from the log (`NAME.1`, `NAME-20261122`), the oldest first; then the log."""
    log = Path(os.path.realpath(log))  # rotated files lie beside the target of a link
    if log.is_fifo():  # which would be waited for
        raise OSError(errno.EINVAL, "no ordinary file", str(log))
    found = [path for path in log.parent.glob(glob.escape(log.name) + "?*") if path.suffix not in _COMPRESSED]
    rotated = sorted(filter(_readable, found), key=lambda path: path.stat().st_mtime)
    return [*rotated, log] if log.exists() or not rotated else rotated


def _readable(path: Path) -> bool:
    """Whether it is a file that can be read; complains of one that cannot."""
    if path.is_file() and not os.access(path, os.R_OK):
        complain(_("The file cannot be read: {why}").format(why=path))
        return False
    return path.is_file()


def _latest(logs: list[Path], out: TextIO) -> Iterator[str]:
    """A line about the newest mail of each of the latest tickets, the newest first."""
    seen: set[int] = set()
    for record in map(_record, itertools.chain.from_iterable(map(_backwards, reversed(logs)))):
        ticket = _number(record, "ticket") if record else None
        if record and ticket is not None and ticket not in seen:
            seen.add(ticket)
            number, words = paint(f"{ticket:>6}", BOLD, out), safe(str(record.get("text")), 32)
            yield f"{number}  {_when(record)}  {_sender(record)}  {words}\n"
            if len(seen) == _LATEST:
                return


def _conversation(logs: list[Path], error_logs: list[Path], ticket: int, out: TextIO) -> Iterator[str]:
    """Every mail of the ticket, the oldest first; and every bounce and automatic reply that names it."""
    mails = _mails(logs, "ticket", ticket), _mails(error_logs, "related_ticket", ticket)
    for record in heapq.merge(*mails, key=lambda record: str(record.get("time"))):
        reason = f"  ({safe(str(record['reason']))})" if "reason" in record else ""
        yield paint(f"{_when(record)}  {_sender(record)}{reason}", BOLD, out) + "\n"
        names = record.get("attachments")
        for name in names if isinstance(names, list) else ():
            yield _MARGIN + paint(_("attached: {name}").format(name=safe(str(name))), FAINT, out) + "\n"
        for text in str(record.get("text")).rstrip("\n").split("\n"):
            words = paint(_printable(text), FAINT if text.startswith(">") else "", out)
            yield (_MARGIN + words if text else "") + "\n"
        yield "\n"


def _mails(logs: list[Path], key: str, ticket: int) -> Iterator[dict[str, Any]]:
    """The records that name the ticket under this key, each once, as a copy of a log may lie beside it."""
    mark = f'"{key}": {ticket}'.encode()  # spares the parsing of all other lines
    known: set[bytes] = set()
    for line in itertools.chain.from_iterable(map(_forwards, logs)):
        record = _record(line) if mark in line else None
        if record and _number(record, key) == ticket and (digest := sha256(line).digest()) not in known:
            known.add(digest)
            yield record


def _forwards(path: Path) -> Iterator[bytes]:
    with path.open("rb") as log:
        yield from iter(lambda: log.readline(_LONGEST_LINE), b"")


def _backwards(path: Path) -> Iterator[bytes]:
    """The lines of a log, the last one first."""
    with path.open("rb") as log:
        position, rest = log.seek(0, os.SEEK_END), b""
        while position:
            start = max(0, position - _BLOCK)
            log.seek(start)
            rest, *lines = (log.read(position - start) + rest).split(b"\n")
            position = start
            yield from reversed(lines)
            rest = rest if len(rest) < _LONGEST_LINE else b""
        yield rest


def _record(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        record = json.loads(line)
        if isinstance(record, dict):
            return record
    return None


def _number(record: dict[str, Any], key: str) -> int | None:
    number = record.get(key)
    return number if type(number) is int else None


def _when(record: dict[str, Any]) -> str:
    """When the mail was written, else when it was logged, in the reader's time zone."""
    for key in ("date", "time"):
        with suppress(ValueError, OverflowError, OSError):
            return f"{datetime.fromisoformat(str(record.get(key))).astimezone():%Y-%m-%d %H:%M}"
    return "?"


def _sender(record: dict[str, Any]) -> str:
    return safe(str(record.get("from") or "?"), 254)


def _printable(line: str) -> str:
    """A line made safe, its blanks left as they are."""
    return re.sub("[^ ]+", lambda word: safe(word[0], len(word[0])), line.expandtabs())


def _page(first: str, lines: Iterable[str], out: TextIO) -> None:
    command: list[str] = []
    with suppress(ValueError):  # a quote that is not closed
        command = shlex.split(os.environ.get("PAGER", ""))
    command = command or [shutil.which("less") or shutil.which("more") or ""]
    if not out.isatty() or not shutil.which(command[0]):
        _write(first, lines, out)
        return
    # What git tells `less`: end at once when all fits on a screen, show colours, leave the text there.
    environment = {"LESS": "FRX", **os.environ}
    interrupt = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the pager, which would inherit SIG_IGN
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, env=environment, encoding="utf-8", errors="replace"
        ) as pager:
            if pager.stdin:
                _write(first, lines, pager.stdin)
    finally:
        signal.signal(signal.SIGINT, interrupt)


def _write(first: str, lines: Iterable[str], stream: IO[str]) -> None:
    """Write all lines, or as many as the reader wants to see."""
    try:
        stream.write(first)
        stream.writelines(lines)
        stream.flush()
    except BrokenPipeError:
        # Python must not try to write the rest of the buffer at exit (see the note on SIGPIPE in the docs of `signal`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
