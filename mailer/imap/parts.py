"""What follows the fetched beginning of a large mail: the headers of its further parts, and the texts among them.

A beginning that ends inside an attachment tells which part of which multipart that is. The parts after it are asked for
by their numbers (RFC 3501, section 6.4.5) and appended, without the contents of attachments: that makes a smaller mail
of the same structure. Called by `imap.fetch`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mailer.reading import content, headers, mime, parameters

# How many part headers one FETCH asks for, at first and at most; and how many bytes of each header.
_FEW, _MANY, _HEADER = 8, 64, 8192
# The bytes that such an answer may have.
ANSWER = _MANY * _HEADER


class Refused(Exception):  # noqa: N818 - nothing went wrong
    """The server does not give what it is asked for."""


class Unlike(Refused):
    """The server numbers or shows the parts of the mail in another way than Mailer, or they take too many commands."""


@dataclass(frozen=True)
class Cut:
    """A multipart in which the beginning of a mail ends: its boundary, and the last part begun, with its number.

    `told`: the beginning has its text, so that of the further parts only their headers are wanted.
    """

    section: str  # the prefix of its parts' numbers, such as `2.`
    boundary: bytes
    number: int
    last: mime.Part
    told: bool


def cuts(raw: bytes, *, in_text: bool, number: str = "") -> list[Cut]:
    """The multiparts whose further parts are missing, the innermost first; with `in_text`, none if it ends in a text.

    The bytes are those of a mail, or of its part with this number.
    """
    root, _ = mime.parse(raw, complete=False)
    found: list[Cut] = []
    if not number and not root.kind.startswith("multipart/"):
        number = "1"  # the body of a mail that is no multipart is its part 1
    part, section = root, f"{number}." if number else ""
    while part.children and part.raw is root.raw:
        last = part.children[-1]
        if part.kind.startswith("multipart/"):
            if not last.closed:
                # All versions in a multipart/alternative say the same; an attachment in it is no version.
                told = part.kind == "multipart/alternative" and not _is_attachment(last.fields)
                told = told and _has_text(part.children[:-1])
                found.insert(0, Cut(section, part.boundary, len(part.children), last, told))
            section += f"{len(part.children)}."
        elif not last.kind.startswith("multipart/"):
            section += "1."
        part = last
    return found if not in_text or _is_attachment(part.fields) else []


def following(
    cut: Cut, ask: Callable[[str], Mapping[str, bytes]], text: Callable[[str, bytes], bytes]
) -> Iterator[bytes]:
    """What comes after the last part begun: boundaries, the headers of parts, and the contents of those that are texts.

    `ask(items)` gives the bodies of a FETCH, by section; `text(section, header)` gives a part, as far as the reader
    wants it. Raises Unlike.
    """
    start, at_once = cut.number, _FEW
    empty = 0  # parts in a row without a header: they are empty if others follow, and else not there
    while start < mime.PARTS:
        sections = {number: f"{cut.section}{number}" for number in range(start, start + at_once)}
        start, at_once = start + at_once, min(2 * at_once, _MANY)
        found = ask(" ".join(f"BODY.PEEK[{section}.MIME]<0.{_HEADER}>" for section in sections.values()))
        for number, section in sections.items():
            header = found.get(f"{section}.MIME", b"")
            if number == cut.number:
                if _fields(header) != cut.last.fields:
                    raise Unlike
            elif not header:
                empty += 1
            else:
                header = (header.strip() or b"Content-Type: text/plain") + b"\r\n\r\n"
                yield (b"\r\n--" + cut.boundary + b"\r\n") * (1 + empty)
                yield header if cut.told or _is_attachment(_fields(header)) else text(section, header)
                empty = 0
        if empty > 1:  # a single one does not tell what comes behind it
            yield b"\r\n--" + cut.boundary + b"--\r\n"
            return


def _has_text(parts: Sequence[mime.Part]) -> bool:
    found = content.Content()
    for part in parts:
        found.gather(part)
    return any(map(content.has_words, found.texts))


def _fields(header: bytes) -> headers.Fields:
    lines = mime.unix_lines(header)
    return headers.split(lines, 0, len(lines))[0]


def _is_attachment(fields: headers.Fields) -> bool:
    kind, _ = mime.kind_of(headers.first(fields, "content-type"))
    disposition = parameters.parse(headers.first(fields, "content-disposition"))[0]
    return disposition == "attachment" or not kind.startswith(("text/", "multipart/", "message/"))
