"""One mailbox on an IMAP server: find what is new, fetch it in batches, mark it as seen.

Everything goes by UID. Mails are fetched with PEEK, and only as much of each as the reader wants; commands and answers
are bounded whatever the mailbox holds. A connection is kept as long as it works and made again when it is needed.
Raises `MailboxError` when the mailbox cannot be read now; a single mail that the server refuses is handed on without
bytes. Called by `collect`.
"""

import contextlib
import imaplib
import logging
import random
import ssl
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence

from mailer.errors import ExitCode, MailboxError
from mailer.imap.fetch import SLOW, ask_ahead, beginnings, whole
from mailer.imap.login import connect
from mailer.imap.syntax import HIGHEST, mailbox_name, not_for_good, number, numbers, responses
from mailer.imap.wire import Wire
from mailer.progress import Mail, Selected, pack
from mailer.sasl import Login
from mailer.settings import Endpoint

_log = logging.getLogger(__name__)

# Mails in one FETCH, at most and at first: with the window of each, the number bounds the answer, whatever sizes the
# server claims. It grows after quick answers and shrinks after slow ones, so that on a slow line, too, there is
# something to log every now and then.
_MAILS, _FEW = 100, 10
_QUICK = 2.0
# Mails that one STORE marks: some servers take no command longer than 8,000 bytes.
_MARKED_AT_ONCE = 500
# How many other mails are asked for, to find out whether the server gives any.
_PROBES = 5
# If a batch has fewer bytes than this, the next is asked for while this one is read: both are in memory then.
_LIGHT = 4_194_304
# In a mailbox with more mails than this, each SEARCH covers so many UIDs, which bounds its answer; or more UIDs, where
# there would be more searches than _SEARCHES: the UIDs of old mailboxes are high.
_SEARCHED = 50_000
_SEARCHES = 1_000
_UID = 20  # bytes of an answer for each UID, and some to spare


