"""The sandbox's SMTP server (RFC 5321), with the extensions of a submission server (RFC 6409).

It is stricter than most servers, so that what passes here passes elsewhere: a message with a bare LF or a line of more
than 998 bytes is refused, and so is an address beyond ASCII without SMTPUTF8. A message is taken after the final
dot or not at all.
"""

import base64
from collections.abc import Callable
from itertools import count

from mailer.sandbox import smtp_syntax
from mailer.sandbox.smtp_syntax import RefusedError, check_address, check_parameters, read_text
from mailer.sandbox.store import Rules, StoreFullError
from mailer.sandbox.wire import Connection, LineTooLongError

HOST = "sandbox.example.com"
MAX_COMMAND = 12_288  # bytes, as RFC 4954 asks for with AUTH; other commands are shorter
MAX_RECIPIENTS = 1000
MAX_PROTOCOL_ERRORS = 20
_WITHOUT_ARGUMENT = ("DATA", "RSET", "STARTTLS")
_WITH_ARGUMENT = ("HELO", "EHLO", "AUTH", "MAIL", "RCPT", "VRFY")

_queue_ids = count(1)


class Session:
    """The dialogue with one client."""

    def __init__(self, connection: Connection, rules: Rules) -> None:
        self._connection = connection
        self._rules = rules
        self._greeted = False
        self._user: str | None = None
        self._sender: str | None = None
        self._utf8 = False
        self._recipients: list[str] = []
        self._handlers: dict[str, Callable[[str], str]] = {
            "HELO": lambda _: self._hello([]), "EHLO": lambda _: self._hello(self._offered()),
            "AUTH": self._authenticate, "STARTTLS": self._start_tls,
            "MAIL": self._mail, "RCPT": self._recipient, "DATA": self._data,
            "RSET": lambda _: self._reset("250 2.0.0 Ok"), "NOOP": lambda _: "250 2.0.0 Ok",
            "VRFY": lambda _: "252 2.0.0 Cannot verify, but will take mail", "QUIT": lambda _: "221 2.0.0 Bye",
        }  # fmt: skip

    def run(self) -> None:
        """Answer commands until QUIT, or until there have been too many protocol errors."""
        self._reply(f"220 {HOST} ESMTP Mailer sandbox")
        errors = 0
        while errors < MAX_PROTOCOL_ERRORS:
            try:
                line = self._connection.read_line(MAX_COMMAND).decode()
                reply = self._answer(line.rstrip("\r\n"))
            except (LineTooLongError, UnicodeDecodeError) as error:
                reply = "500 5.5.2 " + ("Line too long" if isinstance(error, LineTooLongError) else "Not UTF-8")
            self._reply(reply)
            if reply.startswith("221"):
                return
            errors += reply.startswith("50")
        self._reply(f"421 4.7.0 {HOST} Too many errors")

    def _reply(self, reply: str) -> None:
        if reply:
            self._connection.write(reply.encode() + b"\r\n")

    def _answer(self, line: str) -> str:
        verb, _, argument = line.partition(" ")
        if self._rules.on_command:
            self._rules.on_command(f"SMTP {line}")
        verb, argument = verb.upper(), argument.strip()
        handler = self._handlers.get(verb)
        if not handler or (verb in ("AUTH", "STARTTLS") and verb not in self._offered()):
            return "500 5.5.2 Command not recognised"
        if verb in (_WITHOUT_ARGUMENT if argument else _WITH_ARGUMENT):
            return f"501 5.5.4 Syntax: {verb}{'' if argument else ' and an argument'}"
        try:
            return handler(argument)
        except RefusedError as refusal:
            return str(refusal)

    def _offered(self) -> list[str]:
        """The extensions on offer now: where STARTTLS is one of them, AUTH is not."""
        in_clear = self._rules.tls is not None and not self._connection.encrypted
        offered = [name for name in self._rules.extensions if not (in_clear and name == "AUTH")]
        return [*offered, "STARTTLS"] if in_clear else offered

    def _hello(self, extensions: list[str]) -> str:
        self._greeted = True
        self._reset()
        values = {"SIZE": f"SIZE {self._rules.max_message}", "AUTH": "AUTH PLAIN LOGIN"}
        lines = [HOST, *(values.get(extension, extension) for extension in extensions)]
        return "\r\n".join([f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"])

    def _reset(self, reply: str = "") -> str:
        self._sender = None
        self._recipients = []
        return reply

    def _start_tls(self, _: str) -> str:
        assert self._rules.tls is not None  # noqa: S101 - or it would not be on offer
        self._reply("220 2.0.0 Ready to start TLS")
        self._connection.start_tls(self._rules.tls)
        self._greeted = False
        return self._reset()

    # Logging in (RFC 4954)

    def _authenticate(self, argument: str) -> str:
        if not self._greeted or self._user is not None or self._sender is not None:
            return "503 5.5.1 AUTH is not permitted now"
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() == "PLAIN":
            response = self._decode(initial) if initial else self._ask("")
        elif mechanism.upper() == "LOGIN":
            user = self._decode(initial) if initial else self._ask("Username:")
            response = b"\0" + user + b"\0" + self._ask("Password:")
        else:
            return "504 5.5.4 Mechanism not supported"
        self._user = self._rules.login(response)
        return "235 2.7.0 Logged in" if self._user is not None else "535 5.7.8 Wrong address or password"

    def _ask(self, challenge: str) -> bytes:
        self._reply("334 " + base64.b64encode(challenge.encode()).decode())
        return self._decode(self._connection.read_line(MAX_COMMAND).decode("ascii", "replace").rstrip("\r\n"))

    def _decode(self, text: str) -> bytes:
        if text == "*":
            raise RefusedError("501 5.7.0 Login cancelled")
        try:
            return b"" if text == "=" else base64.b64decode(text, validate=True)
        except ValueError:
            raise RefusedError("501 5.5.2 Not base64") from None

    # One message

    def _mail(self, argument: str) -> str:
        if not self._greeted:
            return "503 5.5.1 Send EHLO first"
        if self._sender is not None:
            return "503 5.5.1 Nested MAIL command"
        if self._rules.require_login and self._user is None:
            return "530 5.7.0 Log in first"
        path = smtp_syntax.path("FROM", argument)
        check_parameters(path.parameters, self._offered(), self._rules.max_message)
        self._utf8 = "SMTPUTF8" in path.parameters
        if path.address:
            check_address(path.address, utf8=self._utf8)
        self._sender = path.address
        return "250 2.1.0 Ok"

    def _recipient(self, argument: str) -> str:
        if self._sender is None:
            return "503 5.5.1 Send MAIL first"
        path = smtp_syntax.path("TO", argument)
        check_parameters(path.parameters, (), 0)
        if path.address.casefold() != "postmaster":
            check_address(path.address, utf8=self._utf8)
        if len(self._recipients) >= MAX_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        refusal = self._rules.refuse(path.address) if self._rules.refuse else None
        if refusal:
            return refusal
        self._recipients.append(path.address)
        return "250 2.1.5 Ok"

    def _data(self, _: str) -> str:
        if self._sender is None:
            return "503 5.5.1 Send MAIL first"
        if not self._recipients:
            return "554 5.5.1 No valid recipients"
        self._reply("354 End data with <CR><LF>.<CR><LF>")
        data, fault = read_text(self._connection, self._rules.max_message)
        sender, recipients = self._sender, tuple(dict.fromkeys(self._recipients))
        self._reset()
        return fault or self._deliver(sender, recipients, data)

    def _deliver(self, sender: str, recipients: tuple[str, ...], data: bytes) -> str:
        try:
            self._rules.store.reserve(len(data), len(recipients))
        except StoreFullError:
            return "452 4.3.1 No room for more mail"
        for recipient in recipients:
            self._rules.store.folders(recipient)["INBOX"].append(data)
        if self._rules.on_delivery:
            self._rules.on_delivery(sender, recipients, data)
        return f"250 2.0.0 Ok: queued as {next(_queue_ids)}"
