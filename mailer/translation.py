"""The language of the conversation: English as written in the code, or Russian by the catalogue beside this module.

Chosen as gettext does, from `LANGUAGE`, `LC_ALL`, `LC_MESSAGES` and `LANG`. Codes, the wire and the logs are never
translated. After a change of words run `msgfmt -o mailer.mo mailer.po` in `locale/ru/LC_MESSAGES`; a test compares
the code with both files.
"""

import gettext
import itertools
import os
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


def _(text: str) -> str:
    """The text in the language of the conversation."""
    return _catalogue().gettext(text)


def explain(problem: Problem) -> str:
    """A problem in words a person understands: what its code means, then its own words where they tell more."""
    meaning = _meanings()[problem.code]
    words = _(safe(problem.text))
    return f"{meaning} {words}" if problem.code in _TELLING and words and words != meaning else meaning


@cache
def _catalogue() -> gettext.NullTranslations:
    names = next(filter(None, map(os.environ.get, ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"))), "")
    wanted = itertools.takewhile(lambda name: not name.startswith(_NOT_TRANSLATED), names.split(":"))
    return gettext.translation("mailer", _LOCALE, languages=list(wanted), fallback=True)


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
        Code.INTERNAL_ERROR: _("Something went wrong inside the server."),
    }
