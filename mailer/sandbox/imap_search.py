"""The keys of IMAP's SEARCH (RFC 3501, section 6.4.4) that go by flags, numbers, dates and sizes. Pure."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime

from mailer.sandbox.imap_syntax import BadError, NoError, Token, select, text_of
from mailer.sandbox.store import Message

# A test of a message: its position in the folder and the message itself.
Test = Callable[[int, Message], bool]

_FLAG_KEYS = {flag.upper(): f"\\{flag}" for flag in ("Answered", "Deleted", "Draft", "Flagged", "Seen")}
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "BEFORE": int.__lt__, "ON": int.__eq__, "SINCE": int.__ge__, "LARGER": int.__gt__, "SMALLER": int.__lt__,
}  # fmt: skip


def search(keys: Sequence[Token], messages: Sequence[Message], recent: set[int]) -> list[int]:
    """The positions of the messages that match all the keys."""
    if keys and str(keys[0]).upper() == "CHARSET":
        if len(keys) < 2 or text_of(keys[1]).upper() not in ("UTF-8", "US-ASCII"):
            raise NoError("[BADCHARSET (UTF-8 US-ASCII)] Unknown charset")
        keys = keys[2:]
    if not keys:
        raise BadError("No search key")
    test = _all(keys, messages, recent)
    return [position for position, message in enumerate(messages) if test(position, message)]


def _all(keys: Sequence[Token], messages: Sequence[Message], recent: set[int]) -> Test:
    rest = iter(keys)
    tests = [_test(key, rest, messages, recent) for key in rest]
    return lambda position, message: all(test(position, message) for test in tests)


def _test(key: Token, rest: Iterator[Token], messages: Sequence[Message], recent: set[int]) -> Test:
    """The test that one key and its arguments stand for."""
    if isinstance(key, list):
        return _all(key, messages, recent)
    name = text_of(key).upper()
    match name:
        case "ALL":
            return lambda _position, _message: True
        case "NOT":
            unwanted = _test(_argument(rest), rest, messages, recent)
            return lambda position, message: not unwanted(position, message)
        case "OR":
            one = _test(_argument(rest), rest, messages, recent)
            other = _test(_argument(rest), rest, messages, recent)
            return lambda position, message: one(position, message) or other(position, message)
        case "NEW":
            return lambda _position, message: message.uid in recent and "\\Seen" not in message.flags
        case "RECENT" | "OLD":
            return lambda _position, message: (message.uid in recent) == (name == "RECENT")
        case "UID":
            uids = [message.uid for message in messages]
            chosen = set(select(text_of(_argument(rest)), uids))
            return lambda position, _message: position in chosen
    return _flag_test(name, rest) or _comparison(name, rest) or _numbers(name, messages)


def _flag_test(name: str, rest: Iterator[Token]) -> Test | None:
    wanted = not name.startswith("UN")
    name = name.removeprefix("UN")
    if name == "KEYWORD":
        flag = text_of(_argument(rest))
    elif name in _FLAG_KEYS:
        flag = _FLAG_KEYS[name]
    else:
        return None
    return lambda _position, message: (flag in message.flags) == wanted


def _comparison(name: str, rest: Iterator[Token]) -> Test | None:
    compare = _COMPARISONS.get(name)
    if not compare:
        return None
    argument = text_of(_argument(rest))
    if name in ("LARGER", "SMALLER"):
        if not argument.isdecimal() or len(argument) > 10:
            raise BadError("A number was expected")
        return lambda _position, message: compare(len(message.raw), int(argument))
    day = _date(argument).toordinal()
    return lambda _position, message: compare(message.received.date().toordinal(), day)


def _date(text: str) -> date:
    months = "JanFebMarAprMayJunJulAugSepOctNovDec"
    day, month, year = (*text.split("-"), "", "")[:3]
    try:
        return datetime(int(year), months.index(month.capitalize()) // 3 + 1, int(day)).date()
    except ValueError:
        raise BadError("A date such as 1-Feb-1994 was expected") from None


def _numbers(name: str, messages: Sequence[Message]) -> Test:
    if not name[:1].isdecimal() and not name.startswith("*"):
        raise BadError(f"Unknown search key {name}")
    chosen = set(select(name, range(1, len(messages) + 1)))
    return lambda position, _message: position in chosen


def _argument(rest: Iterator[Token]) -> Token:
    for token in rest:
        return token
    raise BadError("An argument is missing")
