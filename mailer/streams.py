"""The standard streams of a script, for a person: whether they are terminals, words in a style, complaints, any text.

Called by `console`, `history`, `mailroom` and the sandbox.
"""

import codecs
import locale
import os
import sys
from contextlib import suppress
from typing import TextIO

RED, FAINT, BOLD = "31", "2", "1"


def interactive() -> bool:
    """Whether there is a person: one who types, and who sees what is asked."""
    return is_terminal(sys.stdin) and (is_terminal(sys.stdout) or is_terminal(sys.stderr))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; one that was closed before the script began is None."""
    return stream is not None and stream.isatty()


def paint(text: str, style: str, stream: TextIO) -> str:
    """The text in a style, on a terminal that shows styles and for a person who wants them."""
    plain = os.environ.get("NO_COLOR") or is_dumb()
    if os.name == "nt":
        plain = plain or "WT_SESSION" not in os.environ  # the older console prints the codes as text
    return f"\x1b[{style}m{text}\x1b[0m" if style and not plain and stream.isatty() else text


def is_dumb() -> bool:
    """Whether the terminal takes no escape sequences; without TERM it is dumb, as for readline, except on Windows."""
    return os.environ.get("TERM", "" if os.name == "nt" else "dumb") == "dumb"


def complain(words: str) -> None:
    """Write words for the person to stderr, if it can be written to: the exit code tells the outcome, too."""
    with suppress(OSError):
        if sys.stderr:
            sys.stderr.write(f"{words}\n")
            sys.stderr.flush()


def show_any_text() -> None:
    """Have characters that this locale lacks replaced, so that none of them ends the script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def decode(data: bytes) -> str:
    """A file's text: UTF-8, UTF-16 with a byte order mark, or the locale's charset; other bytes will be refused."""
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16" if utf_16 else "utf-8-sig", locale.getencoding()):
        with suppress(UnicodeError, LookupError):
            return data.decode(encoding)
    return data.decode("utf-8", "surrogateescape")
