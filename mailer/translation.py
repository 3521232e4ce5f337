"""The language of the conversation: English as written in the code, or Russian by the catalogue beside this module.

It is chosen as by gettext, from `LANGUAGE`, `LC_ALL`, `LC_MESSAGES` and `LANG`. Codes, the wire and the logs are never
translated. After a change of words run `msgfmt -o mailer.mo mailer.po` in `locale/ru/LC_MESSAGES`; a test compares
the code with both files.
"""

import gettext
import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from mailer.errors import Code, Problem, safe

_LOCALE = Path(__file__).with_name("locale")
# A language list such as `en:ru` asks for English first, which is not in a catalogue but in the code.
_NOT_TRANSLATED = ("en", "C", "POSIX")
# Problems whose own words tell more than their code does: what a mail server said, which rule an address breaks.
_TELLING = frozenset(Code) - {
    Code.MESSAGE_EMPTY,
    Code.UNAUTHORIZED,
    Code.BUSY,
    Code.FRAME_TOO_LARGE,
    Code.DELIVERY_UNCERTAIN,
}
# The server's words before it quotes the mail server; the code's meaning says the same in the person's language.
_SAID_BY_THE_CODE = re.compile(r"\Athe mail server refuses [^:]*: ")
_MOST = 8  # problems shown; Mailer's server never finds more
_NUMBER = re.compile(r"U\+[0-9A-F]+|(?<!UTF-)[0-9]+(?:,[0-9]{3})*")
# Sentences of other modules, of the server and of the system, with {} for numbers. Those listed here are translated,
# and are shown without the meaning of their code.
KNOWN = frozenset(
    {
        "An e-mail address has the form name@example.com.",
        "An e-mail address has one @ and no more.",
        "Give one address and nothing else, such as name@example.com.",
        "The address is longer than {} bytes.",
        "The part before the @ is longer than {} bytes.",
        "The part before the @ is empty or holds something that an address cannot have.",
        "The part after the @ is not a domain name such as example.com.",
        "The message has {} characters; at most {} can be sent.",
        "The message holds a character that cannot be sent, {}, on line {}.",
        "The message holds bytes that are not UTF-8, on line {}.",
        "Too many requests to this address; try again in {} seconds.",
        "Too many requests to this address; try again in {} minutes.",
        "Too many requests from your computer; try again in {} seconds.",
        "Too many requests from your computer; try again in {} minutes.",
        "Something went wrong in the server; its administrator can see what it was.",
        "The server cannot number tickets at the moment; nothing was sent. Its administrator can see why.",
        "The server's answer makes no sense; is it Mailer's server?",
        "the connection was closed without an answer",
        "no Mailer server answers there",
        "no answer in time",
        "Connection refused",
        "Connection reset by peer",
        "Name or service not known",
        "Network is unreachable",
        "No route to host",
    }
)


def _(text: str) -> str:
    """The text in the language of the conversation."""
    return _catalogue().gettext(text)


def explain(problem: Problem, between: str = ": ", *, retry: bool = False) -> str:
    """A problem in words a person understands: its text if that is known, else the code's meaning and then its text.

    `retry`: the reply says that the same may succeed later.
    """
    words, known = translate(problem.text)
    meaning = _meanings()[problem.code]
    if retry and problem.code is Code.RECIPIENT_REFUSED:
        meaning = _("The mail server does not take mail for this address just now.")
    if problem.code not in _TELLING or not words:
        return meaning
    return words if known else meaning.rstrip(".") + between + _SAID_BY_THE_CODE.sub("", words)


def explain_all(problems: Sequence[Problem], between: str = ": ", *, retry: bool = False) -> Iterator[str]:
    """A sentence for each of the first `_MOST` problems, and one that counts the others."""
    yield from (explain(problem, between, retry=retry) for problem in problems[:_MOST])
    if len(problems) > _MOST:
        yield _("… and {count} more.").format(count=len(problems) - _MOST)


def translate(words: str) -> tuple[str, bool]:
    """Foreign words made safe to show, translated if they are in KNOWN; and whether they are."""
    words = safe(words)
    sentence = _NUMBER.sub("{}", words)
    known = sentence in KNOWN and "{" not in words
    return (_(sentence).format(*_NUMBER.findall(words)) if known else words), known


@cache
def _catalogue() -> gettext.NullTranslations:
    names = next(filter(None, map(os.environ.get, ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"))), "")
    wanted = itertools.takewhile(lambda name: not name.startswith(_NOT_TRANSLATED), names.split(":"))
    found = gettext.translation("mailer", _LOCALE, languages=list(wanted), fallback=True)
    return found if _can_show(found.gettext("Try again")) else gettext.NullTranslations()


def _can_show(words: str) -> bool:
    """Whether stdout and stderr can show these letters: English is better than question marks."""
    try:
        for encoding in (getattr(stream, "encoding", None) for stream in (sys.stdout, sys.stderr)):
            words.encode(encoding or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def _meanings() -> dict[Code, str]:
    return {
        Code.BAD_REQUEST: _("The server did not understand the request."),
        Code.FRAME_TOO_LARGE: _("The message is too large for the server."),
        Code.EMAIL_INVALID: _("This is not an e-mail address that mail can be sent to."),
        Code.MESSAGE_EMPTY: _("The message is empty."),
        Code.MESSAGE_TOO_LONG: _("The message is too long."),
        Code.MESSAGE_INVALID: _("The message holds a character that cannot be sent."),
        Code.UNAUTHORIZED: _("The server does not let this client in: SERVER_TOKEN is missing or wrong."),
        Code.RATE_LIMITED: _("Too many messages in a short time."),
        Code.BUSY: _("The server is busy just now."),
        Code.RECIPIENT_REFUSED: _("The mail server does not take mail for this address."),
        Code.MAIL_REJECTED: _("The mail server refused the message."),
        Code.MAIL_UNAVAILABLE: _("The mail server does not work just now; nothing was sent."),
        Code.MAIL_AUTH_FAILED: _("The mail server does not let the helpdesk in: its administrator has to mend that."),
        Code.DELIVERY_UNCERTAIN: _("Nobody can tell whether it was sent: the mail server gave no clear answer."),
        Code.INTERNAL_ERROR: _("Something went wrong in the server."),
    }
