"""What a person would read in a mail: its text, and the names of its attachments.

Promises the plain-text version where there is one that is not empty, else the HTML as text. Inline parts keep their
order, and forwarded mails their main headers. At most `TEXT_LIMIT` characters. Called by `reading` and `imap.parts`.
"""

import re
from dataclasses import dataclass, field

from mailer.reading import charsets, flowed, headers, htmltext, invitation, mime, transfer
from mailer.reading.longtext import substitute

# The record's limit: five hundred pages of text.
TEXT_LIMIT = 1_048_576
# Bytes per character: at most four as such, three times that in quoted-printable (=XX), and up to six in base64.
_WIDTHS = {"": 4, "7bit": 4, "8bit": 4, "binary": 4, "quoted-printable": 12}
_WIDTH = 6
# How many names of attachments a person would look at, and how long a name file systems allow.
_NAMES, _NAME = 1000, 255

# A picture within the HTML, as a data: URL, which may be longer than all of the text.
_PICTURE = re.compile(rb"data:image/[\w.+-]{1,40};base64,[A-Za-z0-9+/=\s]{1000,}+", re.IGNORECASE)
_READABLE = {"text/plain", "text/html", "text/enriched", "text/richtext", "text/markdown", "text/x-markdown"}
_SHOWN_HEADERS = ("From", "Date", "Subject", "To", "Cc")
_FORWARDED = "---------- Forwarded message ----------"
_ENRICHED = re.compile(r"<<|<[^<>]{1,60}>")
# Invisible characters; some plain-text versions hold nothing else. Only texts shorter than `_EMPTY` are checked.
_NO_WIDTH = dict.fromkeys((0xAD, 0x34F, 0x61C, 0x180E, *range(0x200B, 0x2010), 0x2060, 0xFEFF))
_EMPTY = 1000


