"""Makes a connection to a mail server, protects it as the settings say, and logs in, step by step.

Sends no secret before the required TLS is there and verified, does not go on without a required STARTTLS, and refuses
plaintext injected before the handshake (CVE-2011-0411, CVE-2021-38371). Tries one mechanism only; an access token that
is refused is renewed once. Its errors hold no secret. Called by `smtp.session`.
"""

import base64
import binascii
import re
import socket
import ssl
from collections.abc import Iterator

from mailer import sasl
from mailer.errors import Code, DeliveryError, LoginError, Outcome
from mailer.settings import Endpoint, Security
from mailer.smtp.reply import LoginDeferredError, SessionLostError, words
from mailer.smtp.wire import Wire

_FULL_NAME = re.compile(r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
_NO_SUCH_COMMAND = (500, 502)
# Characters of a command without its CRLF (RFC 5321, section 4.5.3.1.4). An initial response that would make AUTH
# longer, as some tokens do, is sent when the server asks for it (RFC 4954, section 4).
_LONGEST_COMMAND = 510
_CHALLENGES = 3  # answered in one login: two for LOGIN (name, password), one for a refused token, and one to spare


def connect(wire: Wire, endpoint: Endpoint, login: sasl.Login, context: ssl.SSLContext) -> Iterator[str]:
    """Connect, protect, introduce, log in: a line for each step that is done."""
    host = endpoint.host
    wire.attach(host, endpoint.port, context if endpoint.security is Security.TLS else None)
    try:
        greeting = wire.reply()
    except SessionLostError as silent:
        if endpoint.security is Security.TLS or not isinstance(silent.__context__, TimeoutError):
            raise
        raise SessionLostError(f"{silent}; if it speaks TLS from the first byte, set SMTP_SECURITY=tls") from None
    wire.expect(greeting, "turns this machine away")
    yield f"connected to {host}:{endpoint.port}"
    _introduce(wire)
    if endpoint.security is Security.STARTTLS:
        if not wire.has_extn("starttls"):
            wire.fail("the mail server offers no STARTTLS: nothing is sent to it in clear")
        wire.expect(wire.ask("STARTTLS"), "refuses STARTTLS")
        wire.secure(host, context)
        _introduce(wire)  # what was offered in clear may have been forged
    version = wire.sock.version() if isinstance(wire.sock, ssl.SSLSocket) else ""
    yield f"protected by {version}, the certificate is trusted" if version else "without TLS"
    yield _log_in(wire, endpoint, login)


def _introduce(wire: Wire) -> None:
    name = _own_name(wire.connected())
    code, text = wire.ehlo(name)
    if code in _NO_SUCH_COMMAND:
        code, text = wire.helo(name)
    reply = b"\n".join(b"%d %s" % (code, line) for line in text.split(b"\n"))  # put together again after smtplib
    wire.expect((b"%d" % code, reply), "refuses EHLO")


def _log_in(wire: Wire, endpoint: Endpoint, login: sasl.Login) -> str:
    if not wire.has_extn("auth"):
        return "the mail server asks for no login"
    if not endpoint.confidential:
        raise _refused(f"the login would go to {endpoint.host} in clear: set SMTP_SECURITY to starttls or tls")
    offered = wire.esmtp_features["auth"].split()
    mechanism = sasl.choose(offered, login)
    if not mechanism:
        others = f", only {wire.secrets.safe(', '.join(offered))}" if offered else ""
        raise _refused(f"{endpoint.host} offers no login that can be used here{others}")
    code, text = _authenticate(wire, endpoint, login, mechanism, fresh=False)
    if code[:1] == b"5" and login.oauth:
        code, text = _authenticate(wire, endpoint, login, mechanism, fresh=True)
    if code[:1] == b"5":
        raise _refused(f"{endpoint.host} refuses the login of {login.user}: {text}")
    if code[:1] != b"2":
        raise LoginDeferredError(f"{endpoint.host} cannot check the login of {login.user} now: {text}")
    return f"logged in as {login.user} ({mechanism})"


def _authenticate(
    wire: Wire, endpoint: Endpoint, login: sasl.Login, mechanism: str, *, fresh: bool
) -> tuple[bytes, str]:
    """One login: the last reply's code, and what the server said about a refusal."""
    secret = _secret(login, fresh)
    first = _base64(sasl.initial_response(mechanism, login.user, secret, endpoint.host, endpoint.port))
    login.secrets.add(secret, first)
    answers = {"PLAIN": first, "LOGIN": _base64(secret.encode()), "OAUTHBEARER": _base64(b"\1"), "XOAUTH2": ""}
    at_once = f"AUTH {mechanism} {first}"
    code, whole = wire.ask(at_once if len(at_once) <= _LONGEST_COMMAND else f"AUTH {mechanism}")
    if code == b"334" and len(at_once) > _LONGEST_COMMAND:
        code, whole = wire.ask(first)
    reason = ""
    for _ in range(_CHALLENGES):
        if code != b"334":
            break
        challenge = _decoded(words(whole))
        reason = challenge if login.oauth else ""  # why a token is refused comes as a challenge to be answered
        asks_for_name = mechanism == "LOGIN" and "user" in challenge.lower()
        code, whole = wire.ask(first if asks_for_name else answers[mechanism])
    return code, "" if code[:1] == b"2" else f"{wire.said(whole)} {wire.secrets.safe(reason)}".strip()


def _secret(login: sasl.Login, fresh: bool) -> str:
    try:
        return login.secret(fresh)
    except LoginError as failure:
        if failure.temporary:
            raise SessionLostError(str(failure)) from None
        raise _refused(str(failure)) from None


def _refused(text: str) -> DeliveryError:
    return DeliveryError(Code.MAIL_AUTH_FAILED, text, Outcome.PERMANENT)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(challenge: bytes) -> str:
    try:
        return base64.b64decode(challenge).decode("utf-8", "replace")
    except binascii.Error:
        return ""


def _own_name(sock: socket.socket) -> str:
    """The name for EHLO: this machine's full name, or an address literal (RFC 5321, section 4.1.4)."""
    name = socket.gethostname()
    if _FULL_NAME.fullmatch(name) and not name.startswith("localhost."):
        return name
    try:
        address = sock.getsockname()[0].partition("%")[0]  # without a zone
    except OSError:  # the connection is lost, as the next command will report
        return "[127.0.0.1]"
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
