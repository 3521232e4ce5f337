"""What `client.py` does: take an address and a message, send them, and tell what came of it.

With a person at the terminal, `conversation` asks for what no flag gave, and again for what was wrong. Without one, or
with both flags, nothing is asked: each problem becomes a sentence on stderr. Results alone go to stdout.
"""

import errno
import json
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from mailer.console.conversation import converse
from mailer.console.courier import Courier, exit_code
from mailer.console.endings import end_once, ending_once
from mailer.console.terminal import Terminal
from mailer.errors import ExitCode, RequestError, TransportError, UnsentInterrupt
from mailer.protocol import Reply, Request, reply_object
from mailer.streams import complain, decode, interactive, is_terminal, show_any_text
from mailer.translation import _, explain_all
from mailer.validation import check

# Far above the longest message. Longer input is cut here: the complaint about its length then names a wrong one.
_LONGEST_INPUT = 64 << 20


def run(courier: Courier, *, email: str | None, message: str | None, file: Path | None, as_json: bool) -> ExitCode:
    """Send one message, from the flags, from standard input, or from the person at the terminal."""
    show_any_text()
    try:
        if file is not None and str(file) != "-":
            with file.open("rb") as content:
                message = decode(content.read(_LONGEST_INPUT))
        if (email is None or message is None) and not interactive():
            email, message = _standard_input(email, message)
    except OSError as failure:
        complain(_("The file cannot be read: {why}").format(why=failure))
        return ExitCode.NO_INPUT
    except EOFError:
        complain(_missing(email, message))
        return ExitCode.USAGE
    if email is not None and message is not None:
        with ending_once():
            return _send(courier, Request(email.strip(), message, secrets.token_hex(16)), as_json)
    end_once()  # before the terminal is another one than it was
    with Terminal() as terminal:
        reply, code = converse(terminal, courier, email, message)
        _show(reply, as_json, terminal.results)
    return code


def _standard_input(email: str | None, message: str | None) -> tuple[str, str]:
    """Address and message; what no flag gave is read unchanged from standard input. Raises EOFError if it is empty."""
    given = decode(sys.stdin.buffer.read(_LONGEST_INPUT)) if sys.stdin else ""
    if not given:
        raise EOFError
    if email is None:
        email, _newline, given = given.partition("\n")
    return email, given if message is None else message


def _missing(email: str | None, message: str | None) -> str:
    if message is not None:
        return _("--email is missing, and there is no address on standard input.")
    if email is not None:
        return _("The message is missing: there is no --message, no --file, and nothing on standard input.")
    return _("Nothing on standard input: the address belongs on its first line, the message after it.")


def _send(courier: Courier, request: Request, as_json: bool) -> ExitCode:
    """Send without asking the person anything."""
    try:
        check(request.email, request.message)
        reply = courier.deliver(request, complain if is_terminal(sys.stderr) else lambda _words: None)
    except RequestError as wrong:
        reply = Reply(problems=wrong.problems)
    except TransportError as failure:
        complain(courier.explain(failure))
        return exit_code(failure)
    except KeyboardInterrupt as interrupt:
        after_what_ctrl_c_shows = "\n" if is_terminal(sys.stderr) else ""
        doubt = not isinstance(interrupt, UnsentInterrupt)
        words = _("It may have been sent all the same.") if doubt else _("It was not sent.")
        complain(after_what_ctrl_c_shows + words)
        raise
    for words in explain_all(reply.problems, retry=reply.retry):
        complain(words)
    _show(reply, as_json, sys.stdout)
    return exit_code(reply)


def _show(reply: Reply | None, as_json: bool, results: TextIO | None) -> None:
    """The result: the ticket, or with `--json` the reply, in ASCII so that no charset and no terminal can spoil it."""
    if reply and as_json:
        _print(json.dumps(reply_object(reply)), results)
    elif reply and reply.ok:
        words = _("OK: your ticket is {ticket}. A copy of the message is on its way to you.")
        _print(words.format(ticket=reply.ticket), results)


def _print(result: str, results: TextIO | None) -> None:
    """Print the result on standard output or, if that fails, on stderr: the outcome must not be lost."""
    try:
        if not results:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        print(result, file=results, flush=True)
    except OSError as failure:
        words = _("This cannot be written to standard output ({why}): {result}")
        complain(words.format(why=failure.strerror, result=result))
        if results and results is not sys.stdout:
            with suppress(OSError):
                results.close()  # otherwise Python would try to write it again at exit, and complain
