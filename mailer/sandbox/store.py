"""The mail itself, in memory: accounts on demand, folders, messages with UIDs and flags; and the rules of the servers.

Thread-safe: lists are only appended to or replaced, and flags replaced, so a session may go on reading those it has.
"""

import hmac
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

MAX_BYTES = 1 << 30  # of mail altogether, so that the machine's memory is not filled
SMTP_EXTENSIONS = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "AUTH")
SYSTEM_FLAGS = ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")


class StoreFullError(Exception):
    """No room for another message."""


@dataclass(slots=True, eq=False)
class Message:
    """One message in one folder."""

    uid: int
    raw: bytes = field(repr=False)
    flags: frozenset[str]
    received: datetime


class Folder:
    """Messages in the order of their UIDs; `changes` grows with every change, so that sessions notice."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.next_uid = 1
        self.changes = 0
        self.lock = threading.Lock()

    def append(self, raw: bytes, flags: Iterable[str] = (), received: datetime | None = None) -> Message:
        """Put in a message with the next UID."""
        with self.lock:
            message = Message(self.next_uid, raw, frozenset(flags), received or datetime.now(UTC))
            self.messages.append(message)
            self.next_uid += 1
            self.changes += 1
        return message

    def set_flags(self, message: Message, change: Callable[[frozenset[str]], frozenset[str]]) -> None:
        """Replace the flags of a message by what `change` makes of them."""
        with self.lock:
            flags = change(message.flags)
            self.changes += flags != message.flags
            message.flags = flags

    def remove(self, unwanted: Callable[[Message], bool]) -> None:
        """Take out every message that is unwanted; its UID is not given again."""
        with self.lock:
            self.messages = [message for message in self.messages if not unwanted(message)]
            self.changes += 1


class Store:
    """The folders of all accounts. An account is an e-mail address, whatever its case, and is there when asked for."""

    def __init__(self, uidvalidity: int = 1) -> None:
        self.uidvalidity = uidvalidity
        self._folders: dict[str, dict[str, Folder]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def folders(self, address: str) -> dict[str, Folder]:
        """An account's folders by name; there is always an INBOX."""
        with self._lock:
            return self._folders.setdefault(address.casefold(), {"INBOX": Folder()})

    def reserve(self, size: int, copies: int) -> None:
        """Count the size of a message before it is stored; raises StoreFullError when there is no room for it."""
        size += 1000 * copies  # the copies share the bytes; each has its own entry in a folder
        with self._lock:
            if self._bytes + size > MAX_BYTES:
                raise StoreFullError
            self._bytes += size


@dataclass(frozen=True, slots=True)
class Rules:
    """How the two servers behave; `MailServer` explains each rule."""

    store: Store
    password: str = field(repr=False)
    extensions: tuple[str, ...] = SMTP_EXTENSIONS
    require_login: bool = False
    max_message: int = 10_240_000
    refuse: Callable[[str], str | None] | None = None
    on_delivery: Callable[[str, tuple[str, ...], bytes], None] | None = None
    on_command: Callable[[str], None] | None = None
    tls: ssl.SSLContext | None = None

    def login(self, response: bytes) -> str | None:
        """The user of a SASL PLAIN response (RFC 4616), None if the password is wrong or it acts for another."""
        authority, user, password = ([*response.split(b"\0"), b"", b""])[:3]
        right = hmac.compare_digest(password, self.password.encode()) and response.count(b"\0") == 2
        if not user or not right or authority not in (b"", user):
            return None
        return user.decode("utf-8", "replace")
