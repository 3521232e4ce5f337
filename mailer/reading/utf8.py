"""Whether bytes are UTF-8 (RFC 3629), and whether that can be an accident. In little memory, however many they are.

Called by `charsets` and `headers`.
"""

import codecs

_PIECE = 65_536
# All bytes but those that lead a character beyond ASCII; and from how many such characters on they are no accident: in
# other charsets "её" (KOI8-R) and a few Chinese words look like UTF-8.
_NO_LEAD, _FEW = bytes(range(0xC2)), 5


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


def is_no_accident(data: bytes) -> bool:
    """Whether the bytes are valid UTF-8, with so many characters beyond ASCII that they are in no other charset."""
    return not data.isascii() and is_valid(data) and len(data.translate(None, _NO_LEAD)) >= _FEW
