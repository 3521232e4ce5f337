"""Asking a command or a token endpoint, in bounded time and memory, whatever they do.

Nobody waits longer than `_PATIENCE` seconds for an answer, nor takes more of it than `_LONGEST_ANSWER` bytes. A try
that was given up ends: it leaves no process and, once it is connected, no thread. Raises `LoginError`. Part of `oauth`.
"""

import contextlib
import http.client
import os
import shlex
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from mailer.errors import LoginError, safe
from mailer.settings import is_loopback

_PATIENCE = 30.0  # seconds
_LONGEST_ANSWER = 1 << 16  # bytes; tokens have up to some thousand
_LOOK = 0.01  # seconds between two looks at what a command does: in these, a flood brings some megabytes


def run(line: str) -> tuple[int, bytes, bytes]:
    """Run a command, without a shell: its exit code, what it printed, and what it complained of.

    It has ended when its own process has, whoever of its children still holds its output.
    """
    end = time.monotonic() + _PATIENCE
    try:
        command = line if os.name == "nt" else shlex.split(line)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except (OSError, ValueError) as failure:  # ValueError: quotes without an end
        raise LoginError(f"EMAIL_TOKEN_COMMAND cannot be run ({safe(str(failure))})") from None
    with process:
        while True:
            ended = process.poll() is not None
            try:
                output, errors = process.communicate(timeout=_LOOK)
                ended = True
            except subprocess.TimeoutExpired as so_far:
                output, errors = so_far.output or b"", so_far.stderr or b""
            if len(output) + len(errors) > _LONGEST_ANSWER:
                process.kill()
                raise LoginError("EMAIL_TOKEN_COMMAND gave no access token: it prints too much")
            if ended:
                return process.wait(), output, errors
            if time.monotonic() > end:
                process.kill()
                raise LoginError("EMAIL_TOKEN_COMMAND did not end in time", temporary=True)


class Endpoint:
    """A token endpoint, asked over verified HTTPS; secrets go where the settings say, and follow no redirect."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self._url = url
        self._context = context
        self._asking = threading.Thread()

    def post(self, form: dict[str, str]) -> tuple[int, bytes]:
        """Status and content of the answer to a form."""
        outcome: list[tuple[int, bytes] | LoginError] = []
        opened: list[socket.socket] = []
        end = time.monotonic() + _PATIENCE

        def ask() -> None:
            try:
                outcome.append(self._exchange(form, opened, end))
            except LoginError as wrong:
                outcome.append(wrong)
            except (OSError, ValueError, http.client.HTTPException) as failure:  # ValueError: not a URL
                reason = getattr(failure, "reason", failure)
                text = f"the token endpoint cannot be asked ({safe(str(reason))})"
                outcome.append(LoginError(text, temporary=True))

        if not self._asking.is_alive():  # a name or a connection may take longer than anybody waits
            self._asking = threading.Thread(target=ask, name="token", daemon=True)
            self._asking.start()
            self._asking.join(_PATIENCE)
        if not outcome:
            for sock in opened:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # ends the wait of the thread
            raise LoginError("the token endpoint gave no answer in time", temporary=True)
        if isinstance(outcome[0], LoginError):
            raise outcome[0]
        return outcome[0]

    def _exchange(self, form: dict[str, str], opened: list[socket.socket], end: float) -> tuple[int, bytes]:
        """Ask; `opened` gets the socket, and nothing is sent after `end`, when nobody waits any more."""
        url = urllib.parse.urlsplit(self._url)
        if not url.hostname or (url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname))):
            raise LoginError("OAUTH_TOKEN_URL: secrets go over https only")
        headers = {"Accept": "application/json"}
        request = urllib.request.Request(self._url, urllib.parse.urlencode(form).encode(), headers)  # noqa: S310 - the scheme was checked
        try:
            with _opener(self._context, opened, end).open(request, timeout=_PATIENCE) as answer:
                return answer.status, answer.read(_LONGEST_ANSWER)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read(_LONGEST_ANSWER)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Secrets go where the settings say, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def _opener(context: ssl.SSLContext, opened: list[socket.socket], end: float) -> urllib.request.OpenerDirector:
    """What opens a URL over connections that others can end, and that send nothing when they are made too late."""

    def watched(kind: type[http.client.HTTPConnection]) -> type[http.client.HTTPConnection]:
        class Watched(kind):  # type: ignore[valid-type,misc]  # one of two classes, which differ in nothing that matters here
            def connect(self) -> None:
                super().connect()
                opened.append(self.sock)
                if time.monotonic() > end:
                    raise TimeoutError

        return Watched

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(watched(http.client.HTTPConnection), request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(watched(http.client.HTTPSConnection), request, context=context)

    # A company's proxy is used, but not for what goes in clear: that stays on this machine.
    proxies = {scheme: proxy for scheme, proxy in urllib.request.getproxies().items() if scheme == "https"}
    return urllib.request.build_opener(Http, Https, _NoRedirect, urllib.request.ProxyHandler(proxies))
