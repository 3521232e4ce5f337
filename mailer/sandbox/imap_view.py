"""A selected folder as one IMAP client knows it: SEARCH, FETCH, STORE, EXPUNGE, and telling what has changed."""

import imaplib
import re
from collections.abc import Callable

from mailer.sandbox.imap_search import search
from mailer.sandbox.imap_syntax import BadError, NoError, Token, section, select, text_of
from mailer.sandbox.store import SYSTEM_FLAGS, Folder, Message

MAX_FLAGS = 64
_PLAIN = ("FLAGS", "UID", "INTERNALDATE", "RFC822.SIZE")
_SYSTEM = {flag.upper(): flag for flag in SYSTEM_FLAGS}


class View:
    """The messages under the sequence numbers that the client knows; `write` sends untagged responses."""

    def __init__(self, folder: Folder, write: Callable[[bytes], None], *, read_only: bool) -> None:
        self.read_only = read_only
        self._folder = folder
        self._write = write
        self._messages: list[Message] = []
        self._told: dict[int, frozenset[str]] = {}  # the flags of each UID that the client knows of
        self._next_uid = 0
        self._changes = -1

    def perform(self, name: str, arguments: list[Token], *, by_uid: bool) -> str:
        """Do SEARCH, FETCH or STORE (the number of arguments has been checked); return the tagged reply."""
        chosen, *rest = arguments
        if name == "SEARCH":
            self.search(arguments, by_uid=by_uid)
        elif name == "FETCH":
            self.fetch(text_of(chosen), rest[0] if isinstance(rest[0], list) else rest, by_uid=by_uid)
        else:
            how, *flags = rest
            flags = flags[0] if isinstance(flags[0], list) else flags
            self.store(text_of(chosen), text_of(how), flags, by_uid=by_uid)
        return f"OK {name} done"

    def search(self, keys: list[Token], *, by_uid: bool) -> None:
        """Send the numbers, or the UIDs, of the messages that match."""
        found = search(keys, self._messages)
        names = [self._messages[position].uid if by_uid else position + 1 for position in found]
        self._write(b" ".join([b"* SEARCH", *(b"%d" % name for name in names)]) + b"\r\n")

    def fetch(self, chosen: str, items: list[Token], *, by_uid: bool) -> None:
        """Send the items of the chosen messages; a body that is fetched without PEEK sets \\Seen."""
        if not items:
            raise BadError("No items")
        names, cutters, reads = ["UID"] if by_uid else [], {}, False
        for item in (text_of(item) for item in items):
            name = item.upper()
            if name not in _PLAIN:
                peek, name, cutters[name] = section(item)
                reads = reads or not (peek or self.read_only)
            names += [name] if name not in names else []
        for position in self._choose(chosen, by_uid=by_uid):
            message = self._messages[position]
            if reads and "\\Seen" not in message.flags:
                self._folder.set_flags(message, lambda flags: flags | {"\\Seen"})
            extra = ["FLAGS"] if self._told[message.uid] != message.flags and "FLAGS" not in names else []
            self._tell(position, sorted(names + extra, key=cutters.__contains__), cutters)

    def store(self, chosen: str, how: str, flags: list[Token], *, by_uid: bool) -> None:
        """Set, add or take away flags, and tell the outcome unless the client asks for silence."""
        sign, item, silent = how[: how[:1] in ("+", "-")], how.lstrip("+-").upper(), how.upper().endswith(".SILENT")
        if item.removesuffix(".SILENT") != "FLAGS" or len(how) - len(item) != len(sign):
            raise BadError("FLAGS, +FLAGS or -FLAGS was expected")
        given = frozenset(_flag(text_of(flag)) for flag in flags)
        if self.read_only:
            raise NoError("[READ-ONLY] The folder was opened to be read")
        changes: dict[str, Callable[[frozenset[str]], frozenset[str]]] = {
            "+": lambda old: _bounded(old | given), "-": lambda old: old - given, "": lambda _: _bounded(given),
        }  # fmt: skip
        for position in self._choose(chosen, by_uid=by_uid):
            message = self._messages[position]
            self._folder.set_flags(message, changes[sign])
            if silent:
                self._told[message.uid] = message.flags
            else:
                self._tell(position, ["UID", "FLAGS"] if by_uid else ["FLAGS"], {})

    def expunge(self) -> None:
        """Remove the messages with the flag \\Deleted; `tell_news` tells the client."""
        if self.read_only:
            raise NoError("[READ-ONLY] The folder was opened to be read")
        self._folder.remove(lambda message: "\\Deleted" in message.flags)

    def summary(self, uidvalidity: int) -> list[str]:
        """The untagged responses to SELECT, apart from those that `tell_news` sends."""
        flags = " ".join(SYSTEM_FLAGS)
        kept = "" if self.read_only else flags + " \\*"
        unseen = [number for number, message in enumerate(self._messages, 1) if "\\Seen" not in message.flags]
        return [
            f"FLAGS ({flags})",
            f"OK [PERMANENTFLAGS ({kept})] Flags that are kept",
            *(f"OK [UNSEEN {number}] First unseen" for number in unseen[:1]),
            f"OK [UIDVALIDITY {uidvalidity}] UIDs are valid",
            f"OK [UIDNEXT {self._next_uid}] Next UID",
        ]

    def tell_news(self, *, may_expunge: bool) -> None:
        """Tell what has changed since the client was last told: removals (when they may be told), flags, arrivals."""
        folder = self._folder
        if self._changes == folder.changes:
            return
        with folder.lock:
            changes, current = folder.changes, folder.messages.copy()
            next_uid = folder.next_uid
        if may_expunge:
            self._tell_removals({message.uid for message in current})
        for position, message in enumerate(self._messages):
            if self._told[message.uid] != message.flags:
                self._tell(position, ["UID", "FLAGS"], {})
        arrived = [message for message in current if message.uid >= self._next_uid]
        if arrived or self._changes < 0:
            self._messages += arrived
            self._told.update((message.uid, message.flags) for message in arrived)
            self._write(b"* %d EXISTS\r\n* 0 RECENT\r\n" % len(self._messages))
        self._next_uid = next_uid
        self._changes = changes if may_expunge else max(0, self._changes)

    def _tell_removals(self, current: set[int]) -> None:
        for position in reversed(range(len(self._messages))):
            uid = self._messages[position].uid
            if uid not in current:
                del self._messages[position], self._told[uid]
                self._write(b"* %d EXPUNGE\r\n" % (position + 1))

    def _choose(self, chosen: str, *, by_uid: bool) -> list[int]:
        if by_uid:
            return select(chosen, [message.uid for message in self._messages])
        if any(int(number) > len(self._messages) for number in re.findall(r"[0-9]{1,10}", chosen)):
            raise BadError("No such message")
        return select(chosen, range(1, len(self._messages) + 1))

    def _tell(self, position: int, names: list[str], cutters: dict[str, Callable[[bytes], bytes]]) -> None:
        message = self._messages[position]
        self._write(b"* %d FETCH (" % (position + 1))
        for number, name in enumerate(names):
            self._write(b" " * bool(number) + name.encode() + b" ")
            if name in cutters:
                data = cutters[name](message.raw)
                self._write(b"{%d}\r\n" % len(data))
                self._write(data)
            else:
                self._write(self._value(message, name))
        self._write(b")\r\n")

    def _value(self, message: Message, name: str) -> bytes:
        if name == "FLAGS":
            flags = self._told[message.uid] = message.flags
            return f"({' '.join(sorted(flags))})".encode()
        if name == "INTERNALDATE":
            return imaplib.Time2Internaldate(message.received).encode()
        return b"%d" % (message.uid if name == "UID" else len(message.raw))


def _flag(name: str) -> str:
    if name.startswith("\\"):
        if name.upper() not in _SYSTEM:
            raise BadError("Unknown system flag")
        return _SYSTEM[name.upper()]
    if len(name) > 64 or not name.isascii():
        raise BadError("Bad keyword")
    return name


def _bounded(flags: frozenset[str]) -> frozenset[str]:
    if len(flags) > MAX_FLAGS:
        raise NoError("[LIMIT] Too many flags")
    return flags