@dataclass(eq=False)
class Content:
    """The text and the attachments' names gathered so far; `measuring` finds only how much text there is."""

    texts: list[str] = field(default_factory=list)
    attachments: list[str] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    calendars: list[mime.Part] = field(default_factory=list)
    named: list[mime.Part] = field(default_factory=list)
    shown: set[int] = field(default_factory=set)
    complete_texts: int = 0
    length: int = 0
    html_left: int = htmltext.LIMIT
    cut: bool = False
    measuring: bool = False

    @property
    def text(self) -> str:
        """All readable text; if there is none, the titles of calendar invitations."""
        whole = self._words or "\n".join(invitation.words(_decoded(calendar)[0]) for calendar in self.calendars)
        return whole[:TEXT_LIMIT]

    @property
    def _words(self) -> str:
        return "\n".join(filter(has_words, self.texts))

    @property
    def truncated(self) -> bool:
        """Whether the text goes on beyond a limit."""
        return self.cut or self.length > TEXT_LIMIT or self.html_left < 0

    def gather(self, part: mime.Part, *, chosen: bool = True, first: bool = True, related: bool = False) -> None:
        """Take in a part and all parts in it; with `chosen=False` not its text, which an alternative has given."""
        kind, attached = part.kind, part.disposition[0] == "attachment"
        if part.children and not attached:
            if not kind.startswith("multipart/"):
                self._forwarded(part, chosen)
            elif kind == "multipart/alternative":
                self._alternative(part, chosen)
            else:
                self._sequence(part, chosen)
        elif kind.startswith("multipart/") and not attached:  # one that is damaged, or empty
            if chosen and not mime.is_empty(part):
                self.show(part)
        elif self._is_text(part, first, related):
            if chosen:
                self.show(part)
        else:
            self.attach(part)

    def make_up(self) -> None:
        """If nothing readable was found, show the first named text: some phones send their message as one."""
        if self.named and not self._words:
            self.show(self.named[0])

    def _is_text(self, part: mime.Part, first: bool, related: bool) -> bool:
        disposition = part.disposition[0]
        if not part.kind.startswith("text/") or disposition == "attachment" or part.kind == "text/calendar":
            return False
        if first or (disposition == "inline" and part.kind in _READABLE):
            return True
        return not related and not part.name and part.kind != "text/rfc822-headers"

    def _sequence(self, part: mime.Part, chosen: bool) -> None:
        """Take in parts one after another: mixed, related (one is the text), signed, report, digest, unknown kinds."""
        related = part.kind == "multipart/related"
        report = part.kind == "multipart/report"
        root = _root(part) if related else part.children[0]
        for child in part.children:
            if child.kind.startswith("message/") and (report or (related and child is not root)):
                self.attach(child)
            else:
                self.gather(child, chosen=chosen, first=child is root, related=related and child is not root)

    def _alternative(self, part: mime.Part, chosen: bool) -> None:
        """Take in the first version that is not empty: plain text before HTML before others."""
        for child in sorted(part.children, key=_preference):
            before = len(self.texts)
            self.gather(child, chosen=chosen, first=child.kind in _READABLE)
            if any(map(has_words, self.texts[before:])):
                chosen = False

    def _forwarded(self, part: mime.Part, chosen: bool) -> None:
        inner = part.children[0]
        if chosen:
            lines = [(name, headers.text(inner.fields, name.lower())) for name in _SHOWN_HEADERS]
            shown = [f"{name}: {value}" for name, value in lines if value]
            self._add("\n".join([*([""] if self.length else []), _FORWARDED, *shown, ""]))
        self.gather(inner, chosen=chosen)

    def attach(self, part: mime.Part) -> None:
        """Name an attachment."""
        if part.kind == "text/calendar":
            self.calendars.append(part)
        elif part.kind == "text/plain" and part.disposition[0] != "attachment":
            self.named.append(part)
        if len(self.attachments) < _NAMES:
            self.attachments.append(headers.one_line(part.name)[:_NAME] or part.kind)

    def show(self, part: mime.Part) -> None:
        """Add the text of a part, unless the limit has been reached."""
        self.shown.add(id(part))
        self.complete_texts += part.closed
        if self.truncated or (self.measuring and not part.closed and part.end - part.start < TEXT_LIMIT - self.length):
            return
        self.cut = self.cut or part.end - part.start > _limit(part) or not (part.closed or self.measuring)
        text, whole = _decoded(part)
        self.cut = self.cut or len(text) > charsets.LONGEST
        if not whole and not self.cut and "encoding" not in self.defects:
            self.defects.append("encoding")
        if part.kind == "text/html":
            left, self.html_left = max(0, self.html_left), self.html_left - len(text)
            cut, text = self.cut or len(text) > left, text[:left]
            text = text[:1] if self.measuring else htmltext.to_text(text, cut=cut)
        elif part.kind in ("text/enriched", "text/richtext"):
            text = substitute(_ENRICHED, lambda tag: "<" if tag[0] == "<<" else "", text)
        elif part.parameters.get("format", "").lower() == "flowed":
            text = flowed.unflowed(text, part.parameters.get("delsp", "").lower() == "yes")
        # The last line end belongs to the mail and not to the text, except in base64, which encodes the text alone.
        self._add(text if part.encoding == "base64" and part.kind == "text/plain" else text.removesuffix("\n"))

    def _add(self, text: str) -> None:
        self.length += len(text) + bool(self.texts)
        self.texts.append(text)


def has_words(text: str) -> bool:
    """Whether the text has anything visible in it."""
    return not (not text or text.isspace() or (len(text) < _EMPTY and not text.translate(_NO_WIDTH).strip()))


def _root(related: mime.Part) -> mime.Part:
    """The root part (RFC 2387): the one that the `start` parameter names, else the first that may hold text."""
    start = related.parameters.get("start", "").strip(" <>")
    for part in related.children if start else ():
        if headers.first(part.fields, "content-id").decode("utf-8", "replace").strip(" <>") == start:
            return part
    texts = (part for part in related.children if part.kind.startswith(("text/", "multipart/", "message/")))
    return next(texts, related.children[0])


def _preference(part: mime.Part) -> int:
    while part.children and part.kind.startswith("multipart/"):
        part = part.children[0]
    return {"text/plain": 0, "text/html": 1}.get(part.kind, 2 if part.kind in _READABLE else 3)


def _limit(part: mime.Part) -> int:
    """How many bytes of a part are decoded: enough for all the text that is recorded."""
    return _WIDTHS.get(part.encoding, _WIDTH) * TEXT_LIMIT


def _decoded(part: mime.Part) -> tuple[str, bool]:
    """The text of a part as it was written, and whether it could be decoded without damage."""
    end = min(part.end, part.start + _limit(part))
    data, whole = transfer.decode(part.raw[part.start : end], part.encoding)
    charset = part.parameters.get("charset")
    if part.kind == "text/calendar":
        data = invitation.unfolded(data)
    if part.kind == "text/html":
        data = _PICTURE.sub(b"", data)
        charset = charsets.of_html(data, charset)
    text = charsets.decode(data, charset).removeprefix("\ufeff")  # a byte order mark
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text, whole
