"""HTML as mail programs write it, turned into text that reads well.

Promises text for any string, in linear time: at most `LIMIT` characters of HTML are looked at. Blocks break lines,
links keep their address, lists their marks, quotes their `>`, table cells a blank between them; script, style and what
is hidden from the reader is left out. The tokens are found by one expression: `html.parser` is thirty times slower
and, in the versions that Mailer runs on, quadratic on malformed input. Called by `content`.
"""

import re
from html import unescape

# Two million characters are over a thousand pages; the parts of real mail end long before.
LIMIT = 2_097_152
# An attribute's value in quotes that is longer than this (an inlined picture) ends at the next `>` instead.
_QUOTED = 2000

_TOKEN = re.compile(
    r"<!--(?:>|->|(?P<comment>))"
    r"|<(?P<close>/?)(?P<name>[a-zA-Z][^\s/>]{0,40})"
    rf"(?P<attributes>(?:[^>\"']++|\"[^\"]{{0,{_QUOTED}}}+\"|'[^']{{0,{_QUOTED}}}+')*+)>"
    r"|<(?P<close2>/?)(?P<name2>[a-zA-Z][^\s/>]{0,40})(?P<attributes2>[^>]*+)>"
    r"|<[!?][^>]*+>"
)
_ATTRIBUTE = re.compile(r"([a-zA-Z-]+)\s*=\s*(?:\"([^\"]*)\"?|'([^']*)'?|([^\s\"'>]+))")
_HIDDEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all|(?:max-height|font-size|opacity)\s*:\s*0+(?:\.0+)?(?:px|pt|em|%)?\s*(?:;|!|$)",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"[ \t\r\n\f\xa0]+")
_INVISIBLE = re.compile("[\u200b\ufeff\u00ad\u034f\u2060]+|[\u200c\u200d]+(?=[\\s\u200c\u200d]|$)")
_LINK = re.compile(r"(?:https?|ftps?|mailto|tel):", re.IGNORECASE)

_RAW = {"script", "style", "title", "template", "textarea", "xml", "svg"}
_SHOWN_RAW = {"textarea"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "blockquote", "pre", "ul", "ol", "dl"}
_BLOCKS = _PARAGRAPHS | {
    "div", "li", "tr", "dt", "dd", "section", "article", "header", "footer", "address", "center", "form", "fieldset", "figure",
    "figcaption", "aside", "main", "nav", "body", "html", "caption", "thead", "tbody", "tfoot", "hr", "option", "legend",
}  # fmt: skip
_VOID = {"br", "hr", "img", "input", "meta", "link", "base", "area", "col", "wbr", "embed", "source", "param", "bgsound", "basefont"}
# These end where the next of their kind begins, so their ends are not counted.
_UNCLOSED = {"p", "li", "td", "th", "tr", "dt", "dd", "option"}


def to_text(html: str) -> str:
    """The text of an HTML document or fragment."""
    html = html[:LIMIT].replace("\0", "")
    text = _Writer().run(html, hide=True)
    return text or _Writer().run(html, hide=False)  # everything hidden: something was not closed


