"""HTML as mail programs write it, turned into text that reads well.

Promises text for any string, in linear time: at most `LIMIT` characters of HTML are looked at. Blocks break lines,
links keep their address, lists their marks, quotes their `>`, table cells a blank between them; script, style and what
is hidden from the reader is left out. Called by `content`.
"""

import re

from mailer.htmltags import TAG, Tag, attribute, end_of, tag_at, unescaped

# Five hundred pages; the HTML of real mail ends long before. A megabyte of nothing but tags takes a second.
LIMIT = 1_048_576
# How often the end of something that is to be left out is looked for in vain; each time costs a look at all the rest.
_VAIN = 5
# Levels of quoting that are shown.
_DEEPEST = 20

# What has no width, except where it joins emoji or letters; U+034F alone of it counts as printable.
_INVISIBLE = re.compile("[\u200b\ufeff\u00ad\u034f\u2060]+|[\u200c\u200d]+(?=[\\s\u200b-\u200d]|$)")
_LINK = re.compile(r"(?:https?|ftps?|mailto|tel):", re.IGNORECASE)

_PARAGRAPHS = frozenset(("p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "blockquote", "pre", "ul", "ol", "dl"))
_BLOCKS = _PARAGRAPHS | frozenset((
    "div", "li", "tr", "dt", "dd", "section", "article", "header", "footer", "address", "center", "form", "fieldset",
    "figure", "figcaption", "aside", "main", "nav", "body", "caption", "thead", "tbody", "tfoot", "hr", "option",
    "legend",
))  # fmt: skip
_MARKED = frozenset(("blockquote", "pre", "ul", "ol", "li", "hr"))
_PLAIN = _BLOCKS - _MARKED
_OTHERS = _MARKED | frozenset(("br", "a", "img", "td", "th"))  # more tags there are that change nothing


def to_text(html: str) -> str:
    """The text of an HTML document or fragment."""
    html = html[:LIMIT].replace("\0", "")
    writer = _Writer()
    text = writer.run(html, hide=True)
    # Where nothing is left, everything was hidden by something that was not closed.
    return _Writer().run(html, hide=False) if writer.hid and not text else text


class _Writer:
    """The lines written so far, the one being written, and what is open around it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line: list[str] = []
        self.quotes, self.margin = 0, ""
        self.lists: list[int] = []  # the next number, or 0 for bullets
        self.address, self.words = "", (0, 0)  # of the link that is open, and where its words begin
        self.preformatted = 0
        self.mark = ""
        self.in_vain = 0
        self.hid = False

    def run(self, html: str, *, hide: bool) -> str:
        """Read the document tag by tag."""
        position, last, search, line = 0, html.rfind(">") + 1, TAG.search, self.line
        while found := search(html, position, last):
            begin = found.start()
            if begin > position:
                piece = html[position:begin]
                if self.preformatted or "&" in piece:
                    self.text(piece)
                elif line or not piece.isspace():
                    line.append(piece)
            tag, position = tag_at(html, found)
            if tag.skipped or (tag.hidden and hide):
                self.hid = self.hid or tag.hidden
                position = self.skip(tag, html, position)
            elif tag.name in _PLAIN:
                self.block(tag.name)
            elif tag.name in _OTHERS:
                if tag.closing:
                    self.end(tag.name)
                else:
                    self.start(tag.name, tag.attributes)
        self.text(html[position:])
        self.break_line()
        return "\n".join(self.lines).strip("\n")

    def skip(self, tag: Tag, html: str, position: int) -> int:
        """Where to go on behind what is left out; right here when it has no end, as the rest would be lost."""
        end = end_of(tag, html, position) if self.in_vain < _VAIN else -1
        self.in_vain += end < 0
        return end if end >= 0 else position

    def text(self, piece: str) -> None:
        """Characters between tags."""
        if "&" in piece:
            piece = unescaped(piece)
        if self.preformatted and "\n" in piece:
            first, *rest = piece.split("\n")
            self.line.append(first)
            for line in rest:
                self.break_line(keep=True)
                self.line.append(line)
        else:
            self.line.append(piece)

    def start(self, name: str, attributes: str) -> None:
        """A tag that opens."""
        if name in _MARKED:
            self.block(name)
            self.open_block(name)
        elif name == "br":
            self.break_line(keep=True)
        elif name == "a":
            self.address, self.words = attribute(attributes, "href"), (len(self.lines), len(self.line))
        elif name == "img":
            self.line.append(attribute(attributes, "alt"))
        elif self.line or self.preformatted:  # td, th
            self.line.append(" ")

    def open_block(self, name: str) -> None:
        """What some blocks put before their lines."""
        if name == "blockquote":
            self.quote(1)
        elif name in ("ul", "ol"):
            self.lists.append(int(name == "ol"))
        elif name == "pre":
            self.preformatted += 1
        elif name == "hr":
            self.line.append("---")
            self.break_line()
        elif name == "li":
            number = self.lists[-1] if self.lists else 0
            self.mark = "  " * min(max(len(self.lists) - 1, 0), 8) + (f"{number}. " if number else "- ")
            if number:
                self.lists[-1] += 1

    def end(self, name: str) -> None:
        """A tag that closes."""
        if name == "a":
            self.link()
        elif name in _MARKED:
            self.close_block(name)

    def close_block(self, name: str) -> None:
        """What some blocks put before their lines ends."""
        self.break_line()
        if name == "blockquote":
            self.quote(-1)
            while self.lines and _is_empty(self.lines[-1]):
                self.lines.pop()
        elif name in ("ul", "ol") and self.lists:
            self.lists.pop()
        elif name == "pre":
            self.preformatted = max(0, self.preformatted - 1)
        self.block(name)

    def link(self) -> None:
        """The address of a link after its words, unless they say it already."""
        address, self.address = self.address, ""
        if not _LINK.match(address):
            return
        lines, pieces = self.words
        words = "".join(self.line[pieces:] if lines == len(self.lines) else self.line)
        if address.partition(":")[2].strip("/") in words:
            return
        while self.line and not self.line[-1].strip():
            self.line.pop()
        if self.line:
            self.line[-1] = self.line[-1].rstrip() + " "
        self.line.append(f"<{address}>")

    def quote(self, more: int) -> None:
        """One level of quoting more or less."""
        self.quotes = max(0, self.quotes + more)
        self.margin = "> " * min(self.quotes, _DEEPEST)

    def block(self, name: str) -> None:
        """A block begins or ends: a new line, and an empty one around paragraphs, but not around lists in lists."""
        if self.line:
            self.break_line()
        if name in _PARAGRAPHS and not (self.lists and name in ("ul", "ol")):
            self.empty_line()

    def empty_line(self, *, second: bool = False) -> None:
        """An empty line, unless there is one already (with `second`, two) or nothing before it."""
        lines = self.lines
        if lines and (not _is_empty(lines[-1]) or (second and not _is_empty(lines[-2:][0]))):
            lines.append(self.margin.rstrip())

    def break_line(self, *, keep: bool = False) -> None:
        """End the line; an empty one is kept only where the writer of the mail asked for it."""
        if not self.line:
            return self.empty_line(second=True) if keep else None
        line = "".join(self.line)
        self.line.clear()
        line = line.rstrip() if self.preformatted else " ".join(line.split())
        if not line.isascii() and (not line.isprintable() or "\u034f" in line):
            line = _INVISIBLE.sub("", line).rstrip()
        if line:
            self.lines.append(self.margin + self.mark + line)
            self.mark = ""
        elif keep:
            self.empty_line(second=True)
        return None


def _is_empty(line: str) -> bool:
    """Whether a line is nothing but a margin. A longer one is not looked at: that could be done a million times."""
    return len(line) <= 2 * _DEEPEST and not line.strip("> ")
