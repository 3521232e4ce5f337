"""Lines over a TCP connection, and the listener that gives every connection a thread.

Bounds everything a peer may send: the length of a line, the time between two bytes, the number of connections.
Output is gathered until more input is needed, so pipelined commands are answered in one write.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

MAX_CONNECTIONS = 1000
IDLE_SECONDS = 1800.0  # RFC 3501 asks for half an hour at least
_PASSED_OVER = 1 << 20  # bytes of an overlong line that are skipped before the peer is cut off
_OUTPUT_CHUNK = 1 << 18


class LineTooLongError(Exception):
    """The line was longer than allowed, and has been skipped. `ended`: whether it ended with <CR><LF>."""

    def __init__(self, line: bytes) -> None:
        super().__init__("line too long")
        self.ended = line.endswith(b"\r\n")


class Connection:
    """A peer: bounded reading, gathered writing."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self.encrypted = False
        sock.settimeout(IDLE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_line(self, limit: int) -> bytes:
        """The next line with its ending, of at most `limit` bytes; `LineTooLongError` when it is longer."""
        passed_over = 0
        while (end := self._incoming.find(b"\n") + 1) == 0:
            if len(self._incoming) > limit:
                passed_over += len(self._incoming) - 1
                del self._incoming[:-1]  # the last byte may be the CR of its end
                if passed_over > _PASSED_OVER:
                    raise ConnectionError("endless line")
            self._receive()
        line = self._take(end)
        if passed_over or end > limit:
            raise LineTooLongError(line)
        return line

    def read_exactly(self, count: int) -> bytes:
        """The next `count` bytes; the caller bounds the number."""
        while len(self._incoming) < count:
            self._receive()
        return self._take(count)

    def write(self, data: bytes) -> None:
        """Send the data, at the latest before the next wait for input."""
        self._outgoing += data
        if len(self._outgoing) > _OUTPUT_CHUNK:
            self.flush()

    def flush(self) -> None:
        """Send what has been gathered."""
        if self._outgoing:
            self._socket.sendall(self._outgoing)
            self._outgoing.clear()

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Continue encrypted. What was sent in clear beyond the command is thrown away (RFC 3207, section 4.2)."""
        self.flush()
        self._incoming.clear()
        self._socket = context.wrap_socket(self._socket, server_side=True)
        self.encrypted = True

    def cut(self) -> None:
        """End the connection from another thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Send what is left and close."""
        with contextlib.suppress(OSError):
            self.flush()
        self.cut()
        self._socket.close()

    def _receive(self) -> None:
        self.flush()
        chunk = self._socket.recv(65536)
        if not chunk:
            raise ConnectionError("closed by the peer")
        self._incoming += chunk

    def _take(self, count: int) -> bytes:
        taken = bytes(self._incoming[:count])
        del self._incoming[:count]
        return taken


class Listener:
    """A listening port; `serve` runs in a thread of its own for every connection."""

    def __init__(self, host: str, port: int, serve: Callable[[Connection], None]) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=256)
        self._socket.settimeout(0.5)  # where shutdown() does not wake accept() (macOS), this does
        self.port: int = self._socket.getsockname()[1]
        self._serve = serve
        self._stopping = False
        self._connections: dict[threading.Thread, Connection] = {}
        self._lock = threading.Lock()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening and cut every connection; the port is free afterwards."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._socket.close()
        self.cut_connections()

    def cut_connections(self) -> None:
        """Cut every connection, as an outage would; go on listening."""
        with self._lock:
            connections = dict(self._connections)
        for connection in connections.values():
            connection.cut()
        for thread in connections:
            thread.join(timeout=5)

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, _ = self._socket.accept()
            except OSError:  # the half second is over, the peer has gone again, or close() was called
                continue
            with self._lock:
                if len(self._connections) >= MAX_CONNECTIONS:
                    sock.close()
                    continue
                connection = Connection(sock)
                thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
                self._connections[thread] = connection
                thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            self._serve(connection)
        except OSError:
            pass  # the peer is gone or silent for too long, or TLS failed: nobody is left to tell
        finally:
            connection.close()
            with self._lock:
                del self._connections[threading.current_thread()]
