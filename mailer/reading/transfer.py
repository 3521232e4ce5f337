"""Decodes the Content-Transfer-Encoding of a part (RFC 2045, section 6), however damaged.

Promises bytes for any bytes, in linear time; says whether everything could be decoded. Called by `content` and `mime`.
"""

import binascii
import re
from collections.abc import Iterator
from io import BytesIO

from mailer.reading import headers

# Lines of nothing but base64; one long line of it; and words or ruled lines, which base64 never looks like.
_BASE64 = re.compile(rb"(?:[ \t]*+[A-Za-z0-9+/]*+={0,2}+[ \t]*+(?:\n|\Z))*+")
_BASE64_LINE = re.compile(rb"^[A-Za-z0-9+/]{56,}=*$", re.MULTILINE)
_WORDS = re.compile(rb"[A-Za-z]{2} [A-Za-z]{2}|_{10}|-{10}")
_LONG_LINE = re.compile(rb"[^\n]{56}")  # as long as the lines of base64 are, but of anything
_PADDED_LINE = re.compile(rb"^[A-Za-z0-9+/]{3,}={1,2}$", re.MULTILINE)
_WORD = re.compile(rb"\s*(?:[A-Z]?[a-z]+|[A-Z]+)\s*")
_CONTROLS = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")  # what no text holds
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/\n"
_PIECE = 65_536
_SOFT_BREAK = re.compile(rb"=[ \t]+\n")
_UU_BEGIN = re.compile(rb"^begin [0-7]{3,4} [^\n]*\n", re.MULTILINE)


def decode(data: bytes, encoding: str) -> tuple[bytes, bool]:
    """The decoded bytes, and whether everything could be decoded."""
    if encoding == "base64":
        return _base64(data)
    if encoding == "quoted-printable":
        return _quoted_printable(data), True
    if encoding in ("x-uuencode", "uuencode", "x-uue", "uue"):
        return _uuencoded(data)
    return data, True


def _base64(data: bytes) -> tuple[bytes, bool]:
    """The decoded lines, and what a gateway or a mailing list put in clear before or after them."""
    if _is_clean(data):
        try:
            return binascii.a2b_base64(data), True
        except ValueError:
            return binascii.a2b_base64(_padded(data)), False
    end = _BASE64.match(data).end()  # type: ignore[union-attr]
    if end == len(data):
        return headers.base64(data), True  # with blanks, or in pieces that were encoded one by one
    head, rest = data[:end], data[end:]
    if not _BASE64_LINE.search(rest):
        # Behind its padding base64 is over, and what follows is in clear, unless it was encoded in pieces.
        padded = head.rstrip(b" \t\n").endswith(b"=") and not _goes_on(rest)
        if not padded and not _WORDS.search(rest):
            return headers.base64(data), False  # all of it is base64, some of it damaged
        if not head or _WORD.fullmatch(head):
            return data, False  # nothing of it was ever encoded
        return headers.base64(head) + b"\n" + rest, True  # a footer in clear
    begin = _BASE64_LINE.search(data).start()  # type: ignore[union-attr]
    if begin < end or (_LONG_LINE.search(data, 0, begin) and not _WORDS.search(data, 0, begin)):
        return headers.base64(data), False  # damaged as well
    # A banner in clear, perhaps with lines before it that are base64.
    text, whole = _base64(data[begin:])
    return _decoded(head) + data[end:begin] + text, whole


def _goes_on(rest: bytes) -> bool:
    """Whether there are more pieces of a text that were encoded one by one, each with its padding."""
    lines = (line[0] for line in _PADDED_LINE.finditer(rest))
    return any(map(_is_piece, lines))


def _is_piece(line: bytes) -> bool:
    """Whether a line is base64 as programs write it, in whole groups with no bits left over, and no word."""
    if len(line) % 4 or _WORD.fullmatch(line.rstrip(b"=")):
        return False
    return binascii.b2a_base64(binascii.a2b_base64(line), newline=False) == line


def _decoded(head: bytes) -> bytes:
    """Lines before a banner: decoded if they are base64 of a text and no word of the banner, or else as they are."""
    if _WORD.fullmatch(head):
        return head
    try:
        text = binascii.a2b_base64(head.translate(None, b" \t\n"), strict_mode=True)
        readable = not _CONTROLS.search(text.decode())
    except ValueError:
        return head
    return text + b"\n" if text and readable else head


def _is_clean(data: bytes) -> bool:
    """Whether all but the padding is base64 and newlines; checked in pieces, which takes little memory."""
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        if start + _PIECE >= len(data):
            piece = piece.rstrip(b"=\n")
        if piece.translate(None, _LETTERS):
            return False
    return True


def _padded(data: bytes) -> bytes:
    """Clean base64 whose end is missing, made decodable: with padding, or without a last letter that is left over."""
    missing = -(len(data) - data.count(b"\n") - data.count(b"=")) % 4
    return data + b"=" * missing if missing < 3 else data.rstrip(b"=\n")[:-1]


def _quoted_printable(data: bytes) -> bytes:
    if b"= " in data or b"=\t" in data:
        data = b"".join([_SOFT_BREAK.sub(b"=\n", piece) for piece in _pieces(data)])
    return binascii.a2b_qp(data)


def _pieces(data: bytes) -> Iterator[bytes]:
    """The data in pieces that end with a line: to edit millions of lines at once takes many times their memory."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + _PIECE) + 1 or start + _PIECE
        yield data[start:end]
        start = end


def _uuencoded(data: bytes) -> tuple[bytes, bool]:
    begin = _UU_BEGIN.search(data)
    if not begin:
        return data, False
    decoded = bytearray()
    lines = BytesIO(data)  # not a list: there may be millions
    lines.seek(begin.end())
    for line in lines:
        if line.strip() in (b"end", b"`", b""):
            break
        try:
            decoded += binascii.a2b_uu(line)
        except ValueError:
            return bytes(decoded), False
    return bytes(decoded), True
