"""Frames over one socket, under deadlines: `listener` serves with them, `exchange` asks with them.

A `Connection` gives whole frames or raises an error; however a peer drips, stalls or floods, a frame takes no longer
than the time-out and no more than `MAX_FRAME` bytes.
"""

import socket
import ssl
import time
from collections.abc import Callable

from mailer.errors import Code, Problem, speaks_clear
from mailer.patience import AT_ONCE, QUICK, TOO_LONG, be_quick, receive_at_once, send_at_once
from mailer.protocol import Reply, encode_reply, split_frame

_READ_SIZE = 1 << 12
# How long, and for how many bytes, a connection that is being closed still reads what its peer sends, so that the
# last answer is not lost to a reset (RFC 1122, section 4.2.2.13).
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 4 << 20


class Connection:
    """One peer's socket: whole frames in and out; with a `context`, as a TLS server.

    `on_wait(connection)` is called before each wait that may be longer than QUICK. `given_up`: it was closed to make
    room for another; `in_hand`: it brought a request whose outcome is not known yet.
    """

    def __init__(
        self,
        sock: socket.socket,
        timeout: float,
        on_wait: Callable[["Connection"], object] = bool,
        context: ssl.SSLContext | None = None,
        network: str = "",
    ) -> None:
        self._timeout = timeout
        self._on_wait = on_wait
        self._buffer = b""  # what has come after the last frame
        self._ended = False  # whether `ready` has seen the end of the stream
        self.given_up = self.in_hand = False
        self.network = network
        self._handshake: Callable[[], None] | None = None
        if context:
            try:
                sock.getpeername()  # raises for one that was reset already: `wrap_socket` would leave it open
                secured = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            except BaseException:
                sock.close()
                raise
            self._handshake = secured.do_handshake
            sock = secured
        self._sock = sock
        # A socket that has just been accepted gets its time-out before the first wait: most connections never wait.
        self._prepared = sock.gettimeout() is not None or isinstance(sock, ssl.SSLSocket)
        if self._prepared:
            be_quick(sock)

    def receive(self) -> bytes | None:
        """The next frame's payload, or None when the peer has ended the stream between frames.

        Raises OSError when the peer stalls or ends within a frame, and RequestError (`frame_too_large`).
        """
        deadline = time.monotonic() + self._timeout
        self._shake_hands()
        received = self._buffer or (b"" if self._ended else self._read(deadline))
        if not received:
            return None
        if (frame := split_frame(received)) is None:
            self._on_wait(self)  # however soon more comes: the rest may come byte by byte
            buffer = bytearray(received)
            while (frame := split_frame(buffer)) is None:
                data = self._read(deadline)
                if not data:
                    raise ConnectionError("the connection ended in the middle of a frame")
                buffer += data
        payload, self._buffer = frame
        return payload

    def send(self, frame: bytes) -> None:
        """Send a whole frame; raises OSError when the peer does not take it within the time-out."""
        self._shake_hands()
        if not AT_ONCE:
            self._prepare()
        sent = send_at_once(self._sock, frame)
        if sent < len(frame):
            self._on_wait(self)
            self._sock.settimeout(self._timeout)  # for `sendall` this bounds the whole, not each piece
            self._sock.sendall(memoryview(frame)[sent:])
            be_quick(self._sock)

    def ready(self) -> bool:
        """Whether more has come, if only the end of the stream, or a TLS handshake is due; does not wait."""
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
            # Not SSLSocket's own method, which would take the TLS state away from the thread that is reading.
            socket.socket.shutdown(self._sock, how)
        except OSError:
            return  # it has ended by itself

    def linger(self, seconds: float = _LINGER_SECONDS) -> None:
        """End our side of the stream, and read for a moment what still comes, so that the last answer arrives."""
        self.interrupt(socket.SHUT_WR)
        self._on_wait(self)
        end = time.monotonic() + seconds
        taken = 0
        try:
            while taken < _LINGER_BYTES and (data := self._read(end)):
                taken += len(data)
        except OSError:
            return  # the peer has gone or goes on for too long: there is nothing more to do for it

    def close(self) -> None:
        """Close the socket; raises nothing."""
        self._sock.close()

    def _shake_hands(self) -> None:
        """Do the TLS handshake if it is still due: in the thread that serves, not in the one that accepts."""
        if self._handshake:
            self._on_wait(self)
            self._sock.settimeout(self._timeout)  # bounds the whole handshake
            try:
                self._handshake()
            except ssl.SSLError as failure:
                if speaks_clear(failure):
                    self._say_in_clear()
                raise
            self._handshake = None
            be_quick(self._sock)

    def _say_in_clear(self) -> None:
        """Tell a peer that does not speak TLS what is wrong: otherwise it would not know if its request arrived."""
        self._sock, self._handshake = socket.socket(fileno=self._sock.detach()), None
        self._prepared = False
        text = "This server takes requests over TLS alone; for client.py that is SERVER_TLS_CA. Nothing was sent."
        self.send(encode_reply(Reply(problems=(Problem(Code.BAD_REQUEST, text),))))
        self.linger(min(self._timeout, _LINGER_SECONDS))

    def _prepare(self) -> None:
        """Limit each call on the socket to QUICK, unless that has been done."""
        if not self._prepared:
            be_quick(self._sock)
            self._prepared = True

    def _read(self, deadline: float) -> bytes:
        if time.monotonic() > deadline:  # the peer may keep sending a little, and never enough
            raise TimeoutError("the frame was not complete in time")
        self._prepare()
        try:
            return self._sock.recv(_READ_SIZE)
        except TOO_LONG:
            self._on_wait(self)
        self._sock.settimeout(max(deadline - time.monotonic(), QUICK))
        data = self._sock.recv(_READ_SIZE)
        be_quick(self._sock)
        return data