class _Writer:
    """The text written so far: finished lines, the line being written, and what is open around it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line: list[str] = []
        self.quotes = 0
        self.lists: list[int] = []  # the next number, or -1 for a bullet
        self.links: list[tuple[str, int]] = []
        self.preformatted = 0
        self.mark = ""

    def run(self, html: str, *, hide: bool) -> str:
        """Read the tokens of the document in order."""
        position = 0
        lowered = None
        while True:
            token = _TOKEN.search(html, position)
            self.text(html[position : token.start()] if token else html[position:])
            if not token:
                break
            position = token.end()
            if token["comment"] is not None:
                end = html.find("-->", position)
                position = end + 3 if end >= 0 else max(html.find(">", position) + 1, position)
                continue
            name = (token["name"] or token["name2"] or "").lower()
            if not name:
                continue
            if token["close"] or token["close2"]:
                self.end(name)
                continue
            attributes = token["attributes"] or token["attributes2"] or ""
            if name in _RAW and not attributes.endswith("/"):
                lowered = html.lower() if lowered is None else lowered
                end = lowered.find("</" + name, position)
                if end >= 0:
                    if name in _SHOWN_RAW:
                        self.text(html[position:end])
                    position = end
            elif hide and name not in _VOID and attributes and _is_hidden(attributes):
                position = _after(html, name, position)
            else:
                self.start(name, attributes)
        self.break_line()
        return "\n".join(self.lines).strip("\n")

    def text(self, piece: str) -> None:
        """Characters between tags."""
        if not piece:
            return
        if "&" in piece:
            piece = unescape(piece)
        if self.preformatted:
            first, *rest = piece.split("\n")
            self.line.append(first)
            for line in rest:
                self.break_line(keep=True)
                self.line.append(line)
            return
        self.line.append(_BLANKS.sub(" ", piece))

    def start(self, name: str, attributes: str) -> None:
        """A tag that opens."""
        if name == "br":
            self.break_line(keep=True)
        elif name in _BLOCKS:
            self.block(name)
            if name == "blockquote":
                self.quotes += 1
            elif name in ("ul", "ol"):
                self.lists.append(1 if name == "ol" else -1)
            elif name == "li":
                self.item()
            elif name == "hr":
                self.line.append("---")
                self.break_line()
            elif name == "pre":
                self.preformatted += 1
        elif name in ("td", "th"):
            self.line.append(" ")
        elif name == "a":
            self.links.append((_attribute(attributes, "href"), len(self.lines) * 1_000_000 + len(self.line)))
        elif name == "img":
            alternative = _attribute(attributes, "alt")
            if alternative:
                self.line.append(_BLANKS.sub(" ", alternative))

    def end(self, name: str) -> None:
        """A tag that closes."""
        if name in _BLOCKS:
            self.block(name)
            if name == "blockquote":
                self.quotes = max(0, self.quotes - 1)
            elif name in ("ul", "ol") and self.lists:
                self.lists.pop()
            elif name == "pre":
                self.preformatted = max(0, self.preformatted - 1)
        elif name == "a" and self.links:
            self.link(*self.links.pop())

    def item(self) -> None:
        """The mark of a list item, written with its first words."""
        number = self.lists[-1] if self.lists else -1
        self.mark = "  " * max(0, min(len(self.lists), 8) - 1) + (f"{number}. " if number > 0 else "- ")
        if number > 0:
            self.lists[-1] += 1

    def link(self, address: str, begin: int) -> None:
        """The address of a link after its words, where they do not say it already."""
        lines, pieces = divmod(begin, 1_000_000)
        words = "".join(self.line[pieces:] if lines == len(self.lines) else self.line).strip()
        bare = address.removeprefix("mailto:").rstrip("/")
        if not _LINK.match(address) or bare.partition("://")[2] in words.rstrip("/") and "://" in bare or bare in words:
            return
        if self.line and self.line[-1].endswith(" "):
            self.line[-1] = self.line[-1].rstrip(" ")
        self.line.append(f" <{address}>" if words else f"<{address}>")

    def block(self, name: str) -> None:
        """A block begins or ends: a new line, and an empty one around paragraphs."""
        self.break_line()
        if name in _PARAGRAPHS and self.lines and self.lines[-1].strip("> ") and not (name in ("ul", "ol") and len(self.lists) > 1):
            self.lines.append("> " * min(self.quotes, 20))

    def break_line(self, *, keep: bool = False) -> None:
        """End the line; an empty one is kept only where the writer of the mail asked for it."""
        line = "".join(self.line)
        line = line.rstrip() if self.preformatted else _BLANKS.sub(" ", line).strip()
        line = _INVISIBLE.sub("", line)
        self.line.clear()
        if line:
            line, self.mark = self.mark + line, ""
        elif not keep or len(self.lines) > 1 and not self.lines[-1].strip("> ") and not self.lines[-2].strip("> "):
            return
        self.lines.append("> " * min(self.quotes, 20) + line)


def _attribute(attributes: str, name: str) -> str:
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            return unescape(found[2] or found[3] or found[4] or "").strip()
    return ""


def _is_hidden(attributes: str) -> bool:
    if "hidden" in attributes and re.search(r"(?:^|\s)hidden(?:\s|=|/|$)", attributes):
        return True
    return "style" in attributes.lower() and bool(_HIDDEN.search(_attribute(attributes, "style")))


def _after(html: str, name: str, position: int) -> int:
    """Where a hidden element ends; where it began when its end is not to be found."""
    depth = 1
    for tag in re.compile(rf"<(/?){re.escape(name)}(?=[\s>/])[^>]*>", re.IGNORECASE).finditer(html, position):
        if not tag[1] and name in _UNCLOSED:
            return tag.start()
        depth += -1 if tag[1] else 1
        if depth == 0:
            return tag.end()
    return position
