"""ISO-2022-JP (RFC 1468) as Windows and phones write it, with the characters of Shift_JIS that the standard lacks.

They are those of NEC's row 13, such as circled numbers, and IBM's ideographs, which names are written with; Python's
codecs know neither. Promises text for any bytes, in linear time. Called by `charsets`.
"""

import re

# A run of characters behind the escape that says what they are.
_RUN = re.compile(rb"\x1b(\$[@B]|\([BIJ])([^\x1b]*)")
_PAIR = re.compile(rb"[!-~]{2}")
_HALF_WIDTH = bytes(byte | 0x80 if 0x21 <= byte <= 0x5F else byte for byte in range(256))


def decode(data: bytes) -> str:
    """The text; what is nothing is replaced."""
    return _RUN.sub(_run, data).decode("cp932", "replace")


def _run(found: re.Match[bytes]) -> bytes:
    escape, characters = found.groups()
    if escape[:1] == b"$":
        return _PAIR.sub(_shifted, characters)
    return characters.translate(_HALF_WIDTH) if escape == b"(I" else characters


def _shifted(pair: re.Match[bytes]) -> bytes:
    """A row and a cell of JIS X 0208 in Shift_JIS, which has two rows to a lead byte."""
    row, cell = pair[0][0] - 0x21, pair[0][1]
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    trail = cell + 0x7E if row % 2 else cell + (0x1F if cell < 0x60 else 0x20)
    return bytes((lead, trail))
