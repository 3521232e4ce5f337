"""Asking a command or a token endpoint, in bounded time and memory, whatever they do.

Nobody waits longer than `patience` seconds for an answer, nor takes more of it than `_LONGEST_ANSWER` bytes. A try that
was given up ends: it leaves no process and, once it is connected, no thread. Raises `LoginError`. Part of `oauth`.
"""

import contextlib
import errno
import http.client
import os
import shlex
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

from mailer.errors import LoginError, safe
from mailer.settings import may_have_secrets

PATIENCE = 30.0  # seconds, where nobody says otherwise
_LONGEST_ANSWER = 1 << 16  # bytes; tokens have up to some thousand
_LAST_STEPS = 1.0  # seconds; a thread that waits no more needs much less for them
_MOMENT = 0.2  # seconds between two looks whether anybody still waits
# Seconds between two looks at what a command does: in these, a flood brings some megabytes. At one that has ended there
# are more, for half a second: its children may print a little later, and communicate() reads nothing where it is late.
_LOOK, _LAST_LOOKS = 0.01, 50
# The system has nothing left for one more process: EAGAIN is the owner's limit of these.
_FOR_NOW = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def run(
    line: str, stopping: Callable[[], bool] = lambda: False, patience: float = PATIENCE
) -> tuple[int, bytes, bytes]:
    """Run a command, without a shell: its exit code, what it printed, and what it complained of.

    It has ended when its own process has, whoever of its children still holds its output. When it is given up, they
    all are ended.
    """
    end = time.monotonic() + patience
    try:
        command = line if os.name == "nt" else shlex.split(line)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )  # the session is what makes a group of it and its children; Windows has none and takes no notice
    except (OSError, ValueError) as failure:  # ValueError: quotes without an end
        for_now = isinstance(failure, OSError) and failure.errno in _FOR_NOW
        why = (isinstance(failure, OSError) and failure.strerror) or failure  # without its words, which may be secret
        raise LoginError(f"EMAIL_TOKEN_COMMAND cannot be run ({safe(str(why))})", temporary=for_now) from None
    try:
        return _result(process, end, stopping)
    except BaseException:
        _kill(process)
        raise
    finally:
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # what is somebody else's, as by sudo, cannot be ended
            process.wait(_LAST_STEPS)


def _result(process: "subprocess.Popen[bytes]", end: float, stopping: Callable[[], bool]) -> tuple[int, bytes, bytes]:
    """The exit code of a command that ends by then, and its output and complaints, if they are not too long."""
    looks = _LAST_LOOKS
    while looks:
        ended = process.poll() is not None
        try:
            output, errors = process.communicate(timeout=_LOOK)
            looks = 0
        except subprocess.TimeoutExpired as so_far:
            output, errors = so_far.output or b"", so_far.stderr or b""
            looks -= ended
        if len(output) + len(errors) > _LONGEST_ANSWER:
            raise LoginError("EMAIL_TOKEN_COMMAND gave no access token: it prints too much")
        if looks and not ended and (time.monotonic() > end or stopping()):
            raise LoginError("EMAIL_TOKEN_COMMAND did not end in time", temporary=True)
    return process.wait(), output, errors


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a command with the processes that it started; Windows has no groups of them, only its own can be ended."""
    if os.name == "nt":
        process.kill()
        return
    with contextlib.suppress(OSError):  # nobody is left, or they are somebody else's by now
        os.killpg(process.pid, signal.SIGKILL)


class Endpoint:
    """A token endpoint, asked over verified HTTPS; secrets go where the settings say, and follow no redirect."""

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext,
        stopping: Callable[[], bool] = lambda: False,
        patience: float = PATIENCE,
    ) -> None:
        self._url = url
        self._stopping = stopping
        self._patience = patience
        self._context = context
        self._asking = threading.Thread()

    def post(self, form: dict[str, str]) -> tuple[int, bytes]:
        """Status and content of the answer to a form."""
        outcome: list[tuple[int, bytes] | LoginError] = []
        opened: list[socket.socket] = []
        end = time.monotonic() + self._patience

        def ask() -> None:
            try:
                outcome.append(self._exchange(form, opened, end))
            except LoginError as wrong:
                outcome.append(wrong)
            except OSError as failure:
                text = f"the token endpoint cannot be asked ({safe(str(getattr(failure, 'reason', failure)))})"
                outcome.append(LoginError(text, temporary=True))
            except (ValueError, http.client.HTTPException) as failure:  # it quotes the answer, which may hold a token
                text = f"the token endpoint cannot be asked, or does not answer in HTTP ({type(failure).__name__})"
                outcome.append(LoginError(text, temporary=True))

        if not self._asking.is_alive():  # a name or a connection may take longer than anybody waits
            self._asking = threading.Thread(target=ask, name="token", daemon=True)
            self._asking.start()
            self._wait(end)
        if not outcome:
            for sock in opened:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # ends the wait of the thread
            if opened:
                self._asking.join(_LAST_STEPS)  # or whoever asks next would find it still there
            raise LoginError("the token endpoint gave no answer in time", temporary=True)
        if isinstance(outcome[0], LoginError):
            raise outcome[0]
        return outcome[0]

    def _wait(self, end: float) -> None:
        while self._asking.is_alive() and (left := end - time.monotonic()) > 0 and not self._stopping():
            self._asking.join(min(left, _MOMENT))

    def _exchange(self, form: dict[str, str], opened: list[socket.socket], end: float) -> tuple[int, bytes]:
        """Ask; `opened` gets the socket, and nothing is sent after `end`, when nobody waits any more."""
        if not may_have_secrets(self._url):
            raise LoginError("OAUTH_TOKEN_URL: secrets go over https only")
        headers = {"Accept": "application/json"}
        request = urllib.request.Request(self._url, urllib.parse.urlencode(form).encode(), headers)  # noqa: S310 - the scheme was checked
        try:
            # Its own time-out comes when nobody waits any more: so the same reason is always told.
            patience = self._patience + _LAST_STEPS
            with _opener(self._context, opened, end).open(request, timeout=patience) as answer:
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
