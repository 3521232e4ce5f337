"""TLS contexts that verify: certificate and host name, against the system's authorities or a private one.

Built once by `launch` and shared, because reading the authorities takes tens of milliseconds.
"""

import ssl
from pathlib import Path

from mailer.errors import ConfigError


def client_context(ca_file: Path | None, key: str = "MAIL_CA_FILE") -> ssl.SSLContext:
    """A context for connecting that verifies the peer; raises ConfigError when the file, set by `key`, is unusable."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as failure:
        raise ConfigError(f"{key}: {ca_file} holds no usable certificate authority ({failure})") from failure
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def server_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """A context for listening with this certificate chain; raises ConfigError when it cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An encrypted key would make OpenSSL ask at the terminal: a service has nobody to answer.
        context.load_cert_chain(certificate, key, password="")
    except OSError as failure:
        raise ConfigError(f"SERVER_TLS_CERT, SERVER_TLS_KEY: cannot be used ({failure})") from failure
    return context
