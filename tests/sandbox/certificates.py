"""TLS on loopback: a certificate for 127.0.0.1 and localhost that is its own authority, and good for a century."""

import ssl
from pathlib import Path

LOOPBACK = Path(__file__).with_name("loopback.pem")  # the key is as public as this file: for tests alone


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's context, and that of a client that verifies it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(LOOPBACK)
    return server, ssl.create_default_context(cafile=str(LOOPBACK))
