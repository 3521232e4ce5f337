"""Whether bytes are UTF-8 (RFC 3629), and whether that can be an accident. In little memory, however many they are.

Called by `charsets`, `headers` and `wide`.
"""

import codecs
import re

_PIECE = 65_536
_NO_LEAD = bytes(range(0xC2))  # all bytes but those that lead a character beyond ASCII
# From so many such characters on they are no accident: "её" in KOI8-R looks like UTF-8 and, of the charsets with two
# bytes a character, "知之为知之" in GB2312.
_FEW, _FEW_PAIRS = 5, 8
_SHORT = bytes(range(0xE0))  # all bytes but those that lead a character of three bytes or four
_NO_PAIR = re.compile(rb"[\x80-\xa0]")  # in no usual character of those but cp932, and in nearly any UTF-8
_PAIRED = frozenset(("gb18030", "big5hkscs", "cp932", "cp949", "cp950", "euc_jp", "euc_jis_2004"))


def is_valid(data: bytes) -> bool:
    """Whether the bytes are valid UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _PIECE):
            decoder.decode(data[start : start + _PIECE])
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def is_no_accident(data: bytes, declared: str) -> bool:
    """Whether the bytes are valid UTF-8, with too many characters beyond ASCII to be in the declared charset."""
    may_be_pairs = declared in _PAIRED and (declared == "cp932" or not _NO_PAIR.search(data))
    few = _FEW_PAIRS if may_be_pairs else _FEW
    return not data.isascii() and is_valid(data) and len(data.translate(None, _NO_LEAD)) >= few


def is_likely(data: bytes, declared: str) -> bool:
    """Whether the bytes are UTF-8 beyond ASCII, and no such word in the declared charset as "谢谢" in GB2312."""
    if data.isascii() or not is_valid(data):
        return False
    return declared not in _PAIRED or bool(data.translate(None, _SHORT)) or is_no_accident(data, declared)
