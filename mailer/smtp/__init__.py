"""The outbox: one all-or-nothing transaction for each message, over a few SMTP sessions that are kept open and shared.

Promises three honest outcomes: sent, or a `DeliveryError` that says not sent or uncertain. Nothing is ever sent twice:
the transaction is tried once more only if a kept session is lost before the final dot was written. Called by `desk`,
and by `intake` to send.
"""

import logging
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from mailer.compose import Envelope
from mailer.errors import Code, DeliveryError, Outcome
from mailer.sasl import Login
from mailer.settings import Endpoint
from mailer.smtp.pacing import Pacing
from mailer.smtp.pool import Pool
from mailer.smtp.reply import SessionLostError
from mailer.smtp.session import Session, uncertain
from mailer.steps import Steps

# A delivery as a whole gets this many times the time-out of one operation.
_OPERATIONS = 3

_log = logging.getLogger(__name__)


def _nothing() -> None:
    """The default `on_wait`: no caller needs to know."""


class Outbox:
    """Delivers to one mail server. `on_wait` is called by a thread that is about to wait for long."""

    def __init__(
        self,
        endpoint: Endpoint,
        login: Login,
        *,
        context: ssl.SSLContext,
        timeout: float,
        sessions: int,
        on_wait: Callable[[], None] = _nothing,
    ) -> None:
        self._endpoint = endpoint
        self._login = login
        self._context = context
        self._timeout = timeout
        self._on_wait = on_wait
        self._pacing = Pacing(on_wait)
        self._pool = Pool(self._open, sessions, on_wait)
        self._lock = threading.Lock()  # guards what follows
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._given_up = False
        self._begins_no_more = False

    def deliver(self, envelope: Envelope) -> Steps[None]:
        """Give the message to the mail server for all recipients; raises DeliveryError unless it clearly took it."""
        deadline = time.monotonic() + _OPERATIONS * self._timeout
        last_moment = deadline - self._timeout  # to begin: this leaves one time-out for the final reply
        session = self._pool.take(last_moment)
        try:
            yield from self._transact(session, envelope, deadline)
        except SessionLostError:
            if not session.reused or time.monotonic() >= last_moment:
                raise
            yield from self._transact(self._pool.take(last_moment, fresh=True), envelope, deadline)

    def check(self, sender: str, recipient: str) -> Iterator[str]:
        """Connect, log in, and name sender and recipient without sending anything: one line for each step."""
        deadline = time.monotonic() + _OPERATIONS * self._timeout
        session = Session(self._timeout, self._on_wait)
        try:
            yield from session.open(self._endpoint, self._login, self._context, deadline)
            session.rehearse(Envelope(sender, (recipient,), b"", not (sender + recipient).isascii()))
            yield f"mail from {sender} for {recipient} is taken"
        finally:
            session.leave()

    def hide(self, words: str) -> str:
        """Words for the log, without the secrets of the account."""
        return self._login.secrets.hide(words)

    def begin_no_more(self) -> None:
        """Refuse every delivery that has not begun; those that have are finished."""
        self._begins_no_more = True

    def give_up(self) -> None:
        """End every delivery that is under way: each fails now, as not sent or as uncertain."""
        with self._lock:
            self._given_up = True
            sessions = list(self._sessions)
        for session in sessions:
            session.interrupt()

    def close(self) -> None:
        """Close all free sessions; deliveries that are still under way are finished."""
        self._pool.close()

    def _open(self, deadline: float) -> Session:
        session = Session(self._timeout, self._on_wait)
        with self._pacing.opening(deadline):
            with self._lock:
                if self._given_up:
                    raise SessionLostError("this server is ending")
                self._sessions.add(session)
            for _ in session.open(self._endpoint, self._login, self._context, deadline):
                pass  # only `check` reports the steps
        return session

    def _transact(self, session: Session, envelope: Envelope, deadline: float) -> Steps[None]:
        try:
            if self._begins_no_more:
                text = "The server is ending; please try again in a moment."
                raise DeliveryError(Code.BUSY, text, Outcome.TEMPORARY)
            yield from session.transact(envelope, deadline)
        except DeliveryError:
            raise
        except BaseException as failure:
            session.close()  # the state of its transaction is unknown
            if session.in_doubt and isinstance(failure, Exception):  # such as MemoryError
                _log.exception("the answer to a message could not be read")
                raise uncertain(f"{type(failure).__name__} in this server") from failure
            raise
        finally:
            self._pool.give_back(session)
