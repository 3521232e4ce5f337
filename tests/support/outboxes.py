"""Outboxes for tests, and what is said of a delivery through one."""

import ssl
import unittest
from collections.abc import Callable

from mailer.compose import Envelope
from mailer.errors import DeliveryError
from mailer.sasl import Login
from mailer.settings import Endpoint, Security
from mailer.smtp import Outbox
from mailer.steps import finish
from tests.support.certificates import certificates

_PLAIN_CONTEXT = ssl.create_default_context()
PERSON, ADMINISTRATOR = "alice@example.com", "helpdesk@example.com"


def letter(text: str = "hello", *recipients: str, sender: str = ADMINISTRATOR) -> Envelope:
    """An envelope with a small message."""
    data = f"Subject: [Ticket #1] Mailer\r\n\r\n{text}\r\n".encode()
    people = recipients or (PERSON, ADMINISTRATOR)
    return Envelope(sender, people, data, not "".join((sender, *people)).isascii())


class OutboxTestCase(unittest.TestCase):
    """Tests with outboxes, which are closed afterwards."""

    def outbox(
        self,
        port: int,
        *,
        security: Security = Security.PLAIN,
        host: str = "127.0.0.1",
        timeout: float = 5.0,
        sessions: int = 2,
        login: Login | None = None,
        on_wait: Callable[[], None] = lambda: None,
    ) -> Outbox:
        """An outbox for a server of this test; where there is TLS it trusts the tests' authority."""
        context = _PLAIN_CONTEXT
        if security is not Security.PLAIN:
            context = ssl.create_default_context(cafile=certificates().ca)
        login = login or Login(ADMINISTRATOR, lambda _fresh: "s3cret word")
        endpoint = Endpoint(host, port, security)
        box = Outbox(endpoint, login, context=context, timeout=timeout, sessions=sessions, on_wait=on_wait)
        self.addCleanup(box.close)
        return box


def result(box: Outbox, envelope: Envelope | None = None) -> str:
    """"sent", or the code of the error, with "retry" where it says so."""
    try:
        finish(box.deliver(envelope or letter()))
    except DeliveryError as failure:
        return f"{failure.problem.code}{' retry' if failure.retry else ''}"
    return "sent"


def complaint(box: Outbox, envelope: Envelope | None = None) -> str:
    """The text of the error that the delivery ends in."""
    try:
        finish(box.deliver(envelope or letter()))
    except DeliveryError as failure:
        return str(failure)
    raise AssertionError("the message was sent")
