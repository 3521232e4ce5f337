"""Joins the lines of text that was sent as format=flowed (RFC 3676). Called by `content`."""

import re
from io import StringIO

from mailer.reading.longtext import lines

_QUOTES = re.compile(r">*")


def unflowed(text: str, delete_space: bool) -> str:
    """Undo soft line breaks (RFC 3676): a line that ends with a blank goes on in the next, at the same quote depth."""
    written, separator = StringIO(), ""  # in a list, millions of lines would take many times their memory
    depth_before, flowing = -1, False
    for line in lines(text):
        line = line.removesuffix("\n")
        depth = len(_QUOTES.match(line)[0])  # type: ignore[index]
        line = line[depth:].removeprefix(" ")
        soft = line.endswith(" ") and line != "-- "
        words = line[:-1] if soft and delete_space else line
        if flowing and depth == depth_before and line != "-- ":
            written.write(words)
        else:
            written.write(separator + ">" * depth + (" " if depth else "") + words)
            separator = "\n"
        depth_before, flowing = depth, soft
    if text.endswith("\n") and not flowing:
        written.write("\n")
    return written.getvalue()
