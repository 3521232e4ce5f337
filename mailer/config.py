"""Settings: a mapping of strings → frozen settings for one script, every problem reported at once.

Raises a `ConfigError` that names the key of every missing or impossible value. Pure: `environment` reads the files.
Called by the scripts, directly or through `environment`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from mailer.settings import (
    Account,
    ClientSettings,
    CollectorSettings,
    Endpoint,
    OAuth,
    Security,
    ServerSettings,
    is_loopback,
    may_have_secrets,
)
from mailer.settings_reader import Reader

# Every key that a script reads; a test compares them with what is read here and with .env.example.
KEYS = frozenset({
    "EMAIL_LOGIN", "EMAIL_PASSWORD", "EMAIL_PASSWORD_FILE", "EMAIL_AUTH", "EMAIL_TOKEN_COMMAND", "OAUTH_TOKEN_URL",
    "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_REFRESH_TOKEN", "IMAP_HOST", "IMAP_PORT", "IMAP_SECURITY",
    "IMAP_FOLDER", "MARK_SEEN", "PERIOD_CHECK", "SMTP_HOST", "SMTP_PORT", "SMTP_SECURITY", "SMTP_SESSIONS",
    "MAIL_CA_FILE", "MAIL_TIMEOUT", "SERVER_HOST", "SERVER_PORT", "SERVER_TOKEN", "SERVER_TLS_CERT", "SERVER_TLS_KEY",
    "SERVER_TLS_CA", "SERVER_WORKERS", "SERVER_TIMEOUT", "RATE_PER_RECIPIENT", "RATE_PER_CLIENT", "TICKET_START",
    "TICKET_STEP", "TICKET_OFFSET", "SUCCESS_LOG", "ERROR_LOG", "STATE_DIR",
})  # fmt: skip

# The keys in whose values `environment` replaces a `~`: this module knows no home folder.
PATHS = frozenset({
    "SUCCESS_LOG", "ERROR_LOG", "STATE_DIR", "MAIL_CA_FILE", "SERVER_TLS_CERT", "SERVER_TLS_KEY", "SERVER_TLS_CA",
})  # fmt: skip

# Ticket numbers have at most 18 digits on the wire; a start below this leaves room for more than anybody will send.
_HIGHEST_START = 10**15
_LONGEST_PERIOD = 1e9  # seconds, 30 years: far below what a clock can count
_IMPLICIT_TLS_PORTS = (465, 993)
# The account's address goes into the envelope and into header fields: it must hold nothing that could end either.
_MAILBOX = re.compile(r"[^\s<>()\[\],;:\\\"\x00-\x1f\x7f-\x9f@]+@[^\s<>()\[\],;:\\\"\x00-\x1f\x7f-\x9f@]+")


def server_settings(values: Mapping[str, str], base: Path) -> ServerSettings:
    """The settings of `server.py`; relative paths are taken from `base`."""
    reader = Reader(values, base)
    account = _account(reader)
    if account.login and not _MAILBOX.fullmatch(account.login):
        reader.complain("EMAIL_LOGIN", "must be an e-mail address: tickets are sent from it")
    step = reader.integer("TICKET_STEP", 1, 1_000_000, "1")
    certificate, key = reader.path("SERVER_TLS_CERT"), reader.path("SERVER_TLS_KEY")
    if key and not certificate:
        reader.complain("SERVER_TLS_CERT", "is needed with SERVER_TLS_KEY")
    return reader.result(
        ServerSettings(
            account=account,
            smtp=_endpoint(reader, "SMTP"),
            ca_file=reader.path("MAIL_CA_FILE"),
            timeout=reader.seconds("MAIL_TIMEOUT", "30"),
            sessions=reader.integer("SMTP_SESSIONS", 1, 1_000, "16"),
            host=reader.host("SERVER_HOST", "127.0.0.1"),
            port=reader.integer("SERVER_PORT", 0, 65_535, "50007"),
            workers=reader.integer("SERVER_WORKERS", 1, 10_000, "256"),
            peer_timeout=reader.seconds("SERVER_TIMEOUT", "15"),
            token=reader.secret("SERVER_TOKEN"),
            tls_cert=certificate,
            tls_key=key,
            state_dir=reader.place("STATE_DIR", ".mailer"),
            ticket_start=reader.integer("TICKET_START", 1, _HIGHEST_START, "10000"),
            ticket_step=step,
            ticket_offset=reader.integer("TICKET_OFFSET", 0, max(step - 1, 0), "0"),
            rate_per_recipient=reader.rate("RATE_PER_RECIPIENT", "60/hour burst 20"),
            rate_per_client=reader.rate("RATE_PER_CLIENT", "600/hour burst 100"),
        )
    )


def collector_settings(values: Mapping[str, str], base: Path) -> CollectorSettings:
    """The settings of `collector.py`; relative paths are taken from `base`."""
    reader = Reader(values, base)
    imap = _endpoint(reader, "IMAP")
    success, error = logs(values, base)
    if success == error:
        reader.complain("ERROR_LOG", "must be another file than SUCCESS_LOG")
    if not imap.confidential:
        reader.complain("IMAP_SECURITY", f"plain would send the login to {imap.host} in clear")
    return reader.result(
        CollectorSettings(
            account=_account(reader),
            imap=imap,
            ca_file=reader.path("MAIL_CA_FILE"),
            timeout=reader.seconds("MAIL_TIMEOUT", "30"),
            period=reader.seconds("PERIOD_CHECK", longest=_LONGEST_PERIOD),
            folder=reader.text("IMAP_FOLDER", "INBOX", any_letters=True),
            mark_seen=reader.choice("MARK_SEEN", {"yes": True, "no": False}, "yes"),
            success_log=success,
            error_log=error,
            state_dir=reader.place("STATE_DIR", ".mailer"),
        )
    )


def logs(values: Mapping[str, str], base: Path) -> tuple[Path, Path]:
    """The paths of the success log and the error log, the only settings that `--show` needs."""
    reader = Reader(values, base)
    success, error = (reader.place(f"{name}_LOG", f"{name.lower()}_request.log") for name in ("SUCCESS", "ERROR"))
    return reader.result((success, error))


def client_settings(values: Mapping[str, str], base: Path) -> ClientSettings:
    """The settings of `client.py`; relative paths are taken from `base`."""
    reader = Reader(values, base)
    # The server gives a delivery three times MAIL_TIMEOUT; before that, a newcomer may wait for SERVER_TIMEOUT.
    patience = 3 * reader.others_seconds("MAIL_TIMEOUT", "30") + 2 * reader.others_seconds("SERVER_TIMEOUT", "15")
    host, token = reader.host("SERVER_HOST", "127.0.0.1"), reader.secret("SERVER_TOKEN")
    authority = reader.path("SERVER_TLS_CA")
    if token and host and not authority and not is_loopback(host):
        reader.complain("SERVER_TLS_CA", f"is missing: the token would go to {host} in clear")
    return reader.result(
        ClientSettings(
            host=host,
            port=reader.integer("SERVER_PORT", 1, 65_535, "50007"),
            token=token,
            tls_ca=authority,
            timeout=patience,
        )
    )


def _account(reader: Reader) -> Account:
    login = reader.text("EMAIL_LOGIN")
    if reader.choice("EMAIL_AUTH", {"password": False, "oauth2": True}, "password"):
        return Account(login, "", _oauth(reader))
    password = reader.secret("EMAIL_PASSWORD")
    if not password:
        reader.complain("EMAIL_PASSWORD", "is missing (see .env.example)")
    return Account(login, password or "")


def _oauth(reader: Reader) -> OAuth:
    if reader.has("EMAIL_TOKEN_COMMAND"):
        return OAuth(command=reader.command("EMAIL_TOKEN_COMMAND"))
    refresh_token = reader.secret("OAUTH_REFRESH_TOKEN")
    if not refresh_token:
        reader.complain("OAUTH_REFRESH_TOKEN", "is missing (or set EMAIL_TOKEN_COMMAND)")
    token_url = reader.text("OAUTH_TOKEN_URL")
    if token_url and not may_have_secrets(token_url):  # not shown, as a password may be in it
        reader.complain("OAUTH_TOKEN_URL", "must be an https address, with no name or password in it")
    # A public client, as Microsoft's device sign-in makes them, has no client secret.
    return OAuth(
        token_url=token_url,
        client_id=reader.text("OAUTH_CLIENT_ID"),
        client_secret=reader.secret("OAUTH_CLIENT_SECRET"),
        refresh_token=refresh_token,
    )


def _endpoint(reader: Reader, protocol: str) -> Endpoint:
    host = reader.host(f"{protocol}_HOST")
    port = reader.integer(f"{protocol}_PORT", 1, 65_535)
    chosen = reader.choice(f"{protocol}_SECURITY", {"auto": None, **{s.value: s for s in Security}}, "auto")
    return Endpoint(host, port, chosen or _automatic_security(host, port))


def _automatic_security(host: str, port: int) -> Security:
    if port in _IMPLICIT_TLS_PORTS:
        return Security.TLS
    return Security.PLAIN if is_loopback(host) else Security.STARTTLS
