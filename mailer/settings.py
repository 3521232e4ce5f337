"""The settings of each script as frozen values, which `config` makes and all other modules are given.

Passwords, tokens and client secrets never show in a `repr`. Times are in seconds.
"""

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Security(StrEnum):
    """How a connection to a mail server is protected; `config` turns `auto` into one of these."""

    TLS = "tls"
    STARTTLS = "starttls"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A mail server."""

    host: str
    port: int
    security: Security

    @property
    def confidential(self) -> bool:
        """Whether a secret may be sent there: inside TLS, or without leaving this machine."""
        return self.security is not Security.PLAIN or is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class OAuth:
    """Where access tokens come from: a command, or the refresh grant (RFC 6749, section 6) at a token endpoint."""

    command: str | None = field(default=None, repr=False)
    token_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """The administrator's account at the mail provider."""

    login: str
    password: str = field(repr=False)
    oauth: OAuth | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` requests in `seconds`, and up to `burst` at once."""

    count: int
    seconds: int
    burst: int


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What `server.py` needs; times in seconds."""

    account: Account
    smtp: Endpoint
    ca_file: Path | None
    timeout: float
    sessions: int
    host: str
    port: int
    workers: int
    peer_timeout: float
    token: str | None = field(repr=False)
    tls_cert: Path | None
    tls_key: Path | None
    state_dir: Path
    ticket_start: int
    ticket_step: int
    ticket_offset: int
    rate_per_recipient: Rate | None
    rate_per_client: Rate | None


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """What `collector.py` needs; times in seconds."""

    account: Account
    imap: Endpoint
    ca_file: Path | None
    timeout: float
    period: float
    folder: str
    mark_seen: bool
    success_log: Path
    error_log: Path
    state_dir: Path


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What `client.py` needs; `timeout` is how many seconds an answer may take."""

    host: str
    port: int
    token: str | None = field(repr=False)
    tls_ca: Path | None
    timeout: float


def may_have_secrets(url: str) -> bool:
    """Whether secrets may be sent to this URL: a usable https, or loopback http, address without a login in it."""
    from urllib.parse import urlsplit  # imported here, because it would slow down the client's start

    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()  # ValueError: a label is empty or too long
        usable = host and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        return False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def spelled(host: str, port: int) -> str:
    """A host and a port together, as they are in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host, as written, can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
