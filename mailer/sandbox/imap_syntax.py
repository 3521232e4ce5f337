"""The grammar of IMAP4rev1 (RFC 3501) as far as the sandbox speaks it: literals, tokens, sets, names, sections."""

import base64
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from mailer.sandbox.wire import Connection

# An atom is str, a quoted string or literal is bytes, a parenthesised list is a list.
Token = str | bytes | list["Token"]

MAX_COMMAND = 65_536  # bytes, with all literals
MAX_DEPTH = 16
_LITERAL = re.compile(rb"\{([0-9]{1,9})(\+?)\}\r?\n\Z")
_TOKEN = re.compile(
    rb'\s*(?:(?P<open>\()|(?P<close>\))|"(?P<quoted>(?:[^"\\\r\n]|\\["\\])*)"|\{(?P<size>[0-9]{1,9})\+?\}\r?\n'
    rb'|(?P<atom>[^\s(){"\[\x00-\x1f\x7f]+(?:\[[^\]\r\n]*\](?:<[0-9.]+>)?)?))'
)
_SECTION = re.compile(
    r"BODY(?P<peek>\.PEEK)?(?P<name>\[(?P<part>|HEADER|TEXT|HEADER\.FIELDS \((?P<fields>[^()]+)\))\])"
    r"(?:<(?P<start>[0-9]{1,10})\.(?P<count>[0-9]{1,10})>)?",
    re.IGNORECASE,
)
_FIELD = re.compile(rb"^([^\s:]+)[ \t]*:.*(?:\n[ \t].*)*\n?", re.MULTILINE)


class BadError(Exception):
    """A command that cannot be understood: answered with BAD."""


class NoError(Exception):
    """A command that cannot be done: answered with NO."""


class UnreadableError(Exception):
    """A command after which the next one cannot be found: answered with NO, and the session is over."""


def add_literals(line: bytes, connection: Connection) -> bytes:
    """The whole command that begins with this line."""
    command = line
    while literal := _LITERAL.search(line):
        size, waits = int(literal[1]), not literal[2]
        if len(command) + size > MAX_COMMAND:
            raise (NoError if waits else UnreadableError)("[TOOBIG] Literal too big")
        if waits:
            connection.write(b"+ OK\r\n")
        command += connection.read_exactly(size)
        line = connection.read_line(MAX_COMMAND)
        command += line
    return command


def parse(command: bytes) -> list[Token]:
    """The tokens of a whole command, its literals in place."""
    stack: list[list[Token]] = [[]]
    position = 0
    while position < len(command):
        found = _TOKEN.match(command, position)
        if not found or len(stack) > MAX_DEPTH:
            raise BadError("Syntax error")
        position = found.end()
        if found["open"]:
            stack.append([])
        elif found["close"]:
            if len(stack) == 1:
                raise BadError("Unbalanced parenthesis")
            inner = stack.pop()
            stack[-1].append(inner)
        elif found["size"]:
            position += int(found["size"])
            stack[-1].append(command[found.end() : position])
        elif found["quoted"] is not None:
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", found["quoted"]))
        else:
            stack[-1].append(found["atom"].decode("utf-8", "replace"))
    if len(stack) > 1:
        raise BadError("Unbalanced parenthesis")
    return stack[0]


def text_of(token: Token) -> str:
    """An astring as text."""
    if isinstance(token, list):
        raise BadError("A string was expected")
    return token if isinstance(token, str) else token.decode("utf-8", "replace")


def decode_mailbox(name: str) -> str:
    """Modified UTF-7 (RFC 3501, section 5.1.3) to text."""
    try:
        return re.sub("&([^-&]*)-", lambda run: _decode_run(run[1]), name)
    except ValueError:
        raise NoError("The mailbox name is no modified UTF-7") from None


def _decode_run(run: str) -> str:
    padded = run.replace(",", "/") + "=" * (-len(run) % 4)
    return base64.b64decode(padded, validate=True).decode("utf-16-be") if run else "&"


def encode_mailbox(name: str) -> str:
    """A mailbox name as a quoted string in modified UTF-7."""
    runs = re.sub("&|[^ -~]+", lambda run: _encode_run(run[0]), name)
    return '"' + runs.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _encode_run(run: str) -> str:
    encoded = base64.b64encode(run.encode("utf-16-be")).decode().rstrip("=").replace("/", ",")
    return "&-" if run == "&" else f"&{encoded}-"


def select(sequence_set: str, numbers: Sequence[int]) -> list[int]:
    """The positions in `numbers` (ascending) that a set such as `2,4:7,9:*` names; `*` is the last number there is."""
    if not re.fullmatch(r"(?:[1-9][0-9]{0,9}|\*)(?:[:,](?:[1-9][0-9]{0,9}|\*))*", sequence_set):
        raise BadError("Bad message set")
    last = numbers[-1] if numbers else 0
    chosen: set[int] = set()
    for part in sequence_set.split(","):
        ends = [last if end == "*" else int(end) for end in part.split(":")]
        if len(ends) > 2:
            raise BadError("Bad message set")
        chosen.update(range(bisect_left(numbers, min(ends)), bisect_right(numbers, max(ends))))
    return sorted(chosen)


def section(item: str) -> tuple[bool, str, Callable[[bytes], bytes]]:
    """Parse the FETCH item of a body: whether it only peeks, its name in the response, and what cuts out its bytes."""
    found = _SECTION.fullmatch("BODY[]" if item.upper() == "RFC822" else item)
    if not found:
        raise BadError("Unknown item")
    name = "RFC822" if item.upper() == "RFC822" else "BODY" + found["name"]
    if not found["start"]:
        return bool(found["peek"]), name, lambda raw: _part(raw, found)
    start, count = int(found["start"]), int(found["count"])
    return bool(found["peek"]), f"{name}<{start}>", lambda raw: _part(raw, found)[start : start + count]


def _part(raw: bytes, found: re.Match[str]) -> bytes:
    part = found["part"].upper()
    if not part:
        return raw
    blank = re.search(rb"^\r?\n", raw, re.MULTILINE)
    border = blank.end() if blank else len(raw)
    if part == "TEXT":
        return raw[border:]
    if part == "HEADER":
        return raw[:border]
    wanted = {name.strip('"').encode().lower() for name in found["fields"].split()}
    fields = _FIELD.finditer(raw, 0, border)
    return b"".join(field[0] for field in fields if field[1].lower() in wanted) + b"\r\n"
