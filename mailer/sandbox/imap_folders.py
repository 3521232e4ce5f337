"""What IMAP tells of the folders of the account that is logged in: find one by its name, STATUS and LIST."""

import re
from collections.abc import Iterator

from mailer.sandbox.imap_syntax import BadError, NoError, Token, decode_mailbox, encode_mailbox, text_of
from mailer.sandbox.store import Folder

MAX_WILDCARDS = 8  # in a pattern, as each may multiply the time that a match takes


def find(folders: dict[str, Folder], mailbox: Token) -> tuple[str, Folder]:
    """The folder of this name. INBOX is spelled in any case (RFC 3501, section 5.1)."""
    name = decode_mailbox(text_of(mailbox))
    name = "INBOX" if name.upper() == "INBOX" else name
    if name not in folders:
        raise NoError("[NONEXISTENT] No such folder")
    return name, folders[name]


def status(folders: dict[str, Folder], mailbox: Token, items: Token, uidvalidity: int) -> str:
    """The answer to STATUS."""
    name, folder = find(folders, mailbox)
    messages = folder.messages.copy()
    values = {
        "MESSAGES": len(messages),
        "RECENT": 0,  # the sandbox has no \Recent flag, which IMAP4rev2 dropped
        "UIDNEXT": folder.next_uid,
        "UIDVALIDITY": uidvalidity,
        "UNSEEN": sum("\\Seen" not in message.flags for message in messages),
    }
    wanted = [text_of(item).upper() for item in items] if isinstance(items, list) else []
    if not wanted or not values.keys() >= set(wanted):
        raise BadError("Unknown status item")
    return f"* STATUS {encode_mailbox(name)} ({' '.join(f'{item} {values[item]}' for item in wanted)})"


def listing(folders: dict[str, Folder], reference: str, pattern: str) -> Iterator[str]:
    """The answers to LIST."""
    if not pattern:  # the client asks for the hierarchy delimiter
        yield '* LIST (\\Noselect) "/" ""'
        return
    wanted = decode_mailbox(reference + pattern)
    if wanted.count("*") + wanted.count("%") > MAX_WILDCARDS:
        raise BadError("Too many wildcards")
    expression = re.escape(wanted).replace(r"\*", ".*").replace("%", "[^/]*")
    for name in sorted(folders.copy()):
        if re.fullmatch(expression, name, re.IGNORECASE if name == "INBOX" else 0):
            yield f'* LIST () "/" {encode_mailbox(name)}'
