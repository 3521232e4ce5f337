"""HTML as mail programs write it, turned into text that reads well.

Promises text for any string, in linear time: at most `LIMIT` characters of HTML are looked at. Blocks break lines;
links keep their addresses, lists their marks, quotes their `>`; a blank separates table cells. Scripts, styles and what
is hidden from the reader are left out. Called by `content`.
"""

import re

from mailer.reading.htmlpage import MOST, Page
from mailer.reading.htmltags import TAG, Tag, attribute, end_of, tag_at, unescaped
from mailer.reading.longtext import lines

# Five hundred pages; the HTML of real mail ends long before. A megabyte of nothing but tags takes a second.
LIMIT = 1_048_576
_DIGITS = 9  # a list whose first number has so many digits, or more, begins with 1
# How many searches for the end of an element may fail; each failed one scans all the rest of the document.
_VAIN = 5

_LINK = re.compile(r"(?:https?|ftps?|mailto|tel):", re.IGNORECASE)

_PARAGRAPHS = frozenset(("p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "blockquote", "pre", "ul", "ol", "dl"))
_BLOCKS = _PARAGRAPHS | frozenset((
    "div", "li", "tr", "dt", "dd", "section", "article", "header", "footer", "address", "center", "form", "fieldset",
    "figure", "figcaption", "aside", "main", "nav", "body", "caption", "thead", "tbody", "tfoot", "hr", "option",
    "legend", "summary",
))  # fmt: skip
_MARKED = frozenset(("blockquote", "pre", "ul", "ol", "li", "hr"))
_PLAIN = _BLOCKS - _MARKED
_OTHERS = _MARKED | frozenset(("br", "a", "img", "td", "th"))  # all other tags change nothing


def to_text(html: str, *, cut: bool = False) -> str:
    """The text of an HTML document or fragment. If it is `cut`, an unfinished tag at its end is left out."""
    if cut and html.rfind("<") > html.rfind(">"):
        html = html[: html.rfind("<")]
    html = html[:LIMIT].replace("\0", "")
    reader = _Reader()
    text = reader.run(html, hide=True)
    # If no text is left, an element that was never closed may have hidden it all: read again and hide nothing.
    return _Reader().run(html, hide=False) if reader.hid and not text else text


class _Reader:
    """The page written so far, and what is open in the document."""

    def __init__(self) -> None:
        self.page = Page()
        self.lists: list[int] = []  # of each open list the next number, or 0 for bullets
        self.address, self.words = "", (0, 0)  # of the open link; where its words begin: line and piece
        self.in_vain = 0
        self.lines_kept_until = 0  # where the element ends whose style keeps line breaks
        self.hid = False

    def run(self, html: str, *, hide: bool) -> str:
        """Read the document tag by tag."""
        page, line, search = self.page, self.page.line, TAG.search
        position, last = 0, html.rfind(">") + 1
        while found := search(html, position, last):
            begin = found.start()
            if begin > position:
                piece = html[position:begin]
                if page.preformatted or "&" in piece:
                    self.text(piece)
                elif line or not piece.isspace() or "\xa0" in piece:
                    line.append(piece)
                if len(line) > MOST:
                    line[:], self.words = ["".join(line)], (-1, 0)
            tag, position = tag_at(html, found)
            if tag.preformatted or self.lines_kept_until:
                self.keep_lines(tag, html, position)
            if tag.skipped or (tag.hidden and hide):
                self.hid = self.hid or tag.hidden
                position = self.skip(tag, html, position)
            elif tag.name in _PLAIN:
                self.block(tag.name)
            elif tag.name in _OTHERS:
                (self.end if tag.closing else self.start)(tag)
        self.text(html[position:])
        page.break_line()
        return page.text()

    def skip(self, tag: Tag, html: str, position: int) -> int:
        """Where to go on after content that is left out: right here if it has no end, as all the rest would be lost."""
        end = end_of(tag, html, position) if self.in_vain < _VAIN else -1
        self.in_vain += end < 0
        self.keep_no_lines(end)
        return end if end >= 0 else position

    def keep_lines(self, tag: Tag, html: str, position: int) -> None:
        """Keep line breaks inside an element whose style asks for it, but not behind its end."""
        if tag.name in _BLOCKS and self.page.line and not tag.hidden:
            self.page.break_line()
        self.keep_no_lines(position)
        if tag.preformatted and not (self.page.preformatted or self.lines_kept_until) and self.in_vain < _VAIN:
            self.lines_kept_until = max(0, end_of(tag, html, position))
            self.in_vain += not self.lines_kept_until
            self.page.preformatted += self.lines_kept_until > 0

    def keep_no_lines(self, position: int) -> None:
        """Keep line breaks no longer, if the position is behind the end of the element that kept them."""
        if self.lines_kept_until and position >= self.lines_kept_until:
            self.lines_kept_until, self.page.preformatted = 0, max(0, self.page.preformatted - 1)

    def text(self, piece: str) -> None:
        """Write the characters between tags."""
        if "&" in piece:
            piece = unescaped(piece)
        if self.page.preformatted and "\n" in piece:
            for line in lines(piece):
                self.page.line.append(line.removesuffix("\n"))
                if line.endswith("\n"):
                    self.page.break_line(keep=True)
        else:
            self.page.line.append(piece)

    def start(self, tag: Tag) -> None:
        """Handle a start tag."""
        name, attributes = tag.name, tag.attributes
        if name in _MARKED:
            self.block(name)
            self.open_block(name, attributes)
        elif name == "br":
            self.page.break_line(keep=True)
        elif name == "a":
            self.address, self.words = attribute(attributes, "href"), (len(self.page.lines), len(self.page.line))
        elif name == "img":
            self.page.line.append(attribute(attributes, "alt"))
        elif self.page.line or self.page.preformatted:  # td, th
            self.page.line.append(" ")

    def open_block(self, name: str, attributes: str) -> None:
        """Begin what some blocks put before their lines, and keep the lines of `pre`."""
        if name == "blockquote":
            self.page.quote(1)
        elif name in ("ul", "ol"):
            start = attribute(attributes, "start") if name == "ol" else ""
            self.lists.append(int(start) if start.isdecimal() and len(start) < _DIGITS else int(name == "ol"))
        elif name == "pre":
            self.page.preformatted += 1
        elif name == "hr":
            self.page.line.append("---")
            self.page.break_line()
        elif name == "li":
            number = self.lists[-1] if self.lists else 0
            self.page.mark = "  " * min(max(len(self.lists) - 1, 0), 8) + (f"{number}. " if number else "- ")
            if number:
                self.lists[-1] += 1

    def end(self, tag: Tag) -> None:
        """Handle an end tag."""
        if tag.name == "a":
            self.link()
        elif tag.name in _MARKED:
            self.close_block(tag.name)

    def close_block(self, name: str) -> None:
        """End the block, and what `open_block` began for it."""
        self.page.break_line()
        if name == "blockquote":
            self.page.quote(-1)
            self.page.drop_empty_lines()
        elif name in ("ul", "ol") and self.lists:
            self.lists.pop()
        elif name == "pre":
            self.page.preformatted = max(0, self.page.preformatted - 1)
        self.block(name)

    def link(self) -> None:
        """Write the address of a link after its words, unless they contain it already."""
        address, self.address = self.address, ""
        if not _LINK.match(address):
            return
        begun, pieces = self.words
        words = "".join(self.page.line[pieces:] if begun == len(self.page.lines) else self.page.line)
        if address.partition(":")[2].strip("/") in words:
            return
        while self.page.line and not self.page.line[-1].strip():
            self.page.line.pop()
        if self.page.line:
            self.page.line[-1] = self.page.line[-1].rstrip() + " "
        self.page.line.append(f"<{address}>")

    def block(self, name: str) -> None:
        """Begin or end a block: break the line, and put an empty line around paragraphs, but not nested lists."""
        page = self.page
        if page.line:
            page.break_line()
        if name in _PARAGRAPHS and not (self.lists and name in ("ul", "ol")):
            page.empty_line()
