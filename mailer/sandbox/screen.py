"""What the sandbox shows: where things are, what to type next, and each mail and record as it happens."""

import json
import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable
from datetime import datetime

from mailer import reading
from mailer.errors import safe

MAX_LINES = 12  # of a mail's text; the whole of it is in the log
_MARGIN = 21
_FAINT, _BOLD, _RED, _GREEN, _YELLOW = "2", "1", "31", "32", "33"
_COLOURS = {"mail": _BOLD, "success": _GREEN, "error": _YELLOW}  # of the kinds of entry; a script's complaint is red


class Screen:
    """Standard output: whole entries, from any thread, at once. `on_broken` is called when nobody reads any more."""

    def __init__(self, on_broken: Callable[[], None]) -> None:
        self._on_broken = on_broken
        self._lock = threading.Lock()
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        known = os.name == "posix" or "WT_SESSION" in os.environ  # other Windows consoles may show the codes
        self._coloured = sys.stdout is not None and sys.stdout.isatty() and known and not plain

    def say(self, *lines: str) -> None:
        """Show lines as they are."""
        with self._lock:
            try:
                print(*lines, sep="\n", flush=True)
            except OSError:
                self._on_broken()

    def bold(self, text: str) -> str:
        """The text, to be noticed."""
        return self._paint(text, _BOLD)

    def mail(self, sender: str, recipients: Iterable[str], data: bytes) -> None:
        """A mail that has been delivered."""
        mail = reading.read(data)
        who = [f"from {sender or '<>'}", f"to {', '.join(recipients)}"]
        self._entry("mail", mail.subject or "(no subject)", [*who, "", *mail.text.splitlines()])

    def record(self, log: str, line: str) -> None:
        """A line that the collector has written into one of its logs."""
        record = json.loads(line)
        what = f"ticket {record['ticket']}" if "ticket" in record else f"reason: {record.get('reason')}"
        self._entry(log, f"{what}, from {record.get('from')}", [str(record.get("subject") or "(no subject)")])

    def trouble(self, script: str, text: str) -> None:
        """What a script complains of."""
        self._entry(script.removesuffix(".py"), text, [])

    def _entry(self, kind: str, head: str, lines: list[str]) -> None:
        width = max(shutil.get_terminal_size().columns - _MARGIN, 20)
        wrapped = [part for line in lines[: 10 * MAX_LINES] for part in textwrap.wrap(safe(line, 2000), width) or [""]]
        shown = wrapped[: MAX_LINES + 1]
        if len(wrapped) > len(shown):
            shown.append("…")
        time = self._paint(f"{datetime.now():%H:%M:%S}", _FAINT)
        head_lines = textwrap.wrap(safe(head), width) or [""]
        first = f"{time}  {self._paint(f'{kind:<9}', _COLOURS.get(kind, _RED))}  {head_lines[0]}"
        self.say(first, *((" " * _MARGIN + line).rstrip() for line in head_lines[1:] + shown))

    def _paint(self, text: str, colour: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if self._coloured else text
