"""From an address to an IMAP session: TLS as the settings say, then one login.

Refuses to send a secret before the TLS that was asked for, a greeting that skips the login where STARTTLS is required
(PREAUTH), and plaintext injected before the handshake (CVE-2021-38371). Uses one mechanism and falls back to no other;
an access token that is refused is renewed once. Raises `MailboxError` only. Called by `imap`.
"""

import imaplib
import ssl
from base64 import b64encode
from collections.abc import Callable

from mailer import sasl
from mailer.errors import ExitCode, LoginError, MailboxError
from mailer.imap.syntax import not_for_good, quoted
from mailer.imap.wire import Wire
from mailer.settings import Endpoint, Security


def connect(
    endpoint: Endpoint, login: sasl.Login, context: ssl.SSLContext, timeout: float, stopping: Callable[[], bool]
) -> Wire:
    """A connection that is protected as the endpoint says, and logged in."""
    wire = Wire(endpoint, context, timeout, stopping, login.secrets)
    try:
        if endpoint.security is Security.STARTTLS:
            _start_tls(wire)
        if wire.state == "NONAUTH":
            _log_in(wire, login)
    except BaseException:
        wire.shutdown()
        raise
    return wire


def _start_tls(wire: Wire) -> None:
    if wire.state != "NONAUTH":
        raise MailboxError(f"{wire.host} skips the login, and STARTTLS with it (PREAUTH): refused")
    if "STARTTLS" not in wire.capabilities:
        raise MailboxError(f"{wire.host} offers no STARTTLS: nothing is sent to it in clear")
    status, words = wire.command("STARTTLS")
    if status != "OK":
        raise MailboxError(f"{wire.host} refuses STARTTLS: {words}")
    with wire.translated(wire.host):
        wire.wrap()
        wire.untagged_responses.clear()
        _, answer = wire.capability()  # what was offered in clear may have been forged
        wire.capabilities = tuple(str(answer[-1], "ascii").upper().split())


def _log_in(wire: Wire, login: sasl.Login) -> None:
    mechanism = sasl.choose([word[5:] for word in wire.capabilities if word.startswith("AUTH=")], login)
    if not mechanism and (login.oauth or "LOGINDISABLED" in wire.capabilities):
        wanted = "OAuth" if login.oauth else "password"
        raise MailboxError(f"{wire.host} offers no {wanted} login", ExitCode.LOGIN_REFUSED)
    status, words = _authenticate(wire, mechanism, login, fresh=False)
    if status != "OK" and login.oauth and not not_for_good(words):
        status, words = _authenticate(wire, mechanism, login, fresh=True)
    if status != "OK":
        code = ExitCode.TEMPORARY if not_for_good(words) else ExitCode.LOGIN_REFUSED
        raise MailboxError(f"{wire.host} refuses the login of {login.user}: {words}", code)
    wire.state = "AUTH"
    if "ID" in wire.capabilities:  # some providers open no folder to a client that does not say its name
        wire.command("ID", '("name" "Mailer")')


def _authenticate(wire: Wire, mechanism: str | None, login: sasl.Login, *, fresh: bool) -> tuple[str, str]:
    """Log in with the mechanism, or else the LOGIN command; return the status and the server's words."""
    try:
        secret = login.secret(fresh)
    except LoginError as failure:
        code = ExitCode.UNAVAILABLE if failure.temporary else ExitCode.LOGIN_REFUSED
        raise MailboxError(f"the login of {login.user}: {failure}", code) from None
    login.secrets.add(secret)
    if mechanism is None:
        return _command(wire, login.user, secret)
    first = sasl.initial_response(mechanism, login.user, secret, wire.host, wire.port)
    login.secrets.add(b64encode(first).decode())
    return _converse(wire, mechanism, first, secret)


def _command(wire: Wire, user: str, secret: str) -> tuple[str, str]:
    if secret.isascii() and secret.isprintable():
        return wire.command("LOGIN", quoted(user), quoted(secret))
    wire.literal = secret.encode()  # type: ignore[assignment]  # bytes are what it is for
    return wire.command("LOGIN", quoted(user))


def _converse(wire: Wire, mechanism: str, first: bytes, secret: str) -> tuple[str, str]:
    answers = [first]
    if mechanism == "LOGIN":
        answers.append(secret.encode())
    if mechanism in sasl.TOKEN_MECHANISMS:  # a refusal gives its reason in a challenge, which needs an answer
        answers.append(b"\1" if mechanism == "OAUTHBEARER" else b"")
    reasons: list[str] = []

    def respond(challenge: bytes) -> bytes:
        reasons.append(challenge.decode("utf-8", "replace"))
        if not answers:
            raise imaplib.IMAP4.abort("it goes on asking during the login")
        return answers.pop(0)

    with wire.translated(wire.host):
        try:
            wire.authenticate(mechanism, respond)
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as failure:
            return "NO", wire.secrets.safe(" ".join([str(failure), *reasons[1:]]))
    return "OK", ""
