"""What SMTP carries (RFC 5321): paths, addresses and parameters of MAIL and RCPT, and the text after DATA.

The text of an error is the SMTP reply to give.
"""

import re
from collections.abc import Container
from dataclasses import dataclass

from mailer.sandbox.wire import Connection, LineTooLongError

_MAILBOX = re.compile(
    r'(?:"(?:[^"\\]|\\.)*"|[^\s"<>@()\[\]\\,;:]+)@(?:[^\s<>@()\[\]\\,;:]+|\[[0-9A-Za-z.:]+\])'
)  # fmt: skip
_PATH = re.compile(
    r'(?P<word>FROM|TO):<(?:@[^:<>]*:)?(?P<address>(?:"(?:[^"\\]|\\.)*"|[^">])*)>(?P<parameters>.*)', re.IGNORECASE
)
_LONGEST_ADDRESS = 254  # section 4.5.3.1.3, without the brackets
MAX_TEXT_LINE = 1000  # section 4.5.3.1.6, with <CR><LF>
TOO_LONG = "550 5.6.0 A line is longer than 998 bytes"


class RefusedError(Exception):
    """The argument is refused; the text is the SMTP reply."""


@dataclass(frozen=True, slots=True)
class Path:
    """An address, and the parameters after it, in capitals."""

    address: str
    parameters: tuple[str, ...]


def path(word: str, argument: str) -> Path:
    """Parse the argument of MAIL (`word` is FROM) or RCPT (TO)."""
    found = _PATH.fullmatch(argument)
    if not found or found["word"].upper() != word:
        raise RefusedError(f"501 5.5.4 Syntax: {word}:<address>")
    return Path(found["address"], tuple(found["parameters"].upper().split()))


def check_address(address: str, *, utf8: bool) -> None:
    """Refuse what cannot be an address, or is beyond ASCII in a transaction without SMTPUTF8."""
    if len(address.encode()) > _LONGEST_ADDRESS or not _MAILBOX.fullmatch(address):
        raise RefusedError("501 5.1.3 Bad address syntax")
    if not address.isascii() and not utf8:
        raise RefusedError("553 5.6.7 An address beyond ASCII needs SMTPUTF8")


def check_parameters(parameters: tuple[str, ...], offered: Container[str], max_message: int) -> None:
    """Refuse parameters of MAIL that are wrong, or of an extension that is not on offer."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        extension = {"BODY": "8BITMIME"}.get(name, name)
        known = name in ("SIZE", "AUTH") or parameter in ("SMTPUTF8", "BODY=7BIT", "BODY=8BITMIME")
        if not known or extension not in offered:
            raise RefusedError(f"555 5.5.4 Parameter not supported: {parameter}")
        if name == "SIZE" and not re.fullmatch("[0-9]{1,20}", value):
            raise RefusedError("501 5.5.4 Bad SIZE")
        if name == "SIZE" and int(value) > max_message:
            raise RefusedError("552 5.3.4 Message too big")


def read_text(connection: Connection, max_message: int) -> tuple[bytes, str | None]:
    """Read the message after DATA, and undo its dot-stuffing; return it, and the reply if it is refused."""
    text, size, fault, ended = bytearray(), 0, None, True
    while size <= 2 * max_message:
        try:
            line = connection.read_line(MAX_TEXT_LINE + 1)  # one more for a stuffed dot
        except LineTooLongError as error:
            size, fault, ended = size + MAX_TEXT_LINE, fault or TOO_LONG, error.ended
            continue
        if ended and line == b".\r\n":  # only between two <CR><LF>: otherwise SMTP smuggling is possible
            return bytes(text), fault
        ended = line.endswith(b"\r\n")
        line = line.removeprefix(b".")
        size += len(line)
        if size > max_message:
            fault = "552 5.3.4 Message too big"
        elif len(line) > MAX_TEXT_LINE:
            fault = fault or TOO_LONG
        elif not ended:
            fault = fault or "550 5.6.0 A line does not end with <CR><LF>"
        if not fault:
            text += line
    raise ConnectionError("endless message")
