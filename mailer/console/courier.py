"""Takes one request to Mailer's server: sends it, once more if the answer is lost, and tells what came of it.

The server recognises a repeat by the request's id and does not mail the message twice, so asking again is safe. An
unknown outcome is raised as unknown and never called a failure. Called by `console` and `conversation`.
"""

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from mailer.errors import Code, ExitCode, TransportError, UnsentInterrupt
from mailer.protocol import Reply, Request
from mailer.translation import _, translate

Say = Callable[[str], None]
REMEMBERED = 3600.0  # seconds for which the server remembers its answer to a request
# Seconds of waiting after which the person is told of the wait.
_SILENCE = 2.0
# How the words of `exchange` begin when TLS fails, and what they hold when it is over the certificate or its name.
_TLS_FAILED, _CERTIFICATE, _NAME = "TLS failed: ", "certificate", "certificate is not valid for"
# Errors of the second try that hold for the first one, too. Any other leaves the first one unknown: the server that
# gives it may have been restarted meanwhile, or may be another one, whose mail server takes other addresses.
_OF_BOTH = {
    Code.BAD_REQUEST, Code.FRAME_TOO_LARGE, Code.MESSAGE_EMPTY, Code.MESSAGE_TOO_LONG, Code.MESSAGE_INVALID,
    Code.DELIVERY_UNCERTAIN,
}  # fmt: skip
# What `exchange` says when a TLS server is spoken to without TLS.
_LIKE_TLS = re.compile("closed|reset|aborted|no Mailer server")


@dataclass(frozen=True, slots=True)
class Courier:
    """The way to one server: its name for people, how many seconds an answer may take, how to send, whether by TLS."""

    server: str
    patience: float
    send: Callable[[Request], Reply]
    tls: bool = False

    def deliver(self, request: Request, say: Say) -> Reply:
        """The server's answer; raises TransportError, with `sent` when the message may be on its way all the same.

        After Ctrl-C only UnsentInterrupt means that the message was not sent.
        """
        began = time.time()  # unlike `monotonic`, it goes on while the machine sleeps
        try:
            return self._ask(request, say)
        except TransportError as lost:
            if not lost.sent or time.time() - began > REMEMBERED:
                raise
        say(_("The answer was lost; asking for it once more."))
        try:
            reply = self._ask(request, say)
        except TransportError as lost:
            raise TransportError(str(lost), sent=True) from lost
        except UnsentInterrupt:  # this holds for the second try only
            raise KeyboardInterrupt from None
        if not {problem.code for problem in reply.problems} <= _OF_BOTH:
            raise TransportError(reply.problems[0].text, sent=True)
        return reply

    def _ask(self, request: Request, say: Say) -> Reply:
        words = _("Waiting for the answer of {server}, {seconds:.0f} seconds at most; Ctrl-C ends the wait.")
        notice = threading.Timer(_SILENCE, say, [words.format(server=self.server, seconds=self.patience)])
        notice.daemon = True
        with suppress(RuntimeError):  # no thread can be started; the notice is a mere comfort
            notice.start()
        try:
            return self.send(request)
        finally:
            notice.cancel()

    def explain(self, failure: TransportError) -> str:
        """Why there is no answer, and what that means, in words a person understands."""
        why, _known = translate(str(failure).removeprefix(_TLS_FAILED))
        if failure.sent:
            words = _("Nobody can tell whether the message was sent: {server} got it, but its answer was lost ({why}).")
        elif str(failure).startswith(_TLS_FAILED):
            words = _no_tls(str(failure))
        else:
            words = _("Cannot reach {server}: {why}. Is server.py running there?")
        if not self.tls and _LIKE_TLS.search(str(failure)):
            words += " " + _("If it speaks TLS, no mail was sent: set SERVER_TLS_CA here.")
        return words.format(server=self.server, why=why)


def _no_tls(why: str) -> str:
    if _NAME in why:
        return _("No TLS with {server}: {why}. SERVER_HOST here has to be a name in SERVER_TLS_CERT there.")
    if _CERTIFICATE in why:
        return _("No TLS with {server}: {why}. SERVER_TLS_CA here has to fit SERVER_TLS_CERT there.")
    return _("No TLS with {server}: {why}. Perhaps SERVER_TLS_CERT is not set there, and the server speaks no TLS.")


def exit_code(outcome: Reply | TransportError) -> ExitCode:
    """The exit code of the script when this is the final outcome."""
    if isinstance(outcome, TransportError):
        return ExitCode.UNCERTAIN if outcome.sent else ExitCode.UNAVAILABLE
    codes = {problem.code for problem in outcome.problems}
    if outcome.ok:
        return ExitCode.DONE
    if Code.DELIVERY_UNCERTAIN in codes:
        return ExitCode.UNCERTAIN
    if codes & {Code.UNAUTHORIZED, Code.MAIL_AUTH_FAILED}:
        return ExitCode.LOGIN_REFUSED
    return ExitCode.TEMPORARY if outcome.retry else ExitCode.REFUSED
