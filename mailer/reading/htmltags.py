"""The tags of HTML as mail programs write it: where they are, what their attributes say, and where an element ends.

Promises an answer for any string, in linear time. A regular expression finds the tags: `html.parser` takes twenty times
as long and, in some of the versions that Mailer runs on, quadratic time on malformed input. Called by `htmltext`.
"""

import re
from functools import lru_cache
from html import unescape
from html.entities import html5
from typing import NamedTuple

from mailer.reading.longtext import SHORT, pieces, substitute

# A tag with its slash, name and attributes; the beginning of a comment; or another declaration.
TAG = re.compile(r"<(?:(/?)([a-zA-Z][^\s/>]{0,40})([^>]*+)>|(!--)|[!?][^>]*+>)")
# Attributes in which every quote is closed. If a quote is open, the tag may go on, for so many characters and `>`.
_CLOSED = re.compile(r"(?:[^\"']++|\"[^\"]*+\"|'[^']*+')*+")
_LONGEST_VALUE, _MOST_SIGNS = 2000, 4
# Shorter tags are cached.
_SHORT = 200

_COMMENT_END = re.compile(r"--!?>")
_ATTRIBUTE = re.compile(r"(?<![a-zA-Z-])([a-zA-Z-]++)\s*+=\s*+(?:\"([^\"]*)\"?|'([^']*)'?|([^\s\"'>]+))")
_HIDDEN = re.compile(
    r"(?<![\w-])(?:display\s*:\s*none(?![\w-])|visibility\s*:\s*hidden)"
    r"|(?<![\w-])(?:max-height|opacity)\s*:\s*0+(?:\.0+)?(?:px|pt|em|%)?\s*(?:[;!]|$)",
    re.IGNORECASE,
)
_VALUE = re.compile(r"\"[^\"]*+\"?|'[^']*+'?")
_HIDDEN_ATTRIBUTE = re.compile(r"(?:^|\s)hidden(?=[\s=/]|$)")
_LINES_KEPT = re.compile(r"(?<![\w-])white-space\s*:\s*(?:pre(?:-wrap|-line)?|break-spaces)\s*(?:[;!]|$)", re.I)
# The content of these elements is not text, or not for the reader.
SKIPPED = frozenset(("script", "style", "title", "template", "xml", "svg"))
VOID = frozenset(("br", "hr", "img", "input", "meta", "link", "base", "area", "col", "wbr", "embed", "source", "param"))
# Elements whose end tags are often left out, and their containers. Such an element ends where the next of its kind
# begins or its container ends; containers inside it, with their content, are passed over.
_LIES_IN = {
    "li": "[uo]l", "dt": "dl", "dd": "dl", "td": "table", "th": "table", "tr": "table", "option": "select",
}  # fmt: skip
# The tags that end a paragraph, start tags and end tags alike (HTML, section 13.2.6.4.7).
_NO_PARAGRAPH = "h[1-6]|[uo]l|d[ltd]|li|t(?:able|r|d|h)|div|pre|hr|blockquote|center|form|section|article|body"


_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]*+)(;?)(=?)")


def unescaped(text: str) -> str:
    """The text with its entities as characters; unchanged if one has more digits than Python allows in a number."""
    try:
        return unescape(text) if len(text) < SHORT else "".join(map(unescape, pieces(text, "&")))
    except ValueError:
        return text


def attribute(attributes: str, name: str) -> str:
    """The value of an attribute, or an empty string."""
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            value = found[2] or found[3] or found[4] or ""
            return unescaped(substitute(_ENTITY, _bare, value)).strip() if "&" in value else value.strip()
    return ""


def _bare(found: re.Match[str]) -> str:
    """What is no entity in an attribute but a part of an address, such as `?a=1&copy=2` (HTML, section 13.2.5.73)."""
    name, end, equals = found.groups()
    is_entity = f"{name};" in html5 if end else name in html5 and not equals
    return found[0] if is_entity else f"&amp;{found[0][1:]}"


class Tag(NamedTuple):
    """A tag; or the beginning of a comment or a declaration, which have no name.

    `skipped` and `hidden` say that its content is so; `preformatted`, that line breaks in its content are kept.
    """

    name: str
    closing: bool = False
    attributes: str = ""
    skipped: bool = False
    hidden: bool = False
    preformatted: bool = False
    quotes_closed: bool = True


