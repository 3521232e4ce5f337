"""Decodes bytes to text, in the declared charset or in the one that the bytes look like.

Promises text without lone surrogates for any bytes and any charset name, in linear time. Aliases and common misnomers
of charsets are known. If the declared charset is missing, unknown or does not fit: UTF-8, then the Cyrillic 8-bit
charsets, told apart by letter pairs, then windows-1252. Called by `content`, `correspondence`, `headers`, `parameters`.
"""

import codecs
import re
from contextlib import suppress
from functools import lru_cache
from io import StringIO

from mailer.reading import cyrillic, eastasian, utf8, wide

# Names that Python does not know, or takes for a narrower charset than the one that is really sent under them.
_ALIASES = {
    "iso88591": "cp1252", "latin1": "cp1252", "l1": "cp1252", "ansi": "cp1252", "macintosh": "mac_roman",
    "iso88599": "cp1254", "iso885911": "cp874", "tis620": "cp874", "iso88598i": "iso8859_8", "iso88598e": "iso8859_8",
    "gb2312": "gb18030", "gbk": "gb18030", "gb231280": "gb18030", "cp936": "gb18030", "euccn": "gb18030",
    "shiftjis": "cp932", "sjis": "cp932", "mskanji": "cp932", "windows31j": "cp932", "cswindows31j": "cp932",
    "euckr": "cp949", "ksc56011987": "cp949", "ksc5601": "cp949", "big5": "big5hkscs", "chinesebig5": "big5hkscs",
    "iso2022jp": "iso2022_jp_ext", "iso2022jpesc": "iso2022_jp_ext", "koi8ru": "koi8_u", "koi8": "koi8_r",
    "cyrillic": "iso8859_5", "maccyrillic": "mac_cyrillic", "macukraine": "mac_cyrillic",
    "utf8mb4": "utf-8", "utf8mb3": "utf-8", "unicode11utf8": "utf-8", "unicode11utf7": "utf-7", "utf8sig": "utf-8",
    "unicode": "utf-16", "cnbig5": "big5hkscs", "xbig5": "big5hkscs", "eucjpms": "euc_jp", "eucjpwin": "euc_jp",
    "cp51932": "euc_jp",
}  # fmt: skip
# Python's codecs that are no charsets of mail; some are slow, some make lone surrogates.
_REFUSED = {"idna", "punycode", "unicode-escape", "unicode_escape", "raw-unicode-escape", "raw_unicode_escape"} | {
    "undefined", "mbcs", "oem",
}  # fmt: skip
# Charsets in which ASCII bytes may mean something else.
_NOT_ASCII = re.compile(r"utf[-_]?(7|16|32)|iso2022|hz")
# How some of them switch between sets of characters.
_SHIFTS = {
    "iso2022": re.compile(rb"\x1b[$(]"), "hz": re.compile(rb"~\{"), "utf-7": re.compile(rb"\+[A-Za-z0-9+/]"),
}  # fmt: skip
# How an HTML document names its charset, and in which of its first bytes.
_META = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_META_WITHIN = 4096
_SQUEEZE = re.compile(r"[^a-z0-9]+")
_WINDOWS = re.compile(r"^(?:win(?:dows)?|cp|ms|ansi|dos)?(?=[0-9]{3,4}$)")
# Characters beyond ASCII, but for those that in windows-1252 are a capital with an accent, and then a blank, dots, a
# quotation mark or a dash.
_SIGNS = (0x85, 0x91, 0x92, 0x93, 0x94, 0x96, 0x97, 0xA0, 0xAB, 0xBB)
_CHANCE = "".join(chr(code) for code in range(0x180, 0x300) if (code & 0x3F | 0x80) in _SIGNS)
_USUAL = re.compile(f"[^\0-\x7f\ufffd{_CHANCE}]")
_SURROGATE, _BEYOND_ASCII = re.compile("[\ud800-\udfff]"), re.compile("[^\0-\x7f]")
# A text is cut after `LONGEST` characters, a quarter more than are recorded. UTF-8 is decoded in pieces of `_PIECE`
# bytes: all at once it takes four times the memory. Not all of Python's other decoders can be resumed.
LONGEST = 1_310_720
_PIECE = 65_536
# A character of UTF-8, at the end of the data, that lacks its last bytes.
_UNFINISHED = re.compile(rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")
# The five bytes that windows-1252 leaves undefined.
_UNDEFINED_1252 = (0x81, 0x8D, 0x8F, 0x90, 0x9D)


@lru_cache(maxsize=512)
def codec(name: str) -> str | None:
    """Python's codec for a declared charset; None for US-ASCII, unknown names, and codecs that are no charsets."""
    lowered = name.strip(" \t'\"<>")[:60].lower()
    squeezed = _SQUEEZE.sub("", lowered).removeprefix("x")
    found = _ALIASES.get(squeezed)
    if found:
        return found
    for candidate in (lowered, squeezed, _WINDOWS.sub("cp", squeezed)):
        python_name = _known(candidate)
        if python_name:
            return None if python_name == "ascii" else _ALIASES.get(_SQUEEZE.sub("", python_name), python_name)
    return None


def _known(name: str) -> str | None:
    """Python's own name for a charset, or None if it has no such charset."""
    try:
        known = codecs.lookup(name).name
        b"\0\0\0\0".decode(known)  # fails for what is no charset, such as base64 or rot13
    except (LookupError, ValueError):
        return None
    return None if known in _REFUSED else known


def decode(data: bytes, declared: str | None) -> str:
    """The text of the bytes: in the declared charset if that fits, else in the one that they look like.

    What goes beyond `LONGEST` characters may be left out.
    """
    name = codec(declared) if declared else None
    if name and wide.is_wide(name):
        name = wide.settled(data, name)
    elif name and not (name == "utf-8" or _shifts(data, name)) and utf8.is_no_accident(data, name):
        name = "utf-8"  # another one of that kind
    if data.isascii() and not (name and _NOT_ASCII.match(name)):
        return _decode(data, "ascii") if b"\x1b$" not in data else decode(data, "iso-2022-jp")
    if name is None:
        return guess(data)
    text = None
    with suppress(UnicodeError):  # which is over before more is tried: it holds what has been decoded
        text = _decode(data, name)
    text = _misdeclared(data, name) if text is None else text
    return text if name == "utf-8" else _SURROGATE.sub("\ufffd", text)


def of_html(data: bytes, declared: str | None) -> str | None:
    """The charset to decode HTML with: the declared one, unless only the one in its `meta` element can be true."""
    meta = _META.search(data, 0, _META_WITHIN)
    if meta is None:
        return declared
    name, named = codec(declared) if declared else None, meta[1].decode("ascii")
    if wide.is_wide(codec(named) or ""):
        named = ""  # as it was found in ASCII
    if name is None or wide.is_wide(name):
        return named or None
    known = codec(named)
    if name == "utf-8":  # a page may be sent on as it is, and declared like any other
        # What is not UTF-8 is windows-1252 anyway, unless it looks Cyrillic.
        return declared if known in (None, "cp1252") or utf8.is_valid(data) or _is_damaged(data) else named
    return named if known == "utf-8" and utf8.is_likely(data, name) else declared


def _decode(data: bytes, name: str, errors: str = "strict") -> str:
    """Decode with Python's codec, and stop soon after `LONGEST` characters."""
    if len(data) <= _PIECE or name != "utf-8":
        return data.decode(name, errors)[: LONGEST + 1]
    decoder, text = codecs.getincrementaldecoder(name)(errors), StringIO()
    for start in range(0, len(data), _PIECE):
        text.write(decoder.decode(data[start : start + _PIECE], start + _PIECE >= len(data)))
        if text.tell() > LONGEST:
            break
    return text.getvalue()


def _misdeclared(data: bytes, name: str) -> str:
    """Decode bytes that are invalid in their declared charset: replace a few bad ones, or guess another charset."""
    if name == "utf-8":
        return _broken(data) or _western(data)
    if not _shifts(data, name) and not data.isascii() and utf8.is_valid(data):  # others hardly ever are
        return _decode(data, "utf-8")
    if name == "cp1252":
        return _western(data)
    decoder = eastasian.DECODERS.get(name)
    text = decoder(data)[: LONGEST + 1] if decoder else _decode(data, name, "replace")
    if data.isascii():  # always valid UTF-8, so that guessing would prove nothing
        return text
    bad, good = _judged(text)
    return text if bad * 7 <= good else _detected(data) or text


def _shifts(data: bytes, name: str) -> bool:
    """Whether the bytes switch between sets of characters as text in this charset does."""
    return any(name.startswith(prefix) and shift.search(data) for prefix, shift in _SHIFTS.items())


def _judged(text: str) -> tuple[int, int]:
    """How many characters could not be decoded, and how many beyond ASCII could, where the first of them are."""
    first = _BEYOND_ASCII.search(text)
    sample = text[first.start() : first.start() + _PIECE] if first else ""
    return sample.count("\ufffd"), len(_USUAL.findall(sample))


def _western(data: bytes) -> str:
    """The text in windows-1252, with its undefined bytes as control characters."""
    text = data[: LONGEST + 1].decode("cp1252", "surrogateescape")
    for byte in _UNDEFINED_1252:
        text = text.replace(chr(0xDC00 + byte), chr(byte))
    return text


def guess(data: bytes) -> str:
    """The text of bytes without a usable declaration of their charset."""
    if data.startswith(wide.MARKS):
        return _decode(data, "utf-16", "replace")
    return _detected(data) or _western(data)


def _detected(data: bytes) -> str | None:
    """The text, if it is clearly in UTF-8 or a Cyrillic charset; else None."""
    with suppress(UnicodeDecodeError):
        return _decode(data, "utf-8")
    return _broken(data)


def _broken(data: bytes) -> str | None:
    """The text of what is not UTF-8, if it is clearly broken UTF-8 or in a Cyrillic charset; else None."""
    mended = _decode(data, "utf-8", "replace")
    bad, good = _judged(mended)
    if bad * 7 <= good or _is_cut(data, mended):
        return mended
    name = cyrillic.charset(data)
    if name:
        return _decode(data, name, "replace")
    return mended if bad < good else None  # the form of UTF-8 is no accident


def _is_damaged(data: bytes) -> bool:
    """Whether this is UTF-8 for the greater part."""
    mended = _decode(data, "utf-8", "replace")
    bad, good = _judged(mended)
    return bad < good or _is_cut(data, mended)


def _is_cut(data: bytes, mended: str) -> bool:
    """Whether this is non-ASCII UTF-8 that was cut within its last character; `mended` is its text."""
    whole = mended.removesuffix("\ufffd")
    return not (whole.isascii() or "\ufffd" in whole) and _UNFINISHED.search(data, len(data) - 3) is not None
