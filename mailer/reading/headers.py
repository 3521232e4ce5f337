"""Finds header fields in the bytes of a mail (RFC 5322), and decodes the encoded words in them (RFC 2047).

Promises an answer for any bytes, in time linear in the block; `first` and `text` cut values at `VALUE_LIMIT`. Line ends
have to be single newlines. Called by `mime` for each part, by `bounces`, `content`, `correspondence`, `imap.parts`,
`parameters` and `reading` for fields and their values, and by `transfer` for base64.
"""

import binascii
import itertools
import re
from collections.abc import Sequence
from functools import lru_cache

from mailer.reading import charsets, utf8

# A header longer than this is cut here; mail servers refuse far shorter ones.
BLOCK_LIMIT = 1_048_576
# Values that people or programs read are shorter than this; longer ones are attacks on decoders.
VALUE_LIMIT = 8_192
# Real mail has a few dozen fields; fields beyond this number are ignored.
MOST = 10_000

Fields = dict[str, list[bytes]]

_FIELD = re.compile(rb"^([!-9;-~]++)[ \t]*+:[ \t]*+([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.MULTILINE)
_BOUNDARY, _PART = re.compile(rb"boundary[ \t]*=", re.IGNORECASE), re.compile(rb"--[^\n]*\ncontent-", re.IGNORECASE)
_NAME = re.compile(rb"[!-9;-~]+[ \t]*:")
# All lines that may stand in a header: fields, continuations of fields, and mbox separators.
_LINES = re.compile(rb"(?:(?:[!-9;-~]++[ \t]*:|[ \t]|>?From )[^\n]*(?:\n|\Z))*+")
_BLANKS = re.compile(r"[ \t\r\n\v\f]+")

# An encoded word. Its text may hold blanks, folds and raw bytes; at the end of a value its closing ?= may be missing.
_WORD = re.compile(rb"=\?([^?\s]{1,80})\?([bBqQ])\?(?:((?:(?!=\?[^=]).)*?)\?=|([^\s?]*)\??\Z)", re.DOTALL)
_HEX = re.compile(rb"=([0-9A-Fa-f]{2})")
_BETWEEN_PADDING = re.compile(rb"[^=]+")
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))


def split(raw: bytes, start: int, end: int) -> tuple[Fields, int, bool]:
    """The fields of the header block at `start`, where the body begins, and whether the block's end was seen."""
    blank = start - 1 if raw.startswith(b"\n", start) else raw.find(b"\n\n", start, min(end, start + BLOCK_LIMIT))
    ended = blank >= 0
    body = blank + 2 if ended else min(end, start + BLOCK_LIMIT)
    if blank < start:
        block = b"" if ended else raw[start:body]
        body = start + 1 if ended else body
    else:
        block = raw[start:blank]
    found = _found(block)
    lines = len(found) + b"".join([value for _, value in found]).count(b"\n")
    if lines <= block.count(b"\n"):
        end_of_fields = _end_of_fields(block)
        if end_of_fields < len(block):  # the text begins without an empty line before it
            body, ended = start + end_of_fields, True
            found = _found(block[:end_of_fields])
    fields: Fields = {}
    for name, value in found:
        fields.setdefault(_key(name), []).append(value)
    return fields, body, ended


def _found(block: bytes) -> list[tuple[bytes, bytes]]:
    """The names and values of the fields in a block."""
    if len(block) < MOST:  # so few bytes cannot hold too many fields: the faster way
        return _FIELD.findall(block)
    return [(field[1], field[2]) for field in itertools.islice(_FIELD.finditer(block), MOST)]


@lru_cache(maxsize=1024)
def _key(name: bytes) -> str:
    return name.decode("ascii").lower()


