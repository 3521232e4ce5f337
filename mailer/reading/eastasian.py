"""East Asian charsets as Windows and phones write them, with characters that the standards and Python's codecs lack.

In Japanese these are NEC's row 13, such as circled numbers, and IBM's ideographs, which occur in names: the Shift_JIS
of Windows (cp932) has them, ISO-2022-JP (RFC 1468) and EUC-JP do not. In Big5 it is above all the euro sign. Promises
text for any bytes, in linear time; bytes without a meaning are replaced. Called by `charsets`.
"""

import codecs
import re
from collections.abc import Callable

# An escape sequence that selects a character set, and the characters after it.
_RUN = re.compile(rb"\x1b(\$[@B]|\([BIJ])([^\x1b]*)")
_PAIR = re.compile(rb"[!-~]{2}")
_HALF_WIDTH = bytes(byte | 0x80 if 0x21 <= byte <= 0x5F else byte for byte in range(256))
# If over an eighth of so many bytes is bad, the charset is wrong; looking up millions of bad pairs would take seconds.
_SAMPLE = 65_536


def iso_2022_jp(data: bytes) -> str:
    """The text of ISO-2022-JP."""
    return _replaced(_RUN, _run, data).decode("cp932", "replace")


def euc_jp(data: bytes) -> str:
    """The text of EUC-JP."""
    return _with_pairs(data, "euc_jp")


def big5(data: bytes) -> str:
    """The text of Big5."""
    return _with_pairs(data, "big5hkscs")


def _with_pairs(data: bytes, codec: str) -> str:
    text = data[:_SAMPLE].decode(codec, f"mailer.{codec}")
    if len(data) <= _SAMPLE:
        return text
    return data.decode(codec, "replace" if 8 * text.count("\ufffd") > len(text) else f"mailer.{codec}")


def _replaced(pattern: re.Pattern[bytes], replace: Callable[[re.Match[bytes]], bytes], data: bytes) -> bytes:
    """The same as `pattern.sub(replace, data)`, which makes a list: millions of characters would take 300 MB."""
    written, position = bytearray(), 0
    for found in pattern.finditer(data):
        written += data[position : found.start()]
        written += replace(found)
        position = found.end()
    return bytes(written + data[position:])


def _run(found: re.Match[bytes]) -> bytes:
    escape, characters = found.groups()
    if escape[:1] == b"$":
        return _replaced(_PAIR, lambda pair: _shifted(*pair[0]), characters)
    return characters.translate(_HALF_WIDTH) if escape == b"(I" else characters


def _shifted(row: int, cell: int) -> bytes:
    """The Shift_JIS bytes of a row and a cell of JIS X 0208; each lead byte covers two rows."""
    row -= 0x21
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    trail = cell + 0x7E if row % 2 else cell + (0x1F if cell < 0x60 else 0x20)
    return bytes((lead, trail))


def _pair_of_euc(pair: bytes) -> str:
    return _shifted(pair[0] & 0x7F, pair[1] & 0x7F).decode("cp932", "replace")


def _pair_of_big5(pair: bytes) -> str:
    return pair.decode("cp950", "replace")


def _register(codec: str, pairs: bytes, character: Callable[[bytes], str]) -> None:
    """Register an error handler for pairs that a codec lacks. It takes both bytes, so that later pairs stay aligned."""
    pattern = re.compile(pairs)

    def handler(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeDecodeError):  # the handler is for decoding only
            raise error
        pair = pattern.match(error.object, error.start)
        found = character(pair[0])[:1] if pair else "\ufffd"
        if not pair or (found == "\ufffd" and pair[0][1] < 0x80):  # the second may be a letter of its own
            return "\ufffd", error.start + 1
        return found, pair.end()

    codecs.register_error(f"mailer.{codec}", handler)


_register("euc_jp", rb"[\xa1-\xfe]{2}", _pair_of_euc)
_register("big5hkscs", rb"[\x81-\xfe][\x40-\x7e\xa1-\xfe]", _pair_of_big5)

# Each decoder, by the name of Python's codec that it stands in for when that codec fails.
DECODERS = {"iso2022_jp_ext": iso_2022_jp, "euc_jp": euc_jp, "big5hkscs": big5}
