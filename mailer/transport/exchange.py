"""The client's side of the wire: one connection, one request, one reply. Called by `client.py`.

Whatever goes wrong on the way is a `TransportError`, which says whether the request may have reached the server.
"""

import socket
import ssl

from mailer.errors import RequestError, TransportError, UnsentInterrupt, connection_words
from mailer.protocol import Reply, Request, decode_reply, encode_request
from mailer.transport import Connection

_CONNECT_TIMEOUT = 10.0  # seconds: far above any network's round trip, short for a person


def exchange(
    host: str, port: int, request: Request, *, timeout: float, context: ssl.SSLContext | None = None
) -> Reply:
    """Send one request and wait up to `timeout` seconds for its reply. Raises TransportError; UnsentInterrupt for
    Ctrl-C before there is a connection; RequestError for a request that cannot be encoded.
    """
    frame = encode_request(request)
    try:
        sock = _connect(host, port, context)
    except KeyboardInterrupt:
        raise UnsentInterrupt from None
    connection = Connection(sock, timeout)
    sent = True
    try:
        try:
            connection.send(frame)
        except OSError:  # the frame is incomplete; the server may have answered early and closed
            sent = False
        payload = connection.receive()
    except RequestError as failure:  # no Mailer server sends such a length, so none has got the request
        raise TransportError("no Mailer server answers there", sent=False) from failure
    except (OSError, MemoryError) as failure:
        raise TransportError(f"no answer came ({_words(failure)})", sent=sent) from failure
    finally:
        connection.close()
    if payload is None:
        raise TransportError("the connection was closed without an answer", sent=sent)
    return decode_reply(payload)


def _connect(host: str, port: int, context: ssl.SSLContext | None) -> socket.socket:
    try:
        sock = socket.create_connection((host, port), _CONNECT_TIMEOUT)
    except (OSError, UnicodeError) as failure:  # UnicodeError: a name that IDNA cannot encode
        raise TransportError(_words(failure), sent=False) from failure
    if context is None:
        return sock
    try:
        return context.wrap_socket(sock, server_hostname=host.rstrip("."))
    except (OSError, ValueError) as failure:
        sock.close()
        raise TransportError(f"TLS failed: {_words(failure)}", sent=False) from failure


def _words(failure: Exception) -> str:
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"the server's certificate is not to be trusted, {failure.verify_message.rstrip('.')}"
    return connection_words(failure)
