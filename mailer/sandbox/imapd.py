"""The sandbox's IMAP server: IMAP4rev1 (RFC 3501) with LITERAL+, SASL-IR and UNSELECT.

It answers BAD to what needs the MIME structure (ENVELOPE, BODYSTRUCTURE, numbered parts, searching in texts) and to
what changes folders (CREATE, APPEND, COPY …).
"""

import base64
import re

from mailer.sandbox import imap_folders, imap_syntax
from mailer.sandbox.imap_syntax import MAX_COMMAND, BadError, NoError, Token, UnreadableError, text_of
from mailer.sandbox.imap_view import View
from mailer.sandbox.store import Folder, Rules
from mailer.sandbox.wire import Connection, LineTooLongError

MAX_ERRORS = 20
_TAG = re.compile(rb'[^\s(){%*"\\+\x00-\x1f\x7f-\xff]{1,64}(?= )')

# Every command: when it may be used, and its number of arguments (least, most).
_ALWAYS, _BEFORE_LOGIN, _AFTER_LOGIN, _SELECTED = range(4)
_MANY = 1 << 16
_COMMANDS = {
    "CAPABILITY": (_ALWAYS, 0, 0), "NOOP": (_ALWAYS, 0, 0), "LOGOUT": (_ALWAYS, 0, 0),
    "STARTTLS": (_BEFORE_LOGIN, 0, 0), "LOGIN": (_BEFORE_LOGIN, 2, 2), "AUTHENTICATE": (_BEFORE_LOGIN, 1, 2),
    "SELECT": (_AFTER_LOGIN, 1, 1), "EXAMINE": (_AFTER_LOGIN, 1, 1), "STATUS": (_AFTER_LOGIN, 2, 2),
    "LIST": (_AFTER_LOGIN, 2, 2), "CHECK": (_SELECTED, 0, 0), "CLOSE": (_SELECTED, 0, 0),
    "UNSELECT": (_SELECTED, 0, 0), "EXPUNGE": (_SELECTED, 0, 0), "SEARCH": (_SELECTED, 1, _MANY),
    "FETCH": (_SELECTED, 2, 2), "STORE": (_SELECTED, 3, _MANY),
}  # fmt: skip
_BY_NUMBER_OR_UID = ("SEARCH", "FETCH", "STORE")


