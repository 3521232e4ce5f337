"""One SMTP session (RFC 5321): opened once, then any number of all-or-nothing transactions.

Promises that either every recipient gets the message or none does, and tells the caller which of the two, or that
nobody can know (`delivery_uncertain`). Raises `DeliveryError` only; unless `sock` is None afterwards, the session can
be used again. Called by `smtp` and `smtp.pool`.
"""

import contextlib
import re
import ssl
import time
from collections.abc import Callable, Iterator

from mailer import sasl
from mailer.compose import Envelope
from mailer.errors import Code, DeliveryError, Outcome
from mailer.settings import Endpoint
from mailer.smtp.login import connect
from mailer.smtp.reply import SessionLostError, refusal
from mailer.smtp.wire import Wire
from mailer.steps import WAIT, Steps, finish

# The last line of defence against an address that would end its command or add a parameter to it.
_UNSAFE = re.compile(r"[\s<>\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LEADING_DOT = re.compile(rb"^\.", re.MULTILINE)
_DATA = "DATA\r\n"
# Refused messages in a row after which a session is replaced: after a few more, some servers delay their replies.
_MOST_REFUSED = 5


class Session(Wire):
    """A session. `reused`: it was kept in the pool before this use; `idle_since`: when it was last given back.

    `in_doubt`: a message is being sent, or has been, and its reply has not been read.
    """

    def __init__(self, timeout: float, on_wait: Callable[[], None]) -> None:
        super().__init__(timeout, on_wait)
        self._accepted = False  # whether the server has accepted a message in this session
        self._refused = 0  # messages in a row
        self._resetting = False  # RSET was sent, and its reply has not been read
        self._pipelining = self._takes_size = self._takes_utf8 = False
        self.reused = self.in_doubt = False
        self.idle_since = 0.0

    def open(
        self, endpoint: Endpoint, login: sasl.Login, context: ssl.SSLContext, deadline: float
    ) -> Iterator[str]:
        """Connect and log in, with a line for each step that is done; unless all are done, the session is closed."""
        self.deadline = deadline
        self.secrets = login.secrets
        try:
            yield from connect(self, endpoint, login, context)
            extensions = ("pipelining", "size", "smtputf8")
            self._pipelining, self._takes_size, self._takes_utf8 = map(self.has_extn, extensions)
        except BaseException:
            self.close()
            raise

    def transact(self, envelope: Envelope, deadline: float) -> Steps[None]:
        """Give the message to the mail server for all recipients; it has accepted the message when this returns."""
        self.deadline, self.given = deadline, "\n".join(envelope.given)
        yield from self._arrange([*self._envelope_commands(envelope), _DATA], envelope)
        self._be_in_step()
        if self.deadline - time.monotonic() < self._patience / 2:  # the final reply could come too late
            self.fail("the mail server is too slow: there is no time left to wait for its answer to the message")
        data = envelope.data
        if data[:1] == b"." or b"\n." in data:
            data = _LEADING_DOT.sub(b"..", data)
        data += b".\r\n"
        self.in_doubt = True  # until its reply is read
        self.send(data)
        yield WAIT
        try:
            code, whole = self.reply()
        except SessionLostError as lost:
            raise uncertain(str(lost)) from None
        self.in_doubt = False
        if code[:1] == b"2":
            self._accepted = True
            self._refused, self.given = 0, ""
            return
        if code == b"421" or code[:1] == b"3":
            self.close()
        if code[:1] == b"3":
            raise uncertain(self.said(whole))
        self.leave()  # behind a balancer a new session may reach a server that accepts it
        raise refusal(code, f"the mail server refuses the message: {self.said(whole)}")

    @property
    def silent(self) -> bool:
        """As in `Wire`, but always true while the reply to RSET is due: that reply may be there already."""
        return self._resetting or super().silent

    def rehearse(self, envelope: Envelope) -> None:
        """Name sender and recipients without giving a message."""
        finish(self._arrange(self._envelope_commands(envelope), envelope))
        self.expect(self.ask("RSET"), "refuses RSET")

    def leave(self) -> None:
        """Send QUIT and close the connection, without waiting for the reply."""
        with contextlib.suppress(SessionLostError):
            self.send(b"QUIT\r\n")
        self.close()

    def _arrange(self, commands: list[str], envelope: Envelope) -> Steps[None]:
        """Send the commands, in one write if the server offers PIPELINING; on a refusal, undo the rest and raise it."""
        self._finish_reset()
        self._be_in_step()
        refused: DeliveryError | None = None
        of_data = False  # whether the first refusal was that of DATA
        if self._pipelining:
            self.send("".join(commands))
            yield WAIT
        code = b""
        for index, command in enumerate(commands):
            if not self._pipelining:
                if refused:
                    break
                self._be_in_step()
                self.send(command)
                yield WAIT
            try:
                code, whole = self.reply()
                if code != b"354" if command is _DATA else code[:1] != b"2":
                    of_data = command is _DATA and not refused
                    refused = refused or self._refusal(index, envelope, code, whole)
            except SessionLostError as lost:
                raise refused or lost from None
        if refused:
            self._undo(code, of_data)
            raise refused

    def _refusal(self, index: int, envelope: Envelope, code: bytes, whole: bytes) -> DeliveryError:
        """The error for the refusal of the command with this index."""
        words = self.said(whole)
        # A sender that was accepted before is refused over the session: as it had its number of messages, or is to end.
        if code == b"421" or (not index and code[:1] in b"45" and self._accepted):
            self.fail(f"the mail server ends the session: {words}")
        if code[:1] in b"23":
            self.fail(f"the mail server's replies are out of step: {words}")
        if code == b"530" and b"STARTTLS" in whole.upper():  # RFC 3207, section 4
            words += "; set SMTP_SECURITY=starttls"
        what = (envelope.sender, *envelope.recipients, "the message")[index]
        return refusal(code, f"the mail server refuses {what}: {words}", of_person=index == 1)

    def _undo(self, last: bytes, of_data: bool) -> None:
        """Make the server forget the recipients that it accepted; `of_data`: it refused nothing before DATA."""
        self._refused += 1
        if last == b"354":
            self.close()  # before the final dot, which discards the message (RFC 5321, section 4.1.1.4)
            return
        if of_data or self._refused == _MOST_REFUSED:
            self.leave()
            return
        with contextlib.suppress(SessionLostError):
            self.send(b"RSET\r\n")
            self._resetting = True  # the reply is read when the session is used next, so that nobody waits for it now

    def _finish_reset(self) -> None:
        if self._resetting:
            self._resetting = False
            code, whole = self.reply()
            if code[:1] != b"2":
                self.fail(f"the mail server refuses RSET: {self.said(whole)}")

    def _be_in_step(self) -> None:
        if self._buffer:
            self.fail("the mail server answers what it was not asked")

    def _envelope_commands(self, envelope: Envelope) -> list[str]:
        sender, recipients = envelope.sender, envelope.recipients
        if _UNSAFE.search("".join((sender, *recipients))):
            raise DeliveryError(Code.EMAIL_INVALID, "the address holds a character that none can", Outcome.PERMANENT)
        parameters = f" SIZE={len(envelope.data)}" if self._takes_size else ""
        if envelope.smtputf8:
            if not self._takes_utf8:
                raise _no_utf8(sender)
            parameters += " BODY=8BITMIME SMTPUTF8"
        return [
            f"MAIL FROM:<{sender}>{parameters}\r\n",
            *[f"RCPT TO:<{recipient}>\r\n" for recipient in recipients],
        ]


def _no_utf8(sender: str) -> DeliveryError:
    if not sender.isascii():  # then the person cannot mend it with another address
        text = f"the mail server does not send from {sender}, with letters beyond ASCII (it offers no SMTPUTF8)"
        return DeliveryError(Code.MAIL_REJECTED, text, Outcome.PERMANENT)
    text = "the mail server takes no address with letters beyond ASCII (it offers no SMTPUTF8)"
    return DeliveryError(Code.EMAIL_INVALID, text, Outcome.PERMANENT)


def uncertain(reason: str) -> DeliveryError:
    """The error for a message that was handed over and got no clear reply."""
    text = f"the message was handed over and not clearly accepted, so it may have been sent: {reason}"
    return DeliveryError(Code.DELIVERY_UNCERTAIN, text, Outcome.UNCERTAIN)
