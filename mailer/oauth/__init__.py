"""Access tokens (OAuth 2.0): from a command, or from a token endpoint by the refresh grant (RFC 6749, section 6).

A token is kept until shortly before it expires, and renewed when it is refused; threads that need a new one at the same
time share one renewal, or its failure; `oauth.asking` bounds its time and memory. Raises `LoginError` only, and puts no
secret into errors or logs. Called by `smtp.login` and `imap.login`, as the account's `secret`.
"""

import json
import logging
import math
import re
import ssl
import threading
import time
from collections.abc import Callable

from mailer.errors import LoginError, safe
from mailer.oauth.asking import PATIENCE, Endpoint, run
from mailer.secrecy import Secrets
from mailer.settings import OAuth

# How long a token of unknown lifetime is used: token commands renew theirs some minutes before it expires.
_UNKNOWN_LIFE = 300.0  # seconds
_MARGIN = 60.0  # seconds before it expires from which on a token is no longer used
_TEMPORARY = (69, 75)  # EX_UNAVAILABLE and EX_TEMPFAIL of sysexits.h; so is a negative code, which is a signal
# Statuses, and errors with any status, by which an endpoint says that it may do better later.
_LATER, _SERVER_ERRORS = (408, 425, 429), 500
_ERRORS_FOR_NOW = ("temporarily_unavailable", "server_error", "slow_down")
# Words that may hold a token; trace ids among them are shown all the same, as support people ask for them.
_LONG_WORD = re.compile(r"[\w.~+%=-]{16,}")
_TRACE_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.?", re.IGNORECASE)
_WORD = re.compile(r"[\w~+/%-]{6,}")

_log = logging.getLogger(__name__)


class TokenSource:
    """Gives the access token at hand, or a newer one when `fresh`; a renewal takes about `patience` seconds at most."""

    def __init__(
        self,
        oauth: OAuth,
        context: ssl.SSLContext,
        stopping: Callable[[], bool] = lambda: False,
        patience: float = PATIENCE,
    ) -> None:
        self._oauth = oauth
        self._stopping = stopping
        self._patience = patience
        self._refresh_token = oauth.refresh_token or ""
        self._lock = threading.Lock()
        self._told: tuple[int, str] | None = None  # how the command failed last time, if it did
        self._token = ""
        self._good_until = 0.0
        self._given = threading.local()  # the token that this thread got last; `fresh` means it was refused
        self._endpoint = Endpoint(oauth.token_url or "", context, stopping, patience)
        self._failure = LoginError("never asked")
        self._failed = -math.inf  # when that was, by `time.monotonic`

    def __call__(self, fresh: bool) -> str:
        asked = time.monotonic()
        with self._lock:
            refused = fresh and getattr(self._given, "token", self._token) == self._token
            if refused or time.monotonic() >= self._good_until:
                if self._failed > asked:  # while this thread waited: it does not try again itself
                    raise LoginError(str(self._failure), temporary=self._failure.temporary)
                self._renew()
            self._given.token = self._token
            return self._token

    def _renew(self) -> None:
        try:
            self._token, life = self._run_command() if self._oauth.command else self._refresh()
        except LoginError as failure:
            self._failure, self._failed = failure, time.monotonic()
            raise
        self._good_until = time.monotonic() + life - min(_MARGIN, life / 2)

    def _run_command(self) -> tuple[str, float]:
        """The token that the command prints, and the seconds for which it is used."""
        code, output, errors = run(self._oauth.command or "", self._stopping, self._patience)
        printed = output.decode("utf-8", "replace").strip()
        if code:
            last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
            reason = _WORD.sub(lambda word: "…" if word[0] in printed else word[0], last)  # it may repeat a token
            # The complaint is logged for the administrator: the clients of the server must not see it.
            told, self._told = self._told, (code, reason)
            level = logging.DEBUG if told == self._told else logging.WARNING
            _log.log(level, "EMAIL_TOKEN_COMMAND failed with %d: %s", code, self._safe(reason))
            raise LoginError(f"EMAIL_TOKEN_COMMAND failed with {code}", temporary=code in _TEMPORARY or code < 0)
        self._told = None
        return _checked(printed, "EMAIL_TOKEN_COMMAND"), _UNKNOWN_LIFE

    def _refresh(self) -> tuple[str, float]:
        """A new token from the endpoint, and the seconds for which it is good."""
        oauth = self._oauth
        form = {"grant_type": "refresh_token", "refresh_token": self._refresh_token, "client_id": oauth.client_id or ""}
        if oauth.client_secret:
            form["client_secret"] = oauth.client_secret
        answer = self._fields(self._endpoint.post(form))
        replaced = answer.get("refresh_token")  # some endpoints issue a new one with each token
        self._refresh_token = replaced if replaced and isinstance(replaced, str) else self._refresh_token
        return _checked(answer["access_token"], "the token endpoint"), _life(answer.get("expires_in"))

    def _fields(self, answer: tuple[int, bytes]) -> dict[str, object]:
        """The fields of a good answer (RFC 6749, section 5.1); raises LoginError with the reason of a bad one (5.2)."""
        status, content = answer
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError):
            fields = None
        cut = status == 200 and not isinstance(fields, dict)  # or sent by a proxy in between
        fields = fields if isinstance(fields, dict) else {}
        if status == 200 and fields.get("access_token"):
            return fields
        reason = " ".join(str(fields[key]) for key in ("error", "error_description") if key in fields)
        text = f"the token endpoint gives no token: {self._safe(reason) or f'status {status}'}"
        for_now = status in _LATER or status >= _SERVER_ERRORS or fields.get("error") in _ERRORS_FOR_NOW
        raise LoginError(text, temporary=cut or for_now)

    def _safe(self, reason: str) -> str:
        """A foreign reason made safe to show, without any token, even one that this object does not know."""
        secrets = Secrets(self._refresh_token, self._oauth.client_secret or "", self._token)
        return safe(_LONG_WORD.sub(_shown, secrets.hide(reason)))


def _life(expires_in: object) -> float:
    """The seconds for which a token is good: endpoints give them as a number, as a string of digits, or not at all."""
    try:
        seconds = float(str(expires_in))
    except ValueError:
        return _UNKNOWN_LIFE
    return seconds if 0 < seconds < math.inf else _UNKNOWN_LIFE


def _shown(word: re.Match[str]) -> str:
    """The word itself if it cannot be a token, which has both digits and letters; otherwise an ellipsis."""
    digits = sum(map(str.isdigit, word[0]))
    return word[0] if not 0 < digits < len(word[0]) or _TRACE_ID.fullmatch(word[0]) else "…"


def _checked(token: object, source: str) -> str:
    """A token that can go into a login without ending a field of it (RFC 6750, section 2.1: printable ASCII)."""
    if not (isinstance(token, str) and token.isascii() and token.isprintable() and token and " " not in token):
        raise LoginError(f"{source} gave no access token")
    return token
