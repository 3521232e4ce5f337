"""Frames over one socket, under deadlines: what `listener` serves with and `client.py` asks with.

A `Connection` gives whole frames or raises `OSError`; however a peer drips, stalls or floods, a frame takes at most
its time-out and at most `MAX_FRAME` bytes. `exchange` is the client's side: one request, one reply.
"""

import socket
import ssl
import time
from collections.abc import Callable

from mailer.errors import RequestError, TransportError, UnsentInterrupt, tls_words
from mailer.patience import QUICK, TOO_LONG, be_quick, receive_at_once, send_at_once
from mailer.protocol import Reply, Request, decode_reply, encode_request, split_frame

_READ_SIZE = 1 << 12
# How long, and for how many bytes, a connection that is being closed still drinks what its peer sends, so that the
# last answer is not lost to a reset (RFC 1122, section 4.2.2.13).
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 4 << 20
_CONNECT_TIMEOUT = 10.0  # seconds: far above any network's round trip, short for a person


class Connection:
    """One peer's socket: whole frames in and out; with a context, as the server of TLS.

    `on_wait` is called with it before each wait that will be longer than QUICK. `given_up`: others decided to close it.
    """

    def __init__(
        self,
        sock: socket.socket,
        timeout: float,
        on_wait: Callable[["Connection"], object] = bool,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = timeout
        self._on_wait = on_wait
        self._buffer = b""  # what has come behind the last frame
        self._ended = False  # as `ready` has seen
        self.given_up = False
        self._handshake: Callable[[], None] | None = None
        if context:
            try:
                sock.getpeername()  # `wrap_socket` would not close one that has been reset already
                secured = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            except OSError:
                sock.close()
                raise
            self._handshake = secured.do_handshake
            sock = secured
        self._sock = sock
        # A socket that has just been accepted is made ready for waits when there is one: most connections need none.
        self._prepared = sock.gettimeout() is not None or isinstance(sock, ssl.SSLSocket)
        if self._prepared:
            be_quick(sock)

    def receive(self) -> bytes | None:
        """The next frame's payload, or None when the peer has ended between frames.

        Raises OSError when it ends or stalls within one, and RequestError (`frame_too_large`).
        """
        deadline = time.monotonic() + self._timeout
        self._shake_hands()
        received = self._buffer or (b"" if self._ended else self._read(deadline))
        if not received:
            return None
        if (frame := split_frame(received)) is None:
            self._on_wait(self)  # however soon the rest comes: it may come byte by byte
            buffer = bytearray(received)
            while (frame := split_frame(buffer)) is None:
                data = self._read(deadline)
                if not data:
                    raise ConnectionError("the connection ended in the middle of a frame")
                buffer += data
        payload, self._buffer = frame
        return payload

    def send(self, frame: bytes) -> None:
        """Hand a whole frame to the peer, however slowly it takes it; raises OSError when it is too slow."""
        self._shake_hands()
        sent = send_at_once(self._sock, frame)
        if sent < len(frame):
            self._on_wait(self)
            self._sock.settimeout(self._timeout)  # for `sendall` this bounds the whole, not each piece
            self._sock.sendall(memoryview(frame)[sent:])
            be_quick(self._sock)

    def ready(self) -> bool:
        """Without waiting: whether more has come, or the end."""
        if not self._buffer and not self._handshake:
            try:
                data = receive_at_once(self._sock, _READ_SIZE)
            except OSError:
                return True  # `receive` will raise it
            if data is None:
                return False
            self._buffer, self._ended = data, not data
        return True

    def interrupt(self, how: int = socket.SHUT_RDWR) -> None:
        """End the connection, or one direction of it, from another thread: a blocked `receive` returns."""
        try:
            # Not SSLSocket's own method, which would take the TLS state away under the thread that is reading.
            socket.socket.shutdown(self._sock, how)
        except OSError:
            return  # it has ended by itself

    def linger(self, seconds: float = _LINGER_SECONDS) -> None:
        """End our side and take in what still comes for a moment, so that the answer sent last arrives."""
        self.interrupt(socket.SHUT_WR)
        self._on_wait(self)
        end = time.monotonic() + seconds
        taken = 0
        try:
            while taken < _LINGER_BYTES and (data := self._read(end)):
                taken += len(data)
        except OSError:
            return  # the peer has gone or goes on for too long; either way there is nothing more to do for it

    def close(self) -> None:
        """Close the socket; raises nothing."""
        self._sock.close()

    def _shake_hands(self) -> None:
        """Do what is due of the TLS handshake: in the thread that serves, not where connections are accepted."""
        if self._handshake:
            self._on_wait(self)
            self._sock.settimeout(self._timeout)  # bounds the whole handshake
            self._handshake()
            self._handshake = None
            be_quick(self._sock)

    def _read(self, deadline: float) -> bytes:
        if time.monotonic() > deadline:  # the peer may have sent something all the time, and never enough
            raise TimeoutError("the frame was not complete in time")
        if not self._prepared:
            be_quick(self._sock)
            self._prepared = True
        try:
            return self._sock.recv(_READ_SIZE)
        except TOO_LONG:
            self._on_wait(self)
        self._sock.settimeout(max(deadline - time.monotonic(), QUICK))
        data = self._sock.recv(_READ_SIZE)
        be_quick(self._sock)
        return data


def exchange(
    host: str, port: int, request: Request, *, timeout: float, context: ssl.SSLContext | None = None
) -> Reply:
    """Send one request and wait up to `timeout` seconds for its reply; raises TransportError, or UnsentInterrupt."""
    frame = encode_request(request)
    try:
        sock = _connect(host, port, context)
    except KeyboardInterrupt:
        raise UnsentInterrupt from None
    connection = Connection(sock, timeout)
    try:
        unsent = _try_to_send(connection, frame)
        payload = connection.receive()
    except RequestError as failure:  # no Mailer server begins an answer like that, so none has got the request
        raise TransportError("no Mailer server answers there", sent=False) from failure
    except OSError as failure:
        raise TransportError(f"no answer came ({_words(failure)})", sent=unsent is None) from failure
    finally:
        connection.close()
    if payload is None:
        raise TransportError("the connection was closed without an answer", sent=unsent is None)
    return decode_reply(payload)


def _connect(host: str, port: int, context: ssl.SSLContext | None) -> socket.socket:
    try:
        sock = socket.create_connection((host, port), _CONNECT_TIMEOUT)
    except (OSError, UnicodeError) as failure:  # UnicodeError: a name that IDNA cannot encode
        raise TransportError(_words(failure), sent=False) from failure
    if context is None:
        return sock
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except (OSError, ValueError) as failure:
        sock.close()
        raise TransportError(f"TLS failed: {_words(failure)}", sent=False) from failure


def _try_to_send(connection: Connection, frame: bytes) -> OSError | None:
    """Send the request; a failure may mean that the server has answered early and closed, so the caller reads on."""
    try:
        connection.send(frame)
    except OSError as failure:
        return failure
    return None


def _words(failure: Exception) -> str:
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"the server's certificate is not to be trusted, {failure.verify_message.rstrip('.')}"
    if isinstance(failure, TimeoutError):
        return "no answer in time"
    if isinstance(failure, ssl.SSLError):
        return tls_words(failure)
    return (isinstance(failure, OSError) and failure.strerror) or str(failure)
