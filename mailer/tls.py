"""TLS contexts that verify: certificate and host name, against the system's authorities or a private one.

Built once by each script and shared by its connections, because reading the authorities takes tens of milliseconds.
"""

import ssl
from pathlib import Path

from mailer.errors import ConfigError, tls_words
from mailer.settings import Endpoint, Security

_LONGEST = 1 << 20  # bytes: far above any chain of certificates


def client_context(ca_file: Path | None, key: str = "MAIL_CA_FILE") -> ssl.SSLContext:
    """A context for connecting that verifies the peer; raises ConfigError when the file, set by `key`, is unusable."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as failure:
        raise _unusable(key, ca_file, failure) from failure
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def token_context(ca_file: Path | None) -> ssl.SSLContext:
    """The context for a token endpoint: it trusts the system's authorities and those of MAIL_CA_FILE."""
    context = client_context(None)
    try:
        if ca_file:
            context.load_verify_locations(ca_file)
    except OSError as failure:
        raise _unusable("MAIL_CA_FILE", ca_file, failure) from failure
    return context


def mail_context(endpoint: Endpoint, ca_file: Path | None) -> ssl.SSLContext:
    """The context for a mail server, like `client_context`; for a plain connection one that trusts nobody.

    That saves the 2.5 MB that the system's authorities take.
    """
    if endpoint.security is Security.PLAIN and not ca_file:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return client_context(ca_file)


def server_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """A context for listening with this certificate chain; raises ConfigError that names what is at fault."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _require("SERVER_TLS_CERT", certificate, "certificate")
    _require("SERVER_TLS_KEY", key or certificate, "private key")

    def passphrase() -> str:  # otherwise OpenSSL asks at the terminal, where nobody answers a service
        raise ConfigError(f"SERVER_TLS_KEY: the key in {key or certificate} is encrypted, and has to be in clear")

    try:
        context.load_cert_chain(certificate, key, password=passphrase)
    except OSError as failure:
        raise ConfigError(f"SERVER_TLS_CERT, SERVER_TLS_KEY: cannot be used ({tls_words(failure)})") from failure
    return context


def _unusable(key: str, ca_file: Path | None, failure: OSError) -> ConfigError:
    return ConfigError(f"{key}: {ca_file} holds no usable certificate authority ({failure})")


def _require(key: str, path: Path, what: str) -> None:
    """Raise ConfigError unless the file can be read and has this part (RFC 7468): OpenSSL would name neither."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST)
    except OSError as failure:
        raise ConfigError(f"{key}: {path} cannot be read ({failure.strerror})") from failure
    if f"{what.upper()}-----".encode() not in content:
        raise ConfigError(f"{key}: {path} holds no {what}")
