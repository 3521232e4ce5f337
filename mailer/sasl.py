"""SASL (RFC 4422): which mechanism to use, and its initial response.

Chooses the first that the server offers of PLAIN and LOGIN for a password, of OAUTHBEARER and XOAUTH2 for an access
token. Challenge-response mechanisms are not used: they add no protection inside TLS and cannot carry UTF-8. Pure:
`smtp.login` and `imap.login` put the bytes on the wire.
"""

from base64 import b64encode
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from mailer.secrecy import Secrets

PASSWORD_MECHANISMS = ("PLAIN", "LOGIN")
TOKEN_MECHANISMS = ("OAUTHBEARER", "XOAUTH2")


@dataclass(frozen=True, slots=True)
class Login:
    """An account at a mail server. `secret(fresh)` gives the password or an access token, renewed when `fresh`.

    `secrets` are those that the server has been sent or may know: they are hidden in its words.
    """

    user: str
    secret: Callable[[bool], str] = field(repr=False)
    oauth: bool = False
    secrets: Secrets = field(default_factory=Secrets, repr=False, compare=False)


def password_login(user: str, password: str) -> Login:
    """A login with a password; it is hidden from the start, as the server may know it from earlier logins."""
    first = b64encode(initial_response("PLAIN", user, password, "", 0)).decode()
    return Login(user, lambda _fresh: password, secrets=Secrets(password, first))


def choose(offered: Collection[str], login: Login) -> str | None:
    """The mechanism to use of those offered (any case), or None when no usable one is."""
    names = {name.upper() for name in offered}
    wanted = TOKEN_MECHANISMS if login.oauth else PASSWORD_MECHANISMS
    return next((name for name in wanted if name in names), None)


def initial_response(mechanism: str, user: str, secret: str, host: str, port: int) -> bytes:
    """The initial response before base64 (RFC 4616, RFC 7628); for LOGIN the user name alone."""
    if mechanism == "PLAIN":
        return f"\0{user}\0{secret}".encode()
    if mechanism == "LOGIN":
        return user.encode()
    if mechanism == "OAUTHBEARER":
        authorization = user.replace("=", "=3D").replace(",", "=2C")
        return f"n,a={authorization},\1host={host}\1port={port}\1auth=Bearer {secret}\1\1".encode()
    return f"user={user}\1auth=Bearer {secret}\1\1".encode()
