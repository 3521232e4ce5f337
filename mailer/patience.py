"""Bounds one call on a socket to a moment, QUICK, so that a thread that has to wait for longer can say so before.

Python's own time-out makes one more system call, poll(), before each call. The system's time-out (SO_RCVTIMEO) saves
that, and with it a fifth of a delivery's time on a fast network; inside TLS, where one call can be several, it would go
unnoticed. Called by `transport` and `smtp.wire`; a read that takes too long raises one of `TOO_LONG`.
"""

import contextlib
import os
import socket
import ssl
import struct

# A call that takes longer is a wait. A mail server nearby answers in far less; a person does not notice it.
QUICK = 0.001  # seconds
TOO_LONG = (TimeoutError, BlockingIOError)
# QUICK as a `timeval`, on POSIX; the system rounds it up to its clock's ticks.
_OPTION = struct.pack("ll", 0, 1000) if os.name == "posix" else b""
AT_ONCE: int = getattr(socket, "MSG_DONTWAIT", 0)  # makes a single call not wait; 0 where there is no such flag


def be_quick(sock: socket.socket) -> None:
    """Bound each read to QUICK."""
    moment: float | None = QUICK
    if _OPTION and not isinstance(sock, ssl.SSLSocket):
        # Some systems refuse the option once the peer has gone, and some want a `timeval` of another size.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _OPTION)
            moment = None
    sock.settimeout(moment)


def send_at_once(sock: socket.socket, data: bytes) -> int:
    """How many of these bytes the system takes without waiting for the peer; raises OSError."""
    try:
        # Where Python's time-out is set, this waits for up to QUICK.
        return sock.send(data, AT_ONCE) if not isinstance(sock, ssl.SSLSocket) else sock.send(data)
    except TOO_LONG:
        return 0


def receive_at_once(sock: socket.socket, size: int) -> bytes | None:
    """What has come, b"" at the end, or None when nothing has; raises OSError."""
    try:
        if AT_ONCE and not isinstance(sock, ssl.SSLSocket):
            return sock.recv(size, AT_ONCE)  # waits for up to QUICK where Python's time-out is set
        sock.settimeout(0)
        try:
            return sock.recv(size)
        finally:
            be_quick(sock)
    except (*TOO_LONG, ssl.SSLWantReadError):
        return None
