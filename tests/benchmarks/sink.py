"""A mail server that takes everything and keeps nothing: for STARTTLS, TLS and AUTH, and where smtp-sink is missing.

`python -m tests.benchmarks.sink PORT [plain|starttls|tls] [CERTIFICATE KEY]`: one process for each processor, a thread
for each connection. It looks at no more of a mail than its end.
"""

import multiprocessing
import os
import re
import socket
import ssl
import sys
import threading
from collections.abc import Sequence

_COMMAND = re.compile(rb"(\w+)(?: ([^\r\n]*))?\r?\n")
_ANSWERS = {b"DATA": b"354 Go on\r\n", b"STARTTLS": b"220 Go on\r\n", b"QUIT": b"221 Bye\r\n"}


class _Session:
    def __init__(self, sock: socket.socket, security: str, context: ssl.SSLContext | None) -> None:
        self._sock = sock
        self._context = context
        self._secured = security == "tls"
        self._login = security != "plain"
        self._buffer = b""

    def serve(self) -> None:
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._secured and self._context:
            self._sock = self._context.wrap_socket(self._sock, server_side=True)
        self._sock.sendall(b"220 sink.example.com ESMTP\r\n")
        while self._buffer or self._fill():
            answers = []
            while found := _COMMAND.match(self._buffer):
                self._buffer = self._buffer[found.end() :]
                verb = found[1].upper()
                answers.append(self._answer(verb, found[2] or b""))
                if verb in (b"DATA", b"STARTTLS", b"QUIT"):
                    break
            self._sock.sendall(b"".join(answers))
            if not answers and not self._fill():
                return
            if answers and not self._follow(verb):
                return

    def _answer(self, verb: bytes, argument: bytes) -> bytes:
        if verb == b"EHLO":
            offers = [b"sink.example.com", b"PIPELINING", b"SIZE 10240000", b"8BITMIME", b"SMTPUTF8"]
            if self._login and not self._secured:
                offers.append(b"STARTTLS")
            elif self._login:
                offers.append(b"AUTH PLAIN LOGIN")
            return b"".join(b"250-" + offer + b"\r\n" for offer in offers[:-1]) + b"250 " + offers[-1] + b"\r\n"
        if verb == b"MAIL" and self._login and not self._secured:
            return b"530 5.7.0 STARTTLS first\r\n"
        if verb == b"AUTH":
            return b"235 2.7.0 Welcome\r\n" if b" " in argument else b"501 5.5.4 An initial response, please\r\n"
        return _ANSWERS.get(verb, b"250 OK\r\n")

    def _follow(self, verb: bytes) -> bool:
        """What comes after a command's answer; False at the end."""
        if verb == b"DATA":
            while b"\r\n.\r\n" not in self._buffer:
                if not self._fill():
                    return False
            self._buffer = self._buffer.partition(b"\r\n.\r\n")[2]
            self._sock.sendall(b"250 OK\r\n")
        elif verb == b"STARTTLS" and self._context:
            self._sock = self._context.wrap_socket(self._sock, server_side=True)
            self._secured = True
        return verb != b"QUIT"

    def _fill(self) -> bool:
        data = self._sock.recv(65536)
        self._buffer += data
        return bool(data)


def _serve(sock: socket.socket, security: str, context: ssl.SSLContext | None) -> None:
    try:
        _Session(sock, security, context).serve()
    except OSError:
        pass  # gone
    finally:
        sock.close()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """End this process when its parent has ended, however that did."""
    parent.join()
    os._exit(0)


def _accept(listening: socket.socket, security: str, files: Sequence[str]) -> None:
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    while True:
        sock, _ = listening.accept()
        threading.Thread(target=_serve, args=(sock, security, context), daemon=True).start()


def main(arguments: Sequence[str]) -> None:
    security = arguments[1] if len(arguments) > 1 else "plain"
    listening = socket.create_server(("127.0.0.1", int(arguments[0])), backlog=1024)
    context = multiprocessing.get_context("spawn")
    for _ in range((os.cpu_count() or 1) - 1):
        context.Process(target=_accept, args=(listening, security, arguments[2:]), daemon=True).start()
    _accept(listening, security, arguments[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
