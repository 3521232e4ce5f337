"""Access tokens (OAuth 2.0): from a command, or through the refresh grant (RFC 6749, section 6) over verified HTTPS.

A token is kept until shortly before it ends and renewed when it was refused; threads that need one at the same time
share one renewal. Whatever an endpoint does, asking it ends in `_PATIENCE` seconds. Raises `LoginError` only, and no
secret is ever in one, nor in a log. Called by `smtp` and `imap`, as the account's `secret`.
"""

import http.client
import json
import math
import os
import shlex
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

from mailer.errors import LoginError, safe
from mailer.settings import OAuth, is_loopback

_PATIENCE = 30.0  # seconds
_LONGEST_ANSWER = 1 << 16  # bytes; tokens have up to some thousand
# How long a token serves whose end is not known: commands renew theirs themselves, some minutes before.
_UNKNOWN_LIFE = 300.0  # seconds
_MARGIN = 60.0  # seconds before its end from which a token is not used any more
_TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500


class TokenSource:
    """Gives the access token: the one at hand, or a renewed one when `fresh`."""

    def __init__(self, oauth: OAuth, context: ssl.SSLContext) -> None:
        self._oauth = oauth
        self._refresh_token = oauth.refresh_token or ""
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = 0.0
        self._given = threading.local()  # the token that this thread had last: the one that was refused, if any
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect)

    def __call__(self, fresh: bool) -> str:
        with self._lock:
            refused = fresh and getattr(self._given, "token", self._token) == self._token
            if refused or time.monotonic() >= self._good_until:
                self._token, life = self._run_command() if self._oauth.command else self._refresh()
                self._good_until = time.monotonic() + life - min(_MARGIN, life / 2)
            self._given.token = self._token
            return self._token

    def _run_command(self) -> tuple[str, float]:
        """The token that the command prints. There is no shell in between."""
        line = self._oauth.command or ""
        try:
            command = line if os.name == "nt" else shlex.split(line)
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            raise LoginError("EMAIL_TOKEN_COMMAND did not end in time", temporary=True) from None
        except (OSError, ValueError) as failure:  # ValueError: quotes without an end
            raise LoginError(f"EMAIL_TOKEN_COMMAND cannot be run ({safe(str(failure))})") from None
        if done.returncode:
            last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            text = f"EMAIL_TOKEN_COMMAND failed with {done.returncode}: {safe(last)}"
            raise LoginError(text, temporary=done.returncode == _TEMPORARY_FAILURE)
        return _checked(done.stdout.decode("utf-8", "replace").strip(), "EMAIL_TOKEN_COMMAND"), _UNKNOWN_LIFE

    def _refresh(self) -> tuple[str, float]:
        """A new token from the endpoint, and the seconds for which it is good."""
        oauth = self._oauth
        form = {"grant_type": "refresh_token", "refresh_token": self._refresh_token, "client_id": oauth.client_id or ""}
        if oauth.client_secret:
            form["client_secret"] = oauth.client_secret
        answer = self._fields(_in_time(lambda: self._post(form)))
        self._refresh_token = str(answer.get("refresh_token") or self._refresh_token)  # some endpoints change it
        return _checked(str(answer["access_token"]), "the token endpoint"), _life(answer.get("expires_in"))

    def _post(self, form: dict[str, str]) -> tuple[int, bytes]:
        """Status and content of the endpoint's answer."""
        url = self._oauth.token_url or ""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise LoginError("OAUTH_TOKEN_URL: secrets go over https only")
        headers = {"Accept": "application/json"}
        request = urllib.request.Request(url, urllib.parse.urlencode(form).encode(), headers)  # noqa: S310 - the scheme was checked
        try:
            with self._opener.open(request, timeout=_PATIENCE) as answer:
                return answer.status, answer.read(_LONGEST_ANSWER)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read(_LONGEST_ANSWER)

    def _fields(self, answer: tuple[int, bytes]) -> dict[str, object]:
        """The fields of a good answer (RFC 6749, section 5.1); raises LoginError with the reason of a bad one (5.2)."""
        status, content = answer
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError):
            fields = None
        fields = fields if isinstance(fields, dict) else {}
        if status == 200 and fields.get("access_token"):
            return fields
        reason = " ".join(str(fields[key]) for key in ("error", "error_description") if key in fields)
        for secret in (self._refresh_token, self._oauth.client_secret):
            reason = reason.replace(secret, "…") if secret else reason
        text = f"the token endpoint gives no token: {safe(reason) or f'status {status}'}"
        raise LoginError(text, temporary=status == _TOO_MANY_REQUESTS or status >= _SERVER_ERRORS)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Secrets go where the settings say, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def _in_time(ask: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
    """What `ask` gives, if it gives it in time: however slowly an endpoint drips, nobody waits for it longer."""
    outcome: list[tuple[int, bytes] | LoginError] = []

    def run() -> None:
        try:
            outcome.append(ask())
        except LoginError as wrong:
            outcome.append(wrong)
        except (OSError, ValueError, http.client.HTTPException) as failure:  # ValueError: not a URL
            reason = getattr(failure, "reason", failure)
            text = f"the token endpoint cannot be asked ({safe(str(reason))})"
            outcome.append(LoginError(text, temporary=True))

    thread = threading.Thread(target=run, name="token", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if not outcome:
        raise LoginError("the token endpoint gave no answer in time", temporary=True)
    if isinstance(outcome[0], LoginError):
        raise outcome[0]
    return outcome[0]


def _life(expires_in: object) -> float:
    """The seconds for which a token is good: endpoints give them as a number, or as its digits, or not at all."""
    try:
        seconds = float(str(expires_in))
    except ValueError:
        return _UNKNOWN_LIFE
    return seconds if 0 < seconds < math.inf else _UNKNOWN_LIFE


def _checked(token: str, source: str) -> str:
    """A token that can go into a login without ending a field of it (RFC 6750, section 2.1: printable ASCII)."""
    if not (token.isascii() and token.isprintable() and token and " " not in token):
        raise LoginError(f"{source} gave no access token")
    return token