class Session:
    """The dialogue with one client. The methods named after commands take the arguments and give the tagged reply."""

    def __init__(self, connection: Connection, rules: Rules) -> None:
        self._connection = connection
        self._rules = rules
        self._user: str | None = None
        self._view: View | None = None
        self._tag = "*"
        self._ended = False

    def run(self) -> None:
        """Answer commands until LOGOUT, or until too many were answered with BAD."""
        self._write(f"* OK [CAPABILITY {self._capabilities()}] Mailer sandbox ready")
        errors = 0
        while not self._ended and errors < MAX_ERRORS:
            reply = self._next()
            errors += reply.startswith("BAD")
            if reply:
                self._write(f"{self._tag} {reply}")
        if errors >= MAX_ERRORS:
            self._write("* BYE Too many errors")

    def _write(self, line: str) -> None:
        self._connection.write(line.encode() + b"\r\n")

    def _next(self) -> str:
        """Read a command and do it; return the text of the tagged reply."""
        self._tag = "*"
        try:
            line = self._connection.read_line(MAX_COMMAND)
            word = _TAG.match(line)
            if not word:
                raise BadError("A tag was expected")
            self._tag = word[0].decode()
            command = imap_syntax.add_literals(line, self._connection)[word.end() + 1 :]
            command = command.removesuffix(b"\n").removesuffix(b"\r")
            if self._rules.on_command:
                self._rules.on_command("IMAP " + command.decode("utf-8", "replace"))
            return self._perform(imap_syntax.parse(command))
        except LineTooLongError:
            return "BAD Line too long"
        except UnreadableError as error:
            self._ended = True
            return f"NO {error}"
        except BadError as error:
            return f"BAD {error}"
        except RecursionError:  # too many NOT in a row
            return "BAD Too deep"
        except NoError as error:
            return f"NO {error}"

    def _perform(self, tokens: list[Token]) -> str:
        name, *arguments = tokens or [""]
        name = text_of(name).upper()
        by_uid = name == "UID" and bool(arguments)
        if by_uid:
            name, arguments = text_of(arguments[0]).upper(), arguments[1:]
        self._permit(name, len(arguments), by_uid=by_uid)
        if name in _BY_NUMBER_OR_UID and self._view:
            reply = self._view.perform(name, arguments, by_uid=by_uid)
        else:
            reply = str(getattr(self, f"_{name.lower()}")(*arguments))
        if self._view:  # no EXPUNGE during FETCH, STORE or SEARCH by number (RFC 3501, section 7.4.1)
            self._view.tell_news(may_expunge=by_uid or name not in _BY_NUMBER_OR_UID)
        return reply

    def _permit(self, name: str, count: int, *, by_uid: bool) -> None:
        when, least, most = _COMMANDS.get(name, (_ALWAYS, 1, 0))
        if most < least or (by_uid and name not in _BY_NUMBER_OR_UID):
            raise BadError("Unknown command")
        if when == _BEFORE_LOGIN and self._user is not None:
            raise BadError("Already logged in")
        if when >= _AFTER_LOGIN and self._user is None:
            raise BadError("Log in first")
        if when == _SELECTED and not self._view:
            raise BadError("Select a folder first")
        if not least <= count <= most:
            raise BadError("Wrong number of arguments")

    def _capabilities(self) -> str:
        in_clear = self._rules.tls is not None and not self._connection.encrypted
        login = "STARTTLS LOGINDISABLED" if in_clear else "SASL-IR AUTH=PLAIN"
        return f"IMAP4rev1 LITERAL+ UNSELECT {login}"

    def _capability(self) -> str:
        self._write(f"* CAPABILITY {self._capabilities()}")
        return "OK Capability done"

    def _noop(self) -> str:
        return "OK Nothing done"

    _check = _noop

    def _logout(self) -> str:
        self._view, self._ended = None, True
        self._write("* BYE Logging out")
        return "OK Logged out"

    # Logging in

    def _starttls(self) -> str:
        if not self._rules.tls or self._connection.encrypted:
            raise BadError("TLS is not on offer")
        self._write(f"{self._tag} OK Start TLS now")
        self._connection.start_tls(self._rules.tls)
        return ""

    def _login(self, user: Token, password: Token) -> str:
        return self._enter(f"\0{text_of(user)}\0{text_of(password)}".encode())

    def _authenticate(self, mechanism: Token, response: Token | None = None) -> str:
        if text_of(mechanism).upper() != "PLAIN":
            raise NoError("[CANNOT] Mechanism not supported")
        if response is None:
            self._connection.write(b"+ \r\n")
            response = self._connection.read_line(MAX_COMMAND).rstrip(b"\r\n")
        text = text_of(response)
        try:
            return self._enter(b"" if text == "=" else base64.b64decode(text, validate=True))
        except ValueError:
            raise BadError("Login cancelled" if text == "*" else "Not base64") from None

    def _enter(self, response: bytes) -> str:
        if "LOGINDISABLED" in self._capabilities():
            raise NoError("[PRIVACYREQUIRED] Start TLS first")
        self._user = self._rules.login(response)
        if self._user is None:
            raise NoError("[AUTHENTICATIONFAILED] Wrong address or password")
        return f"OK [CAPABILITY {self._capabilities()}] Logged in"

    # Folders

    def _select(self, mailbox: Token, *, read_only: bool = False) -> str:
        self._view = None
        _, folder = imap_folders.find(self._folders(), mailbox)
        view = View(folder, self._connection.write, read_only=read_only)
        view.tell_news(may_expunge=True)
        for line in view.summary(self._rules.store.uidvalidity):
            self._write(f"* {line}")
        self._view = view
        return "OK [READ-ONLY] Examined" if read_only else "OK [READ-WRITE] Selected"

    def _examine(self, mailbox: Token) -> str:
        return self._select(mailbox, read_only=True)

    def _status(self, mailbox: Token, items: Token) -> str:
        self._write(imap_folders.status(self._folders(), mailbox, items, self._rules.store.uidvalidity))
        return "OK Status done"

    def _list(self, reference: Token, pattern: Token) -> str:
        for line in imap_folders.listing(self._folders(), text_of(reference), text_of(pattern)):
            self._write(line)
        return "OK List done"

    def _folders(self) -> dict[str, Folder]:
        return self._rules.store.folders(self._user or "")

    def _expunge(self) -> str:
        if self._view:
            self._view.expunge()
        return "OK Expunged"

    def _close(self) -> str:
        if self._view and not self._view.read_only:
            self._view.expunge()
        return self._unselect()

    def _unselect(self) -> str:
        self._view = None
        return "OK Closed"
