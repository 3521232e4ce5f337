"""Finds the parts of a mail (RFC 2045, RFC 2046) in its bytes, without copying them.

Promises a tree for any bytes, in time linear in them: at most `PARTS` parts and `DEPTH` levels; what is beyond is
not parsed, and a defect says so. A multipart is split at its own boundary before its parts are parsed, so the end of a
part also ends a multipart in it that lacks its last boundary. Called by `reading`, `imap.fetch` and `imap.parts`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from mailer.reading import headers, parameters, transfer

# Real mail has under a hundred parts and under ten levels; each level is one more pass over the bytes below it.
PARTS = 1000
DEPTH = 20

_LONE_CR = re.compile(rb"\r(?!\n)")
_TAIL = re.compile(rb"(--)?[ \t]*(?:\n|\Z)")
_LIKELY_BOUNDARY = re.compile(rb"^--([^\n]{1,200})\n(?=content-)", re.MULTILINE | re.IGNORECASE)


@dataclass(eq=False)
class Part:
    """One part: its header fields, where its body lies, and the parts in it. `closed` says whether its end was seen.

    `in_headers` says that the end of its header was not seen; `boundary` is the one that a multipart was split at.
    """

    raw: bytes
    fields: headers.Fields
    start: int
    end: int
    kind: str = "text/plain"
    parameters: Mapping[str, str] = field(default_factory=dict)
    children: list["Part"] = field(default_factory=list)
    closed: bool = True
    in_headers: bool = False
    boundary: bytes = b""

    @property
    def disposition(self) -> tuple[str, Mapping[str, str]]:
        """`inline`, `attachment` or an empty string, and the parameters."""
        return parameters.parse(headers.first(self.fields, "content-disposition"))

    @property
    def encoding(self) -> str:
        """The transfer encoding, in lower case."""
        return _encoding(headers.first(self.fields, "content-transfer-encoding"))

    @property
    def name(self) -> str:
        """The file name that the part gives itself, or an empty string."""
        return self.disposition[1].get("filename") or self.parameters.get("name") or ""


@lru_cache(maxsize=256)
def _encoding(value: bytes) -> str:
    return value.split(b";")[0].split(b"(")[0].strip(b" \t\"'").decode("ascii", "replace").lower()


@dataclass(eq=False)
class _Budget:
    parts: int = PARTS
    defects: list[str] = field(default_factory=list)

    def spend(self) -> bool:
        self.parts -= 1
        if self.parts == 0:
            self.defects.append("parts")
        return self.parts > 0


def parse(raw: bytes, *, complete: bool = True) -> tuple[Part, list[str]]:
    """The tree of a mail, and its defects. With `complete=False` the bytes are only the beginning of the mail."""
    budget = _Budget()
    root = _parse(raw, 0, len(raw), "text/plain", DEPTH, budget, complete)
    endless = root.in_headers and len(raw) >= headers.BLOCK_LIMIT + complete
    if endless or (root.start > headers.MOST and sum(map(len, root.fields.values())) >= headers.MOST):
        budget.defects.append("header")
    return root, budget.defects


def kind_of(declared: bytes) -> tuple[str, Mapping[str, str]]:
    """The kind and the parameters in a Content-Type field; what names no kind is text (RFC 2045, section 5.2)."""
    kind, given = parameters.parse(declared)
    return (kind if kind.count("/") == 1 and kind[0] != "/" and kind[-1] != "/" else "text/plain"), given


def is_empty(multipart: Part) -> bool:
    """Whether a multipart has nothing but its last boundary, as some programs send it."""
    last = f"--{multipart.parameters.get('boundary', '').rstrip()}--".encode("utf-8", "replace")
    return multipart.raw[multipart.start : min(multipart.end, multipart.start + 1000)].strip() == last


def _parse(raw: bytes, start: int, end: int, default: str, depth: int, budget: _Budget, closed: bool) -> Part:
    fields, body, ended = headers.split(raw, start, end)
    if not closed and raw[max(start, body - 2) : body] not in (b"\n\n", b"\n") and b"\n" not in raw[body:end]:
        ended = False  # no empty line came before this piece of a line: it is a field cut short, not text
    part = Part(raw, fields, min(body, end), end, default, closed=closed, in_headers=not ended)
    declared = headers.first(fields, "content-type")
    if declared:
        part.kind, part.parameters = kind_of(declared)
    if part.kind.startswith("multipart/"):
        _parse_multipart(part, depth, budget)
    elif part.kind in ("message/rfc822", "message/global", "message/news"):
        _parse_message(part, depth, budget)
    return part


def _parse_message(part: Part, depth: int, budget: _Budget) -> None:
    if depth <= 0:
        budget.defects.append("nesting")
    elif budget.spend():
        raw, start, end = part.raw, part.start, part.end
        if part.encoding in ("base64", "quoted-printable"):  # not allowed in message/rfc822, but some send it
            raw = unix_lines(transfer.decode(raw[start:end], part.encoding)[0])
            start, end = 0, len(raw)
        part.children.append(_parse(raw, start, end, "text/plain", depth - 1, budget, part.closed))


def _parse_multipart(part: Part, depth: int, budget: _Budget) -> None:
    if depth <= 0:
        budget.defects.append("nesting")
        return
    default = "message/rfc822" if part.kind == "multipart/digest" else "text/plain"
    boundary = part.parameters.get("boundary", "").encode("utf-8", "replace").rstrip()
    spans = _spans(part, boundary) if boundary else []
    if not spans:
        likely = _LIKELY_BOUNDARY.search(part.raw, part.start, part.end)
        boundary = likely[1].rstrip() if likely else b""
        spans = _spans(part, boundary) if likely else []
    part.boundary = boundary
    for start, end, closed in spans:
        if not budget.spend():
            break
        part.children.append(_parse(part.raw, start, end, default, depth - 1, budget, closed))


def _spans(part: Part, boundary: bytes) -> list[tuple[int, int, bool]]:
    """Where the parts between the boundaries lie, and whether the end of each was seen."""
    raw, needle, spans, begin = part.raw, b"--" + boundary, [], -1
    position = raw.find(needle, part.start, part.end)
    while position >= 0:
        following = position + len(needle)
        if position == part.start or raw[position - 1] == 10:
            tail = _TAIL.match(raw, following, part.end)
            if tail:
                if begin >= 0:
                    spans.append((begin, max(begin, position - 1), True))
                begin = following = tail.end()
                if tail[1] or len(spans) > PARTS:
                    return spans
        position = raw.find(needle, following, part.end)
    if begin >= 0:
        spans.append((begin, part.end, part.closed))
    return spans


def unix_lines(raw: bytes) -> bytes:
    """The bytes with every line end (CRLF, CR or LF) as a single newline."""
    if b"\r" not in raw:
        return raw
    if _LONE_CR.search(raw):
        return raw.replace(b"\r\n", b"\n").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return raw.translate(None, b"\r")  # the same result in half the time


def as_mail(raw: bytes) -> bytes:
    """The bytes of a mail without byte order mark and leading empty lines; line ends become newlines, UTF-16 UTF-8."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raw = raw.decode("utf-16", "replace").encode("utf-8", "replace")
    return unix_lines(raw.removeprefix(b"\xef\xbb\xbf")).lstrip(b"\n")
