"""How long one call on a socket may take: a moment, so that whoever is going to wait for longer can say so before.

Python bounds a call by another one, poll(), before it. The system's own time-out saves that, and with it a fifth of a
delivery's time on a fast network; inside TLS, where one call can be several, it would not be told. Called by
`transport` and `smtp_wire`, where a read that takes too long raises one of `TOO_LONG`.
"""

import contextlib
import os
import socket
import ssl
import struct

# A call that takes longer is a wait. Far more than a mail server nearby takes to answer, and nothing to a person.
QUICK = 0.001  # seconds
TOO_LONG = (TimeoutError, BlockingIOError)
# QUICK as a `timeval`, where there are such; the system rounds it up to its clock's ticks.
_OPTION = struct.pack("ll", 0, 1000) if os.name == "posix" else b""
AT_ONCE: int = getattr(socket, "MSG_DONTWAIT", 0)  # what makes a single call not wait, where there is that


def be_quick(sock: socket.socket) -> None:
    """Let each read take a moment at most."""
    moment: float | None = QUICK
    if _OPTION and not isinstance(sock, ssl.SSLSocket):
        # Some systems refuse it once the peer has gone, and some want a `timeval` of another size.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _OPTION)
            moment = None
    sock.settimeout(moment)


def send_at_once(sock: socket.socket, data: bytes) -> int:
    """How many of these bytes the system takes without waiting for the peer; raises OSError."""
    try:
        # Where reads are bounded by poll(), this is, too: within a moment.
        return sock.send(data, AT_ONCE) if not isinstance(sock, ssl.SSLSocket) else sock.send(data)
    except TOO_LONG:
        return 0


def receive_at_once(sock: socket.socket, size: int) -> bytes | None:
    """What has come, b"" at the end, or None when nothing has; raises OSError."""
    try:
        if AT_ONCE and not isinstance(sock, ssl.SSLSocket):
            return sock.recv(size, AT_ONCE)  # within a moment, where reads are bounded by poll()
        sock.settimeout(0)
        try:
            return sock.recv(size)
        finally:
            be_quick(sock)
    except (*TOO_LONG, ssl.SSLWantReadError):
        return None
