"""The lines that the text of an HTML document consists of, as they are written one after another.

Promises little memory, however many lines and pieces of them there are, and no more than `ROOM` characters, which
margins alone could make many times as much. Called by `htmltext`.
"""

import re
from io import StringIO

from mailer.longtext import SHORT, substitute

ROOM = 1_048_600  # a few more than are recorded, so that it shows
# More pieces of a line, or lines, than these are to be joined.
MOST = 20_000
# Levels of quoting that are shown.
_DEEPEST = 20

# What has no width, except where it joins emoji or letters; U+034F alone of it counts as printable.
_INVISIBLE = re.compile("[\u200b\ufeff\u00ad\u034f\u2060]+|[\u200c\u200d]+(?=[\\s\u200b-\u200d]|$)")
_BLANKS = re.compile(r"\s+")


class Page:
    """The last lines written, the pieces of the one being written, and the margin and mark before the next one."""

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
        """One level of quoting more or less."""
        self._quotes = max(0, self._quotes + more)
        self._margin = "> " * min(self._quotes, _DEEPEST)

    def drop_empty_lines(self) -> None:
        """Take back the last lines, as far as they are empty."""
        while self.lines and _is_empty(self.lines[-1]):
            self.lines.pop()

    def empty_line(self, *, second: bool = False) -> None:
        """An empty line, unless there is one already (with `second`, two) or nothing before it."""
        lines = self.lines
        if lines and (not _is_empty(lines[-1]) or (second and not _is_empty(lines[-2:][0]))):
            self._add(self._margin.rstrip())

    def break_line(self, *, keep: bool = False) -> None:
        """End the line; an empty one is kept only where the writer of the mail asked for it."""
        if not self.line:
            return self.empty_line(second=True) if keep else None
        line = "".join(self.line)
        self.line.clear()
        line = line.rstrip() if self.preformatted else _squeezed(line)
        if not line.isascii() and (not line.isprintable() or "\u034f" in line):
            line = substitute(_INVISIBLE, lambda _: "", line).rstrip()
        if line:
            self._add(self._margin + self.mark + line)
            self.mark = ""
        elif keep:
            self.empty_line(second=True)
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
    """Whether a line is nothing but a margin. A longer one is not looked at: that could be done a million times."""
    return len(line) <= 2 * _DEEPEST and not line.strip("> ")
