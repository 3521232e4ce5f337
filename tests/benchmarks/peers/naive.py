"""The server that everybody writes: a thread for each connection, `EmailMessage`, and `smtplib`.

    naive.py PORT SMTP-PORT [--pool N] [--security plain|starttls|tls] [--ca FILE] [--context-each] [--login U:PASSWORD]

It validates next to nothing, limits nothing, remembers nothing, and numbers its tickets in memory.
"""

import argparse
import contextlib
import itertools
import json
import queue
import smtplib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

ADMINISTRATOR = "helpdesk@example.com"
numbers = itertools.count(10000)
flags = argparse.Namespace()
shared_context: ssl.SSLContext | None = None
pool: "queue.LifoQueue[smtplib.SMTP | None]" = queue.LifoQueue()


def open_session() -> smtplib.SMTP:
    context = shared_context or ssl.create_default_context(cafile=flags.ca)
    if flags.security == "tls":
        session: smtplib.SMTP = smtplib.SMTP_SSL("127.0.0.1", flags.smtp_port, timeout=30, context=context)
    else:
        session = smtplib.SMTP("127.0.0.1", flags.smtp_port, timeout=30)
    if flags.security == "starttls":
        session.starttls(context=context)
    if flags.login:
        session.login(*flags.login.split(":"))
    return session


@contextlib.contextmanager
def session() -> Iterator[smtplib.SMTP]:
    if not flags.pool:
        with open_session() as new:
            yield new
        return
    kept = pool.get()
    try:
        kept = kept or open_session()
        yield kept
    except smtplib.SMTPException:
        kept = None
        raise
    finally:
        pool.put(kept)


def handle(request: dict[str, str]) -> dict[str, object]:
    ticket = next(numbers)
    message = EmailMessage()
    message["From"] = ADMINISTRATOR
    message["To"] = request["email"]
    message["Cc"] = ADMINISTRATOR
    message["Subject"] = f"[Ticket #{ticket}] Mailer"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="example.com")
    message.set_content(request["message"])
    with session() as smtp:
        smtp.send_message(message)
    return {"status": "OK", "ticket": ticket}


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return data


def serve(connection: socket.socket) -> None:
    with connection, contextlib.suppress(ConnectionError):
        while True:
            (size,) = struct.unpack(">I", receive(connection, 4))
            try:
                reply = handle(json.loads(receive(connection, size)))
            except (OSError, smtplib.SMTPException) as failure:
                reply = {"status": "ERROR", "errors": [str(failure)]}
            frame = json.dumps(reply).encode()
            connection.sendall(struct.pack(">I", len(frame)) + frame)


def main() -> None:
    global shared_context
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("smtp_port", type=int)
    parser.add_argument("--pool", type=int, default=0)
    parser.add_argument("--security", default="plain")
    parser.add_argument("--ca")
    parser.add_argument("--login")
    parser.add_argument("--context-each", action="store_true")
    parser.parse_args(namespace=flags)
    if not flags.context_each:
        shared_context = ssl.create_default_context(cafile=flags.ca)
    for _ in range(flags.pool):
        pool.put(None)
    with socket.create_server(("127.0.0.1", flags.port), backlog=1024) as listening:
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