def _end_of_fields(block: bytes) -> int:
    """Where the first line begins that cannot belong to a header; a stray line before a field is skipped."""
    position, boundary = 0, -1
    while position < len(block):
        position = _LINES.match(block, position).end()  # type: ignore[union-attr]
        line_end = block.find(b"\n", position)
        if line_end < 0 or not _NAME.match(block, line_end + 1):
            break
        if _PART.match(block, position):  # which may follow without an empty line, if it is the first of a multipart
            if boundary < 0:
                found = _BOUNDARY.search(block)
                boundary = found.end() if found else len(block)
            if boundary <= position:
                break
        position = line_end + 1
    return position


def first(fields: Fields, name: str) -> bytes:
    """The first value of a field that is not blank, unfolded; empty when there is none."""
    values = fields.get(name)
    return unfold(_not_blank(values)).strip() if values else b""


def _not_blank(values: Sequence[bytes]) -> bytes:
    return next((value[:VALUE_LIMIT] for value in values if value and not value.isspace()), b"")


def unfold(value: bytes) -> bytes:
    """A value on one line: its line ends are left out, the blanks after them stay."""
    return value.replace(b"\n", b"") if b"\n" in value else value


def text(fields: Fields, name: str, charset: str | None = None) -> str | None:
    """The decoded value of a field on one line; None when it is missing. `charset` helps with raw 8-bit bytes."""
    values = fields.get(name)
    return decode(_not_blank(values), charset) if values else None


def decode(value: bytes, charset: str | None = None) -> str:
    """A value with its encoded words decoded and its white space collapsed."""
    # Valid ASCII or UTF-8 (RFC 6532) is never read in the charset of the text: one like UTF-16 would garble it.
    if value.isascii() or utf8.is_valid(value):
        charset = None
    if b"=?" not in value:
        return one_line(charsets.decode(unfold(value), charset))
    pieces: list[str] = []
    run: list[tuple[str, bytes, bytes]] = []
    position = 0
    for word in _WORD.finditer(value):
        between = value[position : word.start()]
        if between and not (run and between.isspace()):
            pieces.append(_decode_run(run))
            run = []
            pieces.append(charsets.decode(unfold(between), charset))
        name = word[1].decode("ascii", "replace").partition("*")[0]
        run.append((name.lower(), word[2].lower(), word[4] if word[3] is None else word[3]))
        position = word.end()
    pieces.append(_decode_run(run))
    pieces.append(charsets.decode(unfold(value[position:]), charset))
    return one_line("".join(pieces))


def one_line(value: str) -> str:
    """A value with every run of blanks and line ends replaced by one blank."""
    return _BLANKS.sub(" ", value).strip(" ")


def _decode_run(run: list[tuple[str, bytes, bytes]]) -> str:
    """Decode adjacent encoded words, those of one charset together: a character may be split between two."""
    text, data, pending = "", b"", b""
    for index, (charset, encoding, encoded) in enumerate(run):
        following = run[index + 1] if index + 1 < len(run) else ("", b"", b"")
        if encoding == b"b":
            pending += encoded.translate(None, b" \t\n")
            # Some programs split the base64 itself between two words.
            if len(pending) % 4 and not pending.endswith(b"=") and following[:2] == (charset, encoding):
                continue
            data += base64(pending)
            pending = b""
        else:
            data += _quoted(encoded)
        if following[0] != charset:
            text += charsets.decode(data, charset)
            data = b""
    return text


def base64(encoded: bytes) -> bytes:
    """Decode base64, however damaged: bytes outside its alphabet are ignored, and padding may be missing."""
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        decoded = bytearray()  # not a list: there may be millions of runs
        for run in _BETWEEN_PADDING.finditer(encoded):
            letters = run[0].translate(None, _NOT_BASE64)
            letters = letters[: len(letters) - 1] if len(letters) % 4 == 1 else letters
            decoded += binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))
        return bytes(decoded)


def _quoted(encoded: bytes) -> bytes:
    """Decode the Q encoding: underscores are blanks; folds inside a word are dropped."""
    unfolded = re.sub(rb"\n[ \t]*", b"", encoded).replace(b"_", b" ")
    return _HEX.sub(lambda found: bytes((int(found[1], 16),)), unfolded)