def tag_at(html: str, found: re.Match[str]) -> tuple[Tag, int]:
    """The tag that was found, and where it ends: not at its first `>` if that is in a quoted value."""
    text, end = found[0], found.end()
    tag = _known(text) if len(text) < _SHORT else _tag(*found.groups())
    if not tag.quotes_closed:
        begin, found_end = found.span(3)
        for _ in range(_MOST_SIGNS):
            found_end = html.find(">", found_end + 1, begin + _LONGEST_VALUE)
            if found_end < 0:
                break
            if _CLOSED.fullmatch(html, begin, found_end):
                return _tag("", found[2], html[begin:found_end], None), found_end + 1
    return tag, end


@lru_cache(maxsize=1024)
def _known(text: str) -> Tag:
    """The tag with this text; cached, because a mail repeats its tags."""
    return _tag(*TAG.match(text).groups())  # type: ignore[union-attr]


def _tag(slash: str | None, name: str | None, attributes: str | None, comment: str | None) -> Tag:
    if not name or attributes is None:
        return Tag("", skipped=bool(comment))
    name = name.lower()
    if slash:
        return Tag(name, closing=True)
    closed = "'" not in attributes and not attributes.count('"') % 2
    return Tag(
        name, attributes=attributes, skipped=name in SKIPPED, hidden=name not in VOID and is_hidden(attributes),
        preformatted=name not in VOID and _keeps_lines(attributes),
        quotes_closed=closed or _CLOSED.fullmatch(attributes) is not None,
    )


def end_of(tag: Tag, html: str, position: int) -> int:
    """Where the element or the comment ends that a tag begins; -1 if nowhere. `position` is behind the tag."""
    return end_of_element(html, tag.name, position) if tag.name else end_of_comment(html, position)


def is_hidden(attributes: str) -> bool:
    """Whether an element with these attributes is hidden from the reader, like text that only previews show."""
    if len(attributes) < 6:
        return False
    if "hidden" in attributes and _HIDDEN_ATTRIBUTE.search(_VALUE.sub('""', attributes)):
        return True
    return _HIDDEN.search(_style(attributes)) is not None


def _keeps_lines(attributes: str) -> bool:
    spaced = "-space" in attributes or "-SPACE" in attributes  # Outlook writes styles in capitals
    return spaced and _LINES_KEPT.search(_style(attributes)) is not None


def _style(attributes: str) -> str:
    return attribute(attributes, "style") if "style" in attributes or "STYLE" in attributes else ""


def end_of_comment(html: str, position: int) -> int:
    """Where the comment ends whose text begins at `position`; -1 if nowhere."""
    if html.startswith((">", "->"), position):
        return position + 1 + html.startswith("-", position)
    end = _COMMENT_END.search(html, position)
    return end.end() if end else -1


def end_of_element(html: str, name: str, position: int) -> int:
    """Where the element ends whose content begins at `position`; -1 if nowhere.

    Tags in comments count, too: it is better to show too much than to lose text.
    """
    if name == "p" or name in _LIES_IN:
        return _end_left_out(html, name, position)
    depth = 1
    for tag in _tags_named(name).finditer(html, position):
        depth += -1 if tag[1] else int(name not in SKIPPED)
        if depth == 0:
            return html.find(">", tag.end()) + 1 or len(html)
    return -1


def _end_left_out(html: str, name: str, position: int) -> int:
    """The same as `end_of_element`, for an element whose end tag may be left out."""
    depth = 0  # of nested containers
    for tag in _tags_named(name, _LIES_IN.get(name, _NO_PARAGRAPH)).finditer(html, position):
        if not tag[2]:
            if name == "p" or (tag[1] and not depth):
                return tag.start()
            depth += -1 if tag[1] else 1
        elif not depth:
            return (html.find(">", tag.end()) + 1 or len(html)) if tag[1] else tag.start()
    return -1


@lru_cache(maxsize=64)
def _tags_named(name: str, others: str = "(?!)") -> re.Pattern[str]:
    """A pattern for tags with this name, or with one of `others`; group 2 is there only for this name."""
    return re.compile(rf"<(/?)(?:({re.escape(name)})|{others})(?=[\s>/])", re.IGNORECASE)
