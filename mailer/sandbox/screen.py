"""What the sandbox shows: where things are, what to type next, and each mail and record as it happens."""

import json
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable
from datetime import datetime

from mailer import reading
from mailer.errors import safe
from mailer.streams import BOLD, FAINT, RED, paint

MAX_LINES = 12  # of a mail's text; the whole of it is in the log
_MARGIN = 21
_STYLES = {"mail": BOLD, "success": "32", "error": "33"}  # green and yellow; a script's complaint is red


class Screen:
    """Writes to standard output, whole entries from any thread. `on_broken` is called when nobody reads it any more."""

    def __init__(self, on_broken: Callable[[], None]) -> None:
        self._on_broken = on_broken
        self._lock = threading.Lock()

    def say(self, *lines: str) -> None:
        """Show lines as they are."""
        with self._lock:
            try:
                print(*lines, sep="\n", flush=True)
            except OSError:
                self._on_broken()

    def bold(self, text: str) -> str:
        """The text in bold, if the terminal shows that."""
        return _paint(text, BOLD)

    def mail(self, sender: str, recipients: Iterable[str], data: bytes) -> None:
        """Show a mail that has been delivered."""
        mail = reading.read(data)
        who = [f"from {sender or '<>'}", f"to {', '.join(recipients)}"]
        self._entry("mail", mail.subject or "(no subject)", [*who, "", *mail.text.splitlines()])

    def record(self, log: str, line: str) -> None:
        """Show a line that the collector has written into one of its logs."""
        record = json.loads(line)
        what = f"ticket {record['ticket']}" if "ticket" in record else f"reason: {record.get('reason')}"
        self._entry(log, f"{what}, from {record.get('from')}", [str(record.get("subject") or "(no subject)")])

    def trouble(self, script: str, text: str) -> None:
        """Show what a script complains of."""
        self._entry(script.removesuffix(".py"), text, [])

    def _entry(self, kind: str, head: str, lines: list[str]) -> None:
        width = max(shutil.get_terminal_size().columns - _MARGIN, 20)
        wrapped = [part for line in lines[: 10 * MAX_LINES] for part in textwrap.wrap(safe(line, 2000), width) or [""]]
        shown = wrapped[: MAX_LINES + 1]
        if len(wrapped) > len(shown):
            shown.append("…")
        time = _paint(f"{datetime.now():%H:%M:%S}", FAINT)
        head_lines = textwrap.wrap(safe(head), width) or [""]
        first = f"{time}  {_paint(f'{kind:<9}', _STYLES.get(kind, RED))}  {head_lines[0]}"
        self.say(first, *((" " * _MARGIN + line).rstrip() for line in head_lines[1:] + shown))


def _paint(text: str, style: str) -> str:
    return paint(text, style, sys.stdout) if sys.stdout else text
