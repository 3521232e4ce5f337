"""The sandbox's mail server: SMTP takes mail for any address into memory, IMAP gives it out.

An address is an account: its owner logs in with the one password, and mail for it is in its INBOX. Nothing leaves the
machine and nothing is kept. Called by `python -m mailer.sandbox` and by tests.
"""

import ssl
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Self

from mailer.sandbox import imapd, smtpd
from mailer.sandbox.store import SMTP_EXTENSIONS, Folder, Message, Rules, Store
from mailer.sandbox.wire import Connection, Listener


class MailServer:
    """A context manager that listens on two ports, with methods by which tests reach into the mailboxes.

    - `extensions`: those that EHLO offers (no others work); `require_login`: no mail is taken without AUTH.
    - `refuse(recipient)`: an SMTP reply such as "550 5.1.1 Nobody here", or None to take mail for that address.
    - `on_delivery(sender, recipients, data)`, `on_command(line)`: called at once, in the connection's thread.
    - `tls`: STARTTLS is offered, and no login before it; with `implicit_tls`, TLS begins with the first byte.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        smtp_port: int = 0,
        imap_port: int = 0,
        password: str = "sandbox",  # noqa: S107 - known to everybody, and it guards nothing
        on_delivery: Callable[[str, tuple[str, ...], bytes], None] | None = None,
        *,
        extensions: Iterable[str] = SMTP_EXTENSIONS,
        require_login: bool = False,
        max_message: int = 10_240_000,
        refuse: Callable[[str], str | None] | None = None,
        on_command: Callable[[str], None] | None = None,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        uidvalidity: int = 1,
    ) -> None:
        self.host = host
        self.smtp_port = smtp_port
        self.imap_port = imap_port
        self.store = Store(uidvalidity)
        self._implicit_tls = implicit_tls
        self._rules = Rules(
            self.store, password, tuple(extensions), require_login, max_message, refuse, on_delivery, on_command, tls
        )
        self._listeners: list[Listener] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start to listen; after a `stop`, on the same ports again and with the same mail."""
        try:
            self._listeners.append(Listener(self.host, self.smtp_port, self._serve_smtp))
            self._listeners.append(Listener(self.host, self.imap_port, self._serve_imap))
        except OSError:
            self.stop()
            raise
        self.smtp_port, self.imap_port = (listener.port for listener in self._listeners)

    def stop(self) -> None:
        """Stop listening and cut all connections."""
        while self._listeners:
            self._listeners.pop().close()

    def cut_connections(self) -> None:
        """Cut all connections, and go on listening."""
        for listener in self._listeners:
            listener.cut_connections()

    # The mailboxes

    @property
    def uidvalidity(self) -> int:
        """The UIDVALIDITY of all folders; a session sees a new one when it selects."""
        return self.store.uidvalidity

    @uidvalidity.setter
    def uidvalidity(self, value: int) -> None:
        self.store.uidvalidity = value

    def deliver(
        self,
        recipient: str,
        raw: bytes,
        *,
        folder: str = "INBOX",
        flags: Iterable[str] = (),
        received: datetime | None = None,
    ) -> int:
        """Put a message into a folder (created if need be), whatever its bytes; return its UID."""
        self.store.reserve(len(raw), 1)
        return self._folder(recipient, folder).append(raw, flags, received).uid

    def messages(self, address: str, folder: str = "INBOX") -> list[bytes]:
        """The messages in a folder, oldest first."""
        return [message.raw for message in self._folder(address, folder).messages.copy()]

    def flags(self, address: str, uid: int, folder: str = "INBOX") -> frozenset[str]:
        """The flags of a message; KeyError when there is none of that UID."""
        return self._message(address, uid, folder).flags

    def set_flags(self, address: str, uid: int, flags: Iterable[str], folder: str = "INBOX") -> None:
        """Replace the flags of a message, as another mail program would."""
        self._folder(address, folder).set_flags(self._message(address, uid, folder), lambda _: frozenset(flags))

    def expunge(self, address: str, uid: int, folder: str = "INBOX") -> None:
        """Remove a message, as another mail program would; KeyError when there is none of that UID."""
        unwanted = self._message(address, uid, folder)
        self._folder(address, folder).remove(lambda message: message is unwanted)

    def _folder(self, address: str, name: str) -> Folder:
        return self.store.folders(address).setdefault(name, Folder())

    def _message(self, address: str, uid: int, folder: str) -> Message:
        for message in self._folder(address, folder).messages.copy():
            if message.uid == uid:
                return message
        raise KeyError(uid)

    def _serve_smtp(self, connection: Connection) -> None:
        self._serve(connection, smtpd.Session(connection, self._rules))

    def _serve_imap(self, connection: Connection) -> None:
        self._serve(connection, imapd.Session(connection, self._rules))

    def _serve(self, connection: Connection, session: smtpd.Session | imapd.Session) -> None:
        if self._rules.tls and self._implicit_tls:
            connection.start_tls(self._rules.tls)
        session.run()
