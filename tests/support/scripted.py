"""A line server on loopback that plays a dialogue given as data, with whatever faults the data holds.

A table maps what the client says to what the server does about it. The key is the command's first word in upper case
(`"MAIL"`; for IMAP the word after the tag, two words after UID: `"UID FETCH"`), or one of these:

    "greeting"   the connection is open
    "body"       the final dot after a 354 arrived
    "response"   the line after a 334, or after IMAP's "+ "
    "otherwise"  no other key fits

A value is an action: bytes to send (`%tag%` becomes IMAP's tag), a function of the conversation (`hang`, `close`,
`reset`, `bytewise(...)`, `endless(...)`, `drip(...)`, `start_tls(...)`), or a tuple of actions to do in order. A list
of actions is used one by one, each time the key comes up; the last one stays.

    with ScriptedServer({**SMTP, "MAIL": [b"451 later\\r\\n", b"250 ok\\r\\n"], "QUIT": hang}) as server:
        ... server.port, server.lines, server.bodies, server.conversations

Several tables are for the first connection, the second one and so on; the last one stays.
"""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

Action = bytes | Callable[["Conversation"], None] | tuple["Action", ...]
Table = Mapping[str, Action | list[Action]]

CAPABILITIES = ("PIPELINING", "8BITMIME", "SIZE 10485760", "SMTPUTF8", "AUTH PLAIN LOGIN")


def ehlo(*capabilities: str) -> bytes:
    """The reply to EHLO that offers these."""
    lines = ["mail.example", *capabilities]
    return "".join(f"250{' ' if line is lines[-1] else '-'}{line}\r\n" for line in lines).encode()


# A mail server that takes everything. Change single keys of it: {**SMTP, "DATA": close}.
SMTP: Table = {
    "greeting": b"220 mail.example ESMTP\r\n",
    "EHLO": ehlo(*CAPABILITIES),
    "AUTH": b"235 welcome\r\n",
    "MAIL": b"250 sender ok\r\n",
    "RCPT": b"250 recipient ok\r\n",
    "DATA": b"354 go ahead\r\n",
    "body": b"250 queued\r\n",
    "RSET": b"250 reset\r\n",
    "NOOP": b"250 here\r\n",
    "QUIT": (b"221 bye\r\n", lambda conversation: close(conversation)),
    "otherwise": b"502 unknown\r\n",
}


class Finished(Exception):  # noqa: N818 - an end, not an error
    """The conversation ends here."""


class Conversation:
    """One connection: what the client said so far, and the table that answers it."""

    def __init__(self, sock: socket.socket, table: Table, stopping: threading.Event, imap: bool) -> None:
        self.sock = sock
        self.table = table
        self.stopping = stopping
        self.imap = imap
        self.lines: list[bytes] = []     # every line the client sent outside bodies, with its end
        self.bodies: list[bytes] = []    # every body whose final dot came, as on the wire, without the dot
        self.partial = b""               # a body whose final dot did not come
        self.tag = b""
        self._seen: dict[str, int] = {}
        self._last = b""
        self._file: BinaryIO = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._last = data
        self.sock.sendall(data.replace(b"%tag%", self.tag))

    def secure(self, context: ssl.SSLContext) -> None:
        """Go on over TLS."""
        self.sock = context.wrap_socket(self.sock, server_side=True)
        self._file = self.sock.makefile("rb")

    def run(self) -> None:
        """Play the dialogue until one side has enough."""
        self._perform("greeting")
        while line := self._file.readline(1_000_000):
            self.lines.append(line)
            self._perform(self._key(line))
            if not self.imap and self._last.startswith(b"354"):
                self._take_body()

    def _key(self, line: bytes) -> str:
        if self._last.startswith((b"334", b"+ ")):
            return "response"
        words = line.decode("latin-1").upper().split()
        if not self.imap:
            return words[0] if words else ""
        self.tag = line.split(maxsplit=1)[0] if words else b"*"
        return " ".join(words[1:3]) if words[1:2] == ["UID"] else " ".join(words[1:2])

    def _take_body(self) -> None:
        body = bytearray()
        while (line := self._file.readline(1_000_000)) != b".\r\n":
            if not line:
                self.partial = bytes(body)
                raise Finished
            body += line
        self.bodies.append(bytes(body))
        self._perform("body")

    def _perform(self, key: str) -> None:
        key = key if key in self.table else "otherwise"
        chosen = self.table.get(key, b"")
        if isinstance(chosen, list):
            turn = self._seen[key] = self._seen.get(key, -1) + 1
            chosen = chosen[min(turn, len(chosen) - 1)]
        self._last = b""
        self._act(chosen)

    def _act(self, action: Action) -> None:
        if isinstance(action, bytes):
            self.send(action)
        elif isinstance(action, tuple):
            for each in action:
                self._act(each)
        else:
            action(self)


