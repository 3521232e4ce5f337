"""The keys of IMAP's SEARCH (RFC 3501, section 6.4.4) that go by flags and numbers. Pure."""

from collections.abc import Callable, Iterator, Sequence

from mailer.sandbox.imap_syntax import BadError, NoError, Token, select, text_of
from mailer.sandbox.store import SYSTEM_FLAGS, Message

# A test of a message: its position in the folder and the message itself.
Test = Callable[[int, Message], bool]

_FLAGS = {flag.upper()[1:]: flag for flag in SYSTEM_FLAGS}


def search(keys: Sequence[Token], messages: Sequence[Message]) -> list[int]:
    """The positions of the messages that match all the keys."""
    if keys and str(keys[0]).upper() == "CHARSET":
        if len(keys) < 2 or text_of(keys[1]).upper() not in ("UTF-8", "US-ASCII"):
            raise NoError("[BADCHARSET (UTF-8 US-ASCII)] Unknown charset")
        keys = keys[2:]
    if not keys:
        raise BadError("No search key")
    test = _all(keys, messages)
    return [position for position, message in enumerate(messages) if test(position, message)]


def _all(keys: Sequence[Token], messages: Sequence[Message]) -> Test:
    rest = iter(keys)
    tests = [_test(key, rest, messages) for key in rest]
    return lambda position, message: all(test(position, message) for test in tests)


def _test(key: Token, rest: Iterator[Token], messages: Sequence[Message]) -> Test:
    """The test that one key and its arguments stand for."""
    if isinstance(key, list):
        return _all(key, messages)
    name = text_of(key).upper()
    if name == "ALL":
        return lambda _position, _message: True
    if name == "NOT":
        unwanted = _test(_argument(rest), rest, messages)
        return lambda position, message: not unwanted(position, message)
    if flag := _FLAGS.get(name.removeprefix("UN")):
        return lambda _position, message: (flag in message.flags) != name.startswith("UN")
    if name == "UID":
        chosen = set(select(text_of(_argument(rest)), [message.uid for message in messages]))
    elif name[:1].isdecimal() or name.startswith("*"):
        chosen = set(select(name, range(1, len(messages) + 1)))
    else:
        raise BadError(f"Unknown search key {name}")
    return lambda position, _message: position in chosen


def _argument(rest: Iterator[Token]) -> Token:
    for token in rest:
        return token
    raise BadError("An argument is missing")
