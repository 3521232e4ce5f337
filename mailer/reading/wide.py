"""UTF-16 and UTF-32, and what is only called so: a declaration may be left over from before a text was converted.

Called by `charsets`.
"""

import codecs
import re

from mailer.reading import utf8

# Charsets in which ASCII characters have zero bytes beside them; and their byte order marks without a zero byte.
_WIDE = re.compile(r"utf[-_]?(?:16|32)")
MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What shows that ASCII characters have one byte; in what is not UTF-8 it has to be more: Chinese may look like words.
_WORDS = re.compile(rb"[a-zA-Z] [a-zA-Z]|<[a-zA-Z!]")
_MORE_WORDS = re.compile(
    rb"<(?:[!/]?[a-zA-Z-]{4}|/?[a-zA-Z][a-zA-Z1-6]{0,9}>)|[a-zA-Z]{2} [a-zA-Z]{3}|[a-zA-Z]{3} [a-zA-Z]{2}"
)
_CONTROLS = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f]")
# What hardly any text has: characters for private use, Arabic forms, what there is not.
_NO_TEXT = re.compile("[\ue000-\uf8ff\ufb50-\ufdff\ufff0-\ufffb\ufffe\uffff\ud7a4-\ud7ff\U000e0000-\U0010ffff]")
_ALPHABETS = re.compile(rb"[\0\3-\6]")  # the higher bytes of Latin, Greek, Cyrillic, Hebrew and Arabic letters
# How many bytes of a text are looked at.
_SAMPLE = 65_536


def is_wide(name: str) -> bool:
    """Whether a charset has zero bytes beside ASCII characters, so that nothing in ASCII can be found in a text."""
    return _WIDE.match(name) is not None


def settled(data: bytes, name: str) -> str | None:
    """The wide charset that the bytes have, if they are declared as `name`; None where they have none."""
    if data.startswith(MARKS):
        return name
    if _is_narrow(data, name):
        return None
    return _byte_order(data) if name == "utf-16" else name


def _is_narrow(data: bytes, name: str) -> bool:
    """Whether a character has one byte or, in UTF-8, a few: there are no control bytes, but words or line ends."""
    if _CONTROLS.search(data):
        return data.isascii() and b"\0" not in data and b"\x1b$" in data  # ISO-2022-JP
    if not utf8.is_valid(data):
        return _MORE_WORDS.search(data) is not None or not _is_text(data, name)
    return not data.isascii() or len(data) % 2 == 1 or b"\n" in data or _WORDS.search(data) is not None


def _is_text(data: bytes, name: str) -> bool:
    """Whether the bytes are whole characters of a wide charset, all of them such as a text has."""
    decoder = codecs.getincrementaldecoder(f"{name}-le" if name in ("utf-16", "utf-32") else name)()
    try:
        return _NO_TEXT.search(decoder.decode(data[:_SAMPLE], len(data) <= _SAMPLE)) is None
    except UnicodeDecodeError:
        return False


def _byte_order(data: bytes) -> str:
    """The form of UTF-16 without a mark: that of Windows, unless most characters are of an alphabet in the other."""
    higher = data[:_SAMPLE:2]
    return "utf-16-be" if 2 * len(_ALPHABETS.findall(higher)) > len(higher) else "utf-16-le"
