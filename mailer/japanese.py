"""Japanese charsets as Windows and phones write them, with the characters of Shift_JIS that the standards lack.

They are those of NEC's row 13, such as circled numbers, and IBM's ideographs, which names are written with; Python's
codecs of ISO-2022-JP (RFC 1468) and EUC-JP know neither. Promises text for any bytes, in linear time; what is nothing
is replaced. Called by `charsets`.
"""

import codecs
import re

# A run of characters behind the escape that says what they are.
_RUN = re.compile(rb"\x1b(\$[@B]|\([BIJ])([^\x1b]*)")
_PAIR = re.compile(rb"[!-~]{2}")
_HALF_WIDTH = bytes(byte | 0x80 if 0x21 <= byte <= 0x5F else byte for byte in range(256))
_EUC_PAIR = re.compile(rb"[\xa1-\xfe]{2}")
_BY_SHIFT_JIS = "mailer.by-shift-jis"
# Where more of a text than this is nothing, it is no EUC-JP; and to look at each of four million takes seconds.
_MOST, _FEW = 1 / 8, 1_000


def iso_2022_jp(data: bytes) -> str:
    """The text of ISO-2022-JP."""
    return _RUN.sub(_run, data).decode("cp932", "replace")


def euc_jp(data: bytes) -> str:
    """The text of EUC-JP."""
    text = data.decode("euc_jp", "replace")
    return text if text.count("\ufffd") > max(_FEW, _MOST * len(text)) else data.decode("euc_jp", _BY_SHIFT_JIS)


def _run(found: re.Match[bytes]) -> bytes:
    escape, characters = found.groups()
    if escape[:1] == b"$":
        return _PAIR.sub(lambda pair: _shifted(*pair[0]), characters)
    return characters.translate(_HALF_WIDTH) if escape == b"(I" else characters


def _shifted(row: int, cell: int) -> bytes:
    """A row and a cell of JIS X 0208 in Shift_JIS, which has two rows to a lead byte."""
    row -= 0x21
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    trail = cell + 0x7E if row % 2 else cell + (0x1F if cell < 0x60 else 0x20)
    return bytes((lead, trail))


def _by_shift_jis(error: UnicodeError) -> tuple[str, int]:
    """What stands where Python's codec of EUC-JP knows nothing. A pair stays one: what follows keeps its place."""
    if not isinstance(error, UnicodeDecodeError):  # it is for decoding alone
        raise error
    if pair := _EUC_PAIR.match(error.object, error.start):
        row, cell = pair[0]
        return _shifted(row & 0x7F, cell & 0x7F).decode("cp932", "replace")[:1], pair.end()
    return "\ufffd", error.start + 1


codecs.register_error(_BY_SHIFT_JIS, _by_shift_jis)
# By the names of Python's codecs, which these replace where one finds something it does not know.
DECODERS = {"iso2022_jp_ext": iso_2022_jp, "euc_jp": euc_jp}
