"""One request, from validation to reply.

The order is part of the promise: the token, an earlier answer to the same `id`, the client's rate, validation, the
recipient's rate, and only then a ticket number, the message and the delivery. OK is said after the mail server has
accepted the message; a refusal before the delivery sends nothing. Called by `listener`; `desk` gives it the adapters.
"""

import hmac
import logging
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable

from mailer.compose import Envelope, compose
from mailer.errors import Code, DeliveryError, Problem, RequestError, StateError, safe
from mailer.hosts import network
from mailer.intake.answers import Answers
from mailer.intake.limits import RateLimit
from mailer.protocol import Reply, Request
from mailer.steps import Steps
from mailer.validation import MAX_ADDRESS, check

# Outcomes that are not the person's mistake, and how loudly they are logged for the administrator.
_LEVELS = {
    Code.MAIL_REJECTED: logging.WARNING,
    Code.MAIL_UNAVAILABLE: logging.WARNING,
    Code.DELIVERY_UNCERTAIN: logging.WARNING,
    Code.MAIL_AUTH_FAILED: logging.ERROR,
    Code.INTERNAL_ERROR: logging.ERROR,
}

_LONGEST = 4 * MAX_ADDRESS  # characters of a given address that the log keeps; a longer one cannot be valid
_QUIET_SECONDS = 1.0  # between two log lines about requests over a rate limit

_log = logging.getLogger(__name__)


class Intake:
    """Answers requests. `send` delivers an envelope, `new_ticket` returns a number that was never used.

    `hide` takes the account's secrets out of what is logged: clients are told the words of a mail server that repeats
    what they have sent themselves, and that may hold one.
    """

    def __init__(
        self,
        *,
        send: Callable[[Envelope], Steps[None]],
        new_ticket: Callable[[], int],
        sender: str,
        token: str | None,
        answers: Answers,
        per_client: RateLimit,
        per_recipient: RateLimit,
        hide: Callable[[str], str] = str,
    ) -> None:
        self._send = send
        self._new_ticket = new_ticket
        self._sender = sender
        self._token = token.encode() if token else None
        self._answers = answers
        self._per_client = per_client
        self._per_recipient = per_recipient
        self._hide = hide
        # With the ticket it makes a Message-ID that no other process gives; made once, as randomness is a system call.
        self._unique = secrets.token_hex(8)
        self._outcomes: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._quiet_until = 0.0

    def handle(self, request: Request, host: str) -> Steps[Reply]:
        """The reply to a request from this host; raises nothing, whatever the request holds."""
        began = time.perf_counter()
        quiet = False
        try:
            self._authorize(request, host)
            quiet = True  # from here on, only a repetition raises RequestError
            reply, quiet = yield from self._answers.once(request, lambda: self._answer(request, host))
        except RequestError as refused:
            reply = Reply(problems=refused.problems, retry=refused.retry)
        outcome = "OK" if reply.ok else reply.problems[0].code.value
        with self._counting:
            self._outcomes[outcome] += 1
        # A repetition was logged the first time, and costs its client nothing: it must not fill the log.
        level = logging.DEBUG if quiet else logging.INFO if reply.ok else self._level(reply.problems[0].code)
        _log.log(level, "%s", _Line(request.email, reply, time.perf_counter() - began, self._hide))
        return reply

    def summary(self) -> str:
        """How many requests were answered, and how."""
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self._outcomes.most_common())
        total = self._outcomes.total()
        return f"{total} request{'s' * (total != 1)} answered" + (f": {outcomes}" if outcomes else "")

    def _level(self, code: Code) -> int:
        """The level at which a refusal is logged; those over a rate limit cost nothing, and must not fill the log."""
        if code is Code.RATE_LIMITED:
            if time.monotonic() < self._quiet_until:
                return logging.DEBUG
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
        return _LEVELS.get(code, logging.INFO)

    def _authorize(self, request: Request, host: str) -> None:
        offered = (request.token or "").encode(errors="surrogatepass")
        if self._token is not None and not hmac.compare_digest(offered, self._token):
            _limit(self._per_client, network(host), "from your computer")
            raise RequestError(Problem(Code.UNAUTHORIZED, "This server takes requests only with the right token."))

    def _answer(self, request: Request, host: str) -> Steps[Reply]:
        try:
            _limit(self._per_client, network(host), "from your computer")
            email, message = check(request.email, request.message)
            _limit(self._per_recipient, email.lower(), "to this address")
            ticket = self._new_ticket()
            sent = int(time.time())
            yield from self._send(compose(ticket, email, message, sender=self._sender, sent=sent, unique=self._unique))
            return Reply(ticket=ticket)
        except RequestError as refused:
            return Reply(problems=refused.problems, retry=refused.retry)
        except DeliveryError as failure:
            return Reply(problems=(failure.problem,), retry=failure.retry)
        except StateError as failure:
            _log.error("%s", failure)
            text = "The server cannot number tickets at the moment; nothing was sent. Its administrator can see why."
            return Reply(problems=(Problem(Code.INTERNAL_ERROR, text),))


def _limit(rate: RateLimit, key: str, what: str) -> None:
    seconds = rate.wait(key)
    if seconds:
        text = f"Too many requests {what}; try again in {_duration(seconds)}."
        raise RequestError(Problem(Code.RATE_LIMITED, text), retry=True)


def _duration(seconds: float) -> str:
    whole = int(seconds) + 1
    return f"{whole} second{'s' * (whole > 1)}" if whole < 120 else f"{-(-whole // 60)} minutes"


def _why(problem: Problem, address: str, hide: Callable[[str], str]) -> str:
    """The code, with the reason where the administrator may have to do something."""
    code, text = problem.code, hide(problem.text)  # before it is cut: half a secret would not be recognised
    if code is Code.RECIPIENT_REFUSED and not _log.isEnabledFor(logging.DEBUG):
        text = _without_address(text, address)  # logged, as the mail server may not relay at all
    return f"{code.value} ({safe(text)})" if code in _LEVELS or code is Code.RECIPIENT_REFUSED else code.value


def _without_address(words: str, address: str) -> str:
    """A mail server's words without any address, and without the part of the person's address before its @."""
    local = re.escape(address.strip().partition("@")[0])
    return re.sub(rf"\S*@\S*[^\s:]|(?<!\w){local}(?!\w)", "…", words, flags=re.IGNORECASE)


class _Line:
    """A request's line in the log, formatted only if it is written."""

    __slots__ = ("_address", "_hide", "_reply", "_seconds")

    def __init__(self, address: str, reply: Reply, seconds: float, hide: Callable[[str], str]) -> None:
        self._address = address if len(address) <= _LONGEST else "?"  # thousands of lines may wait in memory
        self._reply, self._seconds, self._hide = reply, seconds, hide

    def __str__(self) -> str:
        reply, address = self._reply, self._address
        reasons = ", ".join(_why(problem, address, self._hide) for problem in reply.problems)
        outcome = f"ticket {reply.ticket}" if reply.ok else reasons
        if not _log.isEnabledFor(logging.DEBUG):
            invalid = any(problem.code is Code.EMAIL_INVALID for problem in reply.problems)
            address = "?" if invalid else address.rpartition("@")[2]
        return f"{outcome}, to {ascii(address[:MAX_ADDRESS])[1:-1]}, {1000 * self._seconds:.1f} ms"
