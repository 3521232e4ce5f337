"""Bytes to text in the declared charset, or in the one that the bytes themselves tell of.

Promises text without lone surrogates for any bytes and any charset name, in linear time. The declared charset goes
through its aliases and common mistakes; where it is missing, unknown or does not fit: UTF-8, then the Cyrillic 8-bit
charsets told apart by their letter pairs, then windows-1252. Called by `headers` and `content`.
"""

import re
from functools import lru_cache

# Names that Python does not know, or knows as a narrower charset than what is really sent under that name.
_ALIASES = {
    "iso88591": "cp1252", "latin1": "cp1252", "l1": "cp1252", "ansi": "cp1252", "macintosh": "mac_roman",
    "iso88599": "cp1254", "iso885911": "cp874", "tis620": "cp874", "iso88598i": "iso8859_8", "iso88598e": "iso8859_8",
    "gb2312": "gb18030", "gbk": "gb18030", "gb231280": "gb18030", "cp936": "gb18030", "euccn": "gb18030",
    "shiftjis": "cp932", "sjis": "cp932", "mskanji": "cp932", "euckr": "cp949", "ksc56011987": "cp949", "ksc5601": "cp949",
    "big5": "big5hkscs", "iso2022jp": "iso2022_jp_ext", "iso2022jpesc": "iso2022_jp_ext", "koi8ru": "koi8_u", "koi8": "koi8_r",
    "maccyrillic": "mac_cyrillic", "macukraine": "mac_cyrillic", "utf8mb4": "utf_8", "utf8mb3": "utf_8", "unicode11utf8": "utf_8",
    "unicode11utf7": "utf_7", "cyrillic": "iso8859_5", "ibm866": "cp866", "dos866": "cp866",
}  # fmt: skip
# Python's names for things that are no charsets of mail: some are slow, some make lone surrogates.
_REFUSED = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem", "unicodeescape"}
# US-ASCII bytes mean something else in these.
_NOT_ASCII = re.compile(r"utf_?(7|16|32)|iso2022|hz")
_SQUEEZE = re.compile(r"[^a-z0-9]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_HIGH = re.compile(rb"[\x80-\xff]")
CYRILLIC = ("cp1251", "koi8_u", "cp866", "iso8859_5", "mac_cyrillic")
_C1_OF_1252 = {code: bytes((code,)).decode("cp1252", "replace") for code in range(0x80, 0xA0) if code not in (129, 141, 143, 144, 157)}


@lru_cache(maxsize=512)
def codec(name: str) -> str | None:
    """Python's codec for a declared charset; None for US-ASCII, the unknown, and what is no charset."""
    lowered = name.strip(" \t'\"<>").lower()[:60]
    squeezed = _SQUEEZE.sub("", lowered)
    found = _ALIASES.get(squeezed)
    for guess in (found, lowered, squeezed.removeprefix("x"), re.sub(r"^x?(win(dows)?|cp|ms|ansi)?(?=\d)", "cp", squeezed)):
        if guess and guess not in _REFUSED and _known(guess):
            return None if b"\xe9".decode(guess, "replace") == "\ufffd" and guess.startswith(("us", "ascii", "ansi", "646")) else guess
    return None


def _known(name: str) -> bool:
    try:
        b"".decode(name)
    except (LookupError, ValueError):
        return False
    return True


def decode(data: bytes, declared: str | None) -> str:
    """The text of the bytes: in the declared charset where that fits, else in the one they look like."""
    name = codec(declared) if declared else None
    if data.isascii() and not (name and _NOT_ASCII.match(name)):
        return data.decode("ascii") if b"\x1b$" not in data else data.decode("iso2022_jp_ext", "replace")
    if name is None:
        return guess(data)
    try:
        text = data.decode(name)
    except UnicodeError:
        text = _misdeclared(data, name)
    return _SURROGATE.sub("\ufffd", text)


def _misdeclared(data: bytes, name: str) -> str:
    """Bytes that are not valid in their charset: a few bad ones are replaced, otherwise the charset is guessed."""
    if name == "cp1252":
        return data.decode("latin_1").translate(_C1_OF_1252)
    text = data.decode(name, "replace")
    if text.count("\ufffd") * 8 <= sum(character > "\x7f" for character in text[:65536]):
        return text
    return guess(data)


def guess(data: bytes) -> str:
    """The text of bytes whose charset nobody declared."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(data) - 3 and error.start > 0:  # cut in the middle of its last character
            return data.decode("utf-8", "replace")
    mended = data.decode("utf-8", "replace")
    if mended.count("\ufffd") * 8 <= len(_HIGH.findall(data, 0, 65536)) // 2:
        return mended
    best = max(CYRILLIC, key=lambda name: score(data, name))
    if score(data, best) > 0:
        return data.decode(best, "replace")
    return data.decode("latin_1").translate(_C1_OF_1252)


def score(data: bytes, name: str) -> float:
    """How much the bytes look like Cyrillic text in that charset; above 0 they do."""
    text = data[:2000].decode(name, "replace")
    good = sum(character in "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфіїє" for character in text)
    bad = sum(character > "\x7f" and not "А" <= character <= "я" for character in text)
    return good - 4 * bad
