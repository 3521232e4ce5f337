"""Fetches as much of each mail as its reader wants: a first window of many mails at once, and more of the larger ones.

A mail that goes on behind its first window is fetched in growing windows, as long as its text goes on. Behind an
attachment only its further parts are asked for (`imap.parts`), or everything if the server does not give those.
Answers are bounded whatever the mail holds. Called by `imap`.
"""

from collections.abc import Callable, Sequence

from mailer.errors import ExitCode, MailboxError
from mailer.imap.parts import ANSWER, Cut, Refused, Unlike, cuts, following
from mailer.imap.syntax import for_now, numbers, responses
from mailer.imap.wire import Wire
from mailer.progress import Mail, pack
from mailer.reading.mime import as_mail

# The bytes of a mail that are fetched at first: nearly every text ends within them, while attachments go on behind.
_WINDOW = 65_536
# Room for as many characters as are recorded, in base64, with three bytes each; only characters like emoji have more.
_LONGEST = 4608 * 1024
# If the parts of one mail would take more commands than this, the mail is asked for as a whole instead.
_MOST_COMMANDS = 250
# The windows after the first one grow up to this; after an answer that took so many seconds the next one is small.
_STEP = 1024 * 1024
SLOW = 10.0


def beginnings(wire: Wire, uids: Sequence[int], length: int = _WINDOW) -> dict[int, bytes]:
    """The first window of each mail; those that the server refuses are left out."""
    return _windows(wire, uids, "", 0, length)


def ask_ahead(wire: Wire, uids: Sequence[int]) -> None:
    """Request the `beginnings` that will be asked for next, so that the server can look for them meanwhile."""
    wire.uid_fetch_ahead(pack(uids), _items("", 0, _WINDOW), len(uids) * _WINDOW)


def whole(wire: Wire, uid: int, raw: bytes, wants_more: Callable[[bytes], bool]) -> Mail:
    """As much of a mail as the reader wants: growing windows, and then what comes after attachments.

    Where the server does not give those parts, windows go on to the end. What it refuses it may give later (`refused`);
    what it numbers in its own way, and is beyond the limit of the windows, it will not (`cut`).
    """
    complete = len(raw) != _WINDOW
    no_parts: Refused | None = None
    only_names = False  # whether the parts that the server does not give have nothing but names that matter
    try:
        while not complete:
            beginning = as_mail(raw)  # made once for both functions that look at it
            goes_on = no_parts is not None or wants_more(beginning)
            wanted = len(raw) < _LONGEST and goes_on
            missing = [] if no_parts else cuts(beginning, in_text=goes_on)  # a text that is cut off stays so
            del beginning
            if missing:
                try:
                    return Mail(uid, raw + _Parts(wire, uid, wants_more).following(missing), complete=False)
                except Refused as refused:
                    no_parts = refused
                    only_names = all(cut.told for cut in missing)
            elif not wanted:
                break
            length = min(3 * len(raw) if wire.seconds < SLOW else _WINDOW, _STEP, _LONGEST - len(raw))
            more = _window(wire, uid, "", len(raw), length)
            complete = len(more) != length
            raw += more
            del more  # it is in there, and its room is needed
    except Refused:
        there = _is_there(wire, uid)  # else there is nothing to wait for
        return Mail(uid, raw, complete=False, refused=there, cut=not there)
    cut = no_parts is not None and not complete and not only_names
    return Mail(uid, raw, complete, refused=cut and not isinstance(no_parts, Unlike), cut=cut)


class _Parts:
    """The parts of one large mail, asked for by their numbers; bounded in bytes and commands."""

    def __init__(self, wire: Wire, uid: int, wants_more: Callable[[bytes], bool]) -> None:
        self._wire, self._uid, self._wants_more = wire, uid, wants_more
        self._spent = self._commands = 0

    def following(self, missing: Sequence[Cut]) -> bytes:
        """What comes after the attachment in which the mail is cut off, without the contents of further attachments."""
        return b"".join(piece for cut in missing for piece in following(cut, self._headers, self._text))

    def _headers(self, items: str) -> dict[str, bytes]:
        self._count()
        found = _sections(self._wire, [self._uid], f"(UID {items})", ANSWER).get(self._uid)
        if not found:
            raise Refused
        return found

    def _text(self, section: str, piece: bytes) -> bytes:
        """A part that is a text, behind its header, as far as the reader wants it; raises Refused."""
        start, complete = 0, False
        while not complete and self._spent < _LONGEST and self._wants_more(piece):
            self._count()
            length = min(max(_WINDOW, 3 * start), _STEP)
            more = _window(self._wire, self._uid, section, start, length)
            start, self._spent, complete = start + len(more), self._spent + len(more), len(more) != length
            piece += more
        if complete or self._spent >= _LONGEST:
            return piece
        # A part that is cut off in an attachment inside it may go on behind that attachment.
        return piece + self.following(cuts(as_mail(piece), in_text=self._wants_more(piece), number=section))

    def _count(self) -> None:
        self._commands += 1
        if self._commands > _MOST_COMMANDS:
            raise Unlike


def _window(wire: Wire, uid: int, section: str, start: int, length: int) -> bytes:
    """So much of a section of one mail; raises Refused."""
    found = _windows(wire, [uid], section, start, length).get(uid)
    if found is None or not (found or _is_there(wire, uid)):
        raise Refused
    return found


def _is_there(wire: Wire, uid: int) -> bool:
    """Whether a mail has not been deleted meanwhile: of one that has, some servers give nothing, as behind its end."""
    status, parts, _ = wire.ask("SEARCH", "UID", str(uid))
    return status != "OK" or uid in numbers(parts)


def _windows(wire: Wire, uids: Sequence[int], section: str, start: int, length: int) -> dict[int, bytes]:
    """The window of a section of each mail; mails that the server refuses are left out."""
    try:
        found = _sections(wire, uids, _items(section, start, length), len(uids) * length)
    except Refused:
        return {}
    return {uid: found[uid][section] for uid in uids if section in found.get(uid, ())}


def _items(section: str, start: int, length: int) -> str:
    return f"(UID BODY.PEEK[{section}]<{start}.{length}>)"


def _sections(wire: Wire, uids: Sequence[int], items: str, expected: int) -> dict[int, dict[str, bytes]]:
    """These items of each mail, by UID and section; raises Refused."""
    status, parts, words = wire.uid_fetch(pack(uids), items, expected)
    if status == "OK":
        found: dict[int, dict[str, bytes]] = {}
        for uid, bodies in responses(parts):  # responses about flags, or about other mails, may come in between
            found.setdefault(uid, {}).update(bodies)
        return found
    if for_now(words):
        raise MailboxError(f"{wire.host}: {words}", ExitCode.TEMPORARY)
    raise Refused
