"""The tags of HTML as mail programs write it: where they are, what their attributes say, and where an element ends.

Promises an answer for any string, in linear time. Tags are found by one expression: `html.parser` takes twenty times
as long and, in some of the versions that Mailer runs on, quadratic time on malformed input. Called by `htmltext`.
"""

import re
from functools import lru_cache
from html import unescape

# A tag with its slash, name and attributes; the beginning of a comment; or another declaration.
TAG = re.compile(r"<(?:(/?)([a-zA-Z][^\s/>]{0,40})([^>]*+)>|(!--)|[!?][^>]*+>)")
# Attributes in which every quote is closed; one that is not goes on behind the `>`, for so many characters and signs.
_CLOSED = re.compile(r"(?:[^\"']++|\"[^\"]*+\"|'[^']*+')*+")
_LONGEST_VALUE, _MOST_SIGNS = 2000, 5

_COMMENT_END = re.compile(r"--!?>")
_ATTRIBUTE = re.compile(r"(?<![a-zA-Z-])([a-zA-Z-]++)\s*+=\s*+(?:\"([^\"]*)\"?|'([^']*)'?|([^\s\"'>]+))")
_HIDDEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all"
    r"|(?<![\w-])(?:max-height|font-size|opacity)\s*:\s*0+(?:\.0+)?(?:px|pt|em|%)?\s*(?:[;!\"']|$)",
    re.IGNORECASE,
)
_HIDDEN_ATTRIBUTE = re.compile(r"(?:^|\s)hidden(?=[\s=/]|$)")
# Their content is not text, or not for the reader.
SKIPPED = frozenset(("script", "style", "title", "template", "xml", "svg"))
VOID = frozenset(("br", "hr", "img", "input", "meta", "link", "base", "area", "col", "wbr", "embed", "source", "param"))
# These end where the next of their kind begins, as their end tags are often left out.
_OPTIONAL_END = frozenset(("p", "li", "td", "th", "tr", "dt", "dd", "option"))


def unescaped(text: str) -> str:
    """The text with its entities as characters; as it is, where one has more digits than a number may have."""
    try:
        return unescape(text)
    except ValueError:
        return text


def attribute(attributes: str, name: str) -> str:
    """The value of an attribute, or nothing."""
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            return unescaped(found[2] or found[3] or found[4] or "").strip()
    return ""


def whole(html: str, tag: re.Match[str]) -> tuple[str, int]:
    """The attributes of a tag and where it ends, when one of the values holds a `>`."""
    if "'" not in tag[3] and not tag[3].count('"') % 2:
        return tag[3], tag.end()
    begin, end = tag.start(3), tag.end(3)
    for _ in range(_MOST_SIGNS):
        if _CLOSED.fullmatch(html, begin, end):
            return html[begin:end], end + 1
        end = html.find(">", end + 1, begin + _LONGEST_VALUE)
        if end < 0:
            break
    return tag[3], tag.end()


def is_hidden(attributes: str) -> bool:
    """Whether the reader is not meant to see the element, such as the text that only previews show."""
    if len(attributes) < 6:
        return False
    if "hidden" in attributes and _HIDDEN_ATTRIBUTE.search(attributes):
        return True
    return ("style" in attributes or "STYLE" in attributes) and bool(_HIDDEN.search(attributes))


def end_of_comment(html: str, position: int) -> int:
    """Where a comment ends whose text begins at the position; -1 when nowhere."""
    if html.startswith((">", "->"), position):
        return position + 1 + html.startswith("-", position)
    end = _COMMENT_END.search(html, position)
    return end.end() if end else -1


def end_of_element(html: str, name: str, position: int) -> int:
    """Where an element ends whose content begins at the position; -1 when nowhere."""
    depth = 1
    for tag in _tags_named(name).finditer(html, position):
        if not tag[1] and name in _OPTIONAL_END:
            return tag.start()
        depth += -1 if tag[1] else int(name not in SKIPPED)
        if depth == 0:
            return html.find(">", tag.end()) + 1 or len(html)
    return -1


@lru_cache(maxsize=64)
def _tags_named(name: str) -> re.Pattern[str]:
    return re.compile(rf"<(/?){re.escape(name)}(?=[\s>/])", re.IGNORECASE)
