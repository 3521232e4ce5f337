"""Works on long texts in little memory: `re.sub` and `str.split` make lists, where a million pieces take a hundred MB.

Called by `content`, `flowed`, `htmlpage`, `htmltags` and `htmltext`.
"""

import re
from collections.abc import Callable, Iterator
from io import StringIO

# Texts shorter than this cannot have enough pieces to matter.
SHORT = 65_536

_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def lines(text: str) -> Iterator[str]:
    """The lines of a text, each with its line end."""
    return (line[0] for line in _LINE.finditer(text))


def substitute(pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str) -> str:
    """The same text as `pattern.sub(replace, text)` gives."""
    if len(text) < SHORT:
        return pattern.sub(replace, text)
    written, position = StringIO(), 0
    for found in pattern.finditer(text):
        written.write(text[position : found.start()])
        written.write(replace(found))
        position = found.end()
    written.write(text[position:])
    return written.getvalue()


def pieces(text: str, sign: str) -> Iterator[str]:
    """Cut a text into pieces of up to `SHORT` characters, each cut before a `sign` if there is one to cut at."""
    start = 0
    while start < len(text):
        end = start + SHORT
        if end < len(text):
            found = text.rfind(sign, start + 1, end)
            end = found if found > 0 else end
        yield text[start:end]
        start = end