class Mailbox:
    """A folder of an account; `mark_seen` decides whether it is opened for changes.

    `alive` is called after each answer to a FETCH.
    """

    def __init__(
        self, endpoint: Endpoint, login: Login, folder: str, *, context: ssl.SSLContext, timeout: float,
        mark_seen: bool = True, stopping: Callable[[], bool] = lambda: False,
        alive: Callable[[], object] = lambda: None,
    ) -> None:
        self._connect: Callable[[], Wire] = lambda: connect(endpoint, login, context, timeout, stopping)
        self._alive = alive
        self._server = f"{endpoint.host.lower()}:{endpoint.port}"
        self._user = login.user
        self._folder = folder
        self._mark_seen = mark_seen
        self._wire: Wire | None = None
        self._at_once = _FEW
        self._takes_marks = self._marks_refused = False
        self._selected = Selected(0, 0)
        self._count = 0
        self._broke: set[int] = set()  # the UIDs over which the connection broke in `gives_others`

    def open(self) -> Selected:
        """Connect, log in and select the folder, unless an earlier connection still works."""
        if self._wire is not None:
            with contextlib.suppress(MailboxError):  # servers end idle connections: that is no outage
                if self._wire.command("NOOP")[0] == "OK":
                    return self._selected._replace(told=False)
            self.close()
        self._wire = self._connect()
        self._wire.answered = self._alive
        self._select(readonly=not self._mark_seen)
        return self._selected

    def close(self) -> None:
        """End the connection, without waiting for a farewell."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.shutdown()

    def check(self) -> Iterator[str]:
        """Try everything that reading needs and change nothing: one line for each step that worked."""
        self._wire = self._connect()
        yield f"connected to {self._server}, {self._wire.protection}"
        yield f"logged in as {self._user}"
        self._select(readonly=True)
        yield f"opened the folder {self._folder}: {self._count} mail{'s' * (self._count != 1)}"
        self.close()

    def unseen(self) -> "array[int]":
        """The UIDs of all unseen mails, ascending."""
        return self._search(1, "UNSEEN")

    def since(self, uid: int) -> "array[int]":
        """The UIDs from this one on, ascending."""
        return self._search(uid) if uid <= HIGHEST else array("I")

    def fetch(self, uids: Sequence[int], wants_more: Callable[[bytes], bool]) -> Iterator[Mail]:
        """These mails, ascending; mails that are gone are left out, mails that the server refuses have no bytes."""
        batch, later = uids[: self._at_once], uids[self._at_once :]
        while batch:
            found = beginnings(self._live(), batch)
            self._suit(self._live().seconds)
            following, later = later[: self._at_once], later[self._at_once :]
            if following and sum(map(len, found.values())) < _LIGHT:
                ask_ahead(self._live(), following)
            missing = [uid for uid in batch if uid not in found]
            still_there = self._present(missing)
            for uid in batch:
                if uid in still_there and len(batch) > 1:  # one bad mail can make the server refuse them all
                    found.update(beginnings(self._live(), [uid]))
                if uid in found:
                    beginning = found.pop(uid)
                    try:
                        mail = whole(self._live(), uid, beginning, wants_more)
                    except MailboxError:  # perhaps it is this mail that breaks the connection, again and again
                        yield Mail(uid, beginning, complete=False, refused=True)
                        raise
                    yield mail
                    del mail  # perhaps megabytes, not needed while the next one comes
                elif uid in still_there and (len(batch) == 1 or self._present([uid])):
                    yield Mail(uid, None)
            batch = following

    def gives_others(self, refused: Collection[int]) -> bool:
        """Whether the server gives one of a few mails other than those refused.

        They are chosen at random. Those below the highest refused UID come first, as most of them have been given
        before, and last those over which the connection broke when they were asked for here.
        """
        some = random.sample(range(1, self._count + 1), min(self._count, _PROBES))
        for sequence in (pack(sorted(some)) or "1", "1,*"):  # some numbers of the former may be too high by now
            _, parts, _ = self._live().ask("SEARCH", sequence)
            others = [uid for uid in numbers(parts) if uid not in refused]
            random.shuffle(others)
            others.sort(key=lambda uid: (uid in self._broke, uid > max(refused, default=0)))
            if any(map(self._gives, others)):
                return True
        return False

    def _gives(self, uid: int) -> bool:
        self._broke.add(uid)  # for as long as nothing else is known
        given = bool(beginnings(self._live(), [uid], 1))
        self._broke.discard(uid)
        return given

    def mark(self, uids: Sequence[int]) -> bool:
        """Set \\Seen on these mails; return whether none is left to mark. A refusal is logged, once.

        Without MARK_SEEN none ever is; in a folder that takes no marks they all are, until it is opened again.
        """
        if not self._takes_marks or not uids:
            return bool(uids) and not self._mark_seen  # without MARK_SEEN nothing is left to do
        for start in range(0, len(uids), _MARKED_AT_ONCE):
            some = pack(uids[start : start + _MARKED_AT_ONCE])
            status, _, words = self._live().ask("STORE", some, "+FLAGS.SILENT", r"(\Seen)")
            if status != "OK":
                level = logging.DEBUG if self._marks_refused else logging.WARNING  # told once
                _log.log(level, "%s: mails cannot be marked as seen: %s", self._folder, words)
                self._takes_marks = not_for_good(words)  # False: no further STORE until the folder is opened again
                self._marks_refused = True
                return False
        self._marks_refused = False
        return True

    def _suit(self, seconds: float) -> None:
        """Choose the size of the next FETCH by the seconds that the last one took."""
        if seconds > SLOW:
            self._at_once = max(1, self._at_once // 4)
        elif seconds < _QUICK:
            self._at_once = min(2 * self._at_once, _MAILS)

    def _live(self) -> Wire:
        if self._wire is None:
            raise MailboxError("the connection is closed")
        return self._wire

    def _select(self, readonly: bool) -> None:
        """Open the folder and note what it says about its UIDs."""
        wire = self._live()
        self._takes_marks = not readonly
        with wire.translated(wire.host):
            try:
                status, answer = wire.select(mailbox_name(self._folder), readonly)
            except imaplib.IMAP4.readonly:
                _log.warning("%s is read-only: mails are not marked as seen", self._folder)
                return self._select(readonly=True)
            words = wire.words(answer[:1])
            if status != "OK":
                code = ExitCode.TEMPORARY if not_for_good(words) else ExitCode.CONFIG
                raise MailboxError(f"the folder {self._folder} cannot be opened: {words}", code)
            self._count = number(answer[-1])
            uidvalidity, next_uid = (number(wire.response(code)[1][-1]) for code in ("UIDVALIDITY", "UIDNEXT"))
            if not uidvalidity:
                raise MailboxError(f"the folder {self._folder} has no lasting UIDs (no UIDVALIDITY)", ExitCode.CONFIG)
            told = 0 < next_uid <= _SEARCHED * _SEARCHES  # a higher one is made up by the server
            if not told:
                next_uid = self._highest() + 1
        self._selected = Selected(uidvalidity, next_uid, told)
        return None

    def _highest(self) -> int:
        """The highest UID there is."""
        if not self._count:
            return 0
        _, parts, words = self._live().ask("FETCH", "*", "(UID)")
        uids = [uid for uid, _ in responses(parts)]
        if not uids:
            raise MailboxError(f"{self._folder}: the UID of the last mail is not to be had: {words}")
        return max(uids)

    def _search(self, first: int, criterion: str = "") -> "array[int]":
        """The UIDs from `first` on that meet a criterion, ascending."""
        uids = array("I")
        width = max(_SEARCHED, self._selected.next_uid // _SEARCHES) if self._count > _SEARCHED else 1 << 32
        most = min(width, max(self._count, _SEARCHED))
        while first + width < self._selected.next_uid:
            uids.extend(self._found(f"{first}:{first + width - 1}", criterion, most))
            first += width
        # The last mail always answers to `n:*`, however far below n it is (RFC 3501, section 6.4.8).
        uids.extend(uid for uid in self._found(f"{first}:*", criterion, most) if uid >= first)
        return uids

    def _found(self, uids: str, criterion: str = "", most: int = _SEARCHED) -> list[int]:
        """Those of a set of UIDs that meet a criterion; the answer has room for `most` of them."""
        status, parts, words = self._live().ask("SEARCH", "UID", uids, *criterion.split(), expected=_UID * most)
        if status != "OK":
            self._select(readonly=not self._mark_seen)
            if not self._count:  # some servers refuse any search where there is no mail
                return []
            raise MailboxError(f"{self._folder}: the search for new mails is refused: {words}")
        return numbers(parts)

    def _present(self, uids: Sequence[int]) -> set[int]:
        """Which of these mails are still in the folder."""
        return set(self._found(pack(uids))) if uids else set()
