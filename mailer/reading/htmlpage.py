"""The lines of text that an HTML document turns into, written one after another.

Promises little memory, however many lines and pieces of lines there are. No line is added after `ROOM` characters:
the margins of quotes alone could make many times as many. Called by `htmltext`.
"""

import re
from io import StringIO

from mailer.reading.longtext import SHORT, substitute

ROOM = 1_048_600  # a few more than are recorded, so that a longer text is seen to be truncated
# If a line has more pieces than this, or the page more lines, they are joined to save memory.
MOST = 20_000
# Levels of quoting that are shown.
_DEEPEST = 20

# Characters without width, except where they join emoji or letters. Of them only U+034F is printable for Python.
_INVISIBLE = re.compile("[\u200b\ufeff\u00ad\u034f\u2060]+|[\u200c\u200d]+(?=[\\s\u200b-\u200d]|$)")
_BLANKS = re.compile(r"\s+")


class Page:
    """The last lines written, the pieces of the current one, and the margin and list mark that go before it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line: list[str] = []
        self.mark = ""
        self.preformatted = 0
        self._margin, self._quotes = "", 0
        self._written = StringIO()
        self._room = ROOM

    def text(self) -> str:
        """All that was written."""
        self._written.write("\n".join(self.lines))
        return self._written.getvalue().strip("\n")

    def quote(self, more: int) -> None:
        """Change the depth of quoting by so many levels."""
        self._quotes = max(0, self._quotes + more)
        self._margin = "> " * min(self._quotes, _DEEPEST)

    def drop_empty_lines(self) -> None:
        """Remove the empty lines at the end."""
        while self.lines and _is_empty(self.lines[-1]):
            self.lines.pop()

    def empty_line(self, *, second: bool = False) -> None:
        """Add an empty line, unless there are no lines yet, or the last one (with `second`, the last two) is empty."""
        lines = self.lines
        if lines and (not _is_empty(lines[-1]) or (second and not _is_empty(lines[-2:][0]))):
            self._add(self._margin.rstrip())

    def break_line(self, *, keep: bool = False) -> None:
        """End the line. An empty one is written only with `keep`, where the writer of the mail asked for it."""
        if not self.line:
            return self.empty_line(second=True) if keep else None
        whole = "".join(self.line)
        self.line.clear()
        line = whole.rstrip() if self.preformatted else _squeezed(whole)
        if not line.isascii() and (not line.isprintable() or "\u034f" in line):
            line = substitute(_INVISIBLE, lambda _: "", line).rstrip()
        if line:
            self._add(self._margin + self.mark + line)
            self.mark = ""
        elif keep or "\xa0" in whole:  # a no-break space has a line of its own, as in `<div>&nbsp;</div>`
            self.empty_line(second=keep)
        return None

    def _add(self, line: str) -> None:
        if self._room > 0:
            self.lines.append(line)
            self._room -= len(line) + 1
            if len(self.lines) > MOST:
                self._written.write("\n".join([*self.lines[:-2], ""]))
                del self.lines[:-2]


def _squeezed(line: str) -> str:
    """The words of a line, with one blank between two."""
    return " ".join(line.split()) if len(line) < SHORT else substitute(_BLANKS, lambda _: " ", line).strip(" ")


def _is_empty(line: str) -> bool:
    """Whether a line is nothing but a margin. Longer lines are not examined, as this may be asked a million times."""
    return len(line) <= 2 * _DEEPEST and not line.strip("> ")