class ScriptedServer:
    """Listens on a free loopback port and plays the tables; `context` makes it speak TLS from the start."""

    def __init__(self, *tables: Table, context: ssl.SSLContext | None = None, imap: bool = False) -> None:
        self.conversations: list[Conversation] = []
        self._tables = tables
        self._context = context
        self._imap = imap
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def lines(self) -> list[bytes]:
        """Every line of every conversation, in the order of the connections."""
        return [line for conversation in self.conversations for line in conversation.lines]

    @property
    def bodies(self) -> list[bytes]:
        """Every body whose final dot came."""
        return [body for conversation in self.conversations for body in conversation.bodies]

    def __enter__(self) -> "ScriptedServer":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and cut every connection."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def cut(self) -> None:
        """Close every connection there is now, as a server does with idle ones."""
        for conversation in list(self.conversations):
            with contextlib.suppress(OSError):
                conversation.sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            table = self._tables[min(len(self.conversations), len(self._tables) - 1)]
            conversation = Conversation(sock, table, self._stopping, self._imap)
            self.conversations.append(conversation)
            thread = threading.Thread(target=self._converse, args=(conversation,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _converse(self, conversation: Conversation) -> None:
        with contextlib.suppress(OSError, Finished, ValueError):
            if self._context is not None:
                conversation.secure(self._context)
            conversation.run()
        conversation._file.close()
        conversation.sock.close()


def close(conversation: Conversation) -> None:
    """Close the connection in the ordinary way."""
    raise Finished


def reset(conversation: Conversation) -> None:
    """Close the connection with a TCP reset."""
    conversation.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise Finished


def hang(conversation: Conversation) -> None:
    """Say nothing more, and read nothing more, until the server is closed."""
    conversation.stopping.wait(60)
    raise Finished


def bytewise(data: bytes, pause: float = 0.0005) -> Action:
    """Send the bytes one at a time."""

    def act(conversation: Conversation) -> None:
        for index in range(len(data)):
            conversation.send(data[index : index + 1])
            time.sleep(pause)
        conversation._last = data

    return act


def drip(data: bytes, pause: float = 0.05) -> Action:
    """Send the bytes one at a time, again and again, slowly: never idle, never done."""

    def act(conversation: Conversation) -> None:
        index = 0
        while not conversation.stopping.wait(pause):
            conversation.send(data[index % len(data) :][:1])
            index += 1
        raise Finished

    return act


def endless(data: bytes) -> Action:
    """Send the bytes again and again, as fast as the client takes them."""

    def act(conversation: Conversation) -> None:
        while not conversation.stopping.is_set():
            conversation.send(data * 100)
        raise Finished

    return act


def start_tls(context: ssl.SSLContext, answer: bytes = b"220 go ahead\r\n") -> Action:
    """Answer STARTTLS and go on over TLS; more than one line in `answer` is text injected before the handshake."""

    def act(conversation: Conversation) -> None:
        conversation.send(answer.replace(b"%tag%", conversation.tag))
        conversation.secure(context)

    return act


def refused_port() -> int:
    """A loopback port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def swallowing_port() -> Iterator[tuple[str, int]]:
    """A loopback address that leaves connections without an answer, as a full backlog does on Linux."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as crowd:
        for _ in range(4):  # what the backlog takes, and more
            waiting = crowd.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()
