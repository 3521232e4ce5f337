"""Asks a command or a token endpoint for a token, in bounded time and memory, whatever these do.

A caller waits at most `patience` seconds for an answer, and a moment more for what it gives up to end; it gets at most
`_LONGEST_ANSWER` bytes. What is given up leaves no process that can be killed and, once connected, no thread. Raises
`LoginError`. Part of `oauth`.
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

PATIENCE = 30.0  # seconds, by default
_LONGEST_ANSWER = 1 << 16  # bytes; tokens have a few thousand at most
_LAST_STEPS = 1.0  # seconds in which a process or thread that was given up has to end; it needs much less
_MOMENT = 0.2  # seconds between two checks whether the script is stopping
# Seconds between two looks at a command: in that time a flood prints some megabytes. After the command has ended there
# are 50 more looks: its children may print a little later, and on a busy machine communicate() may read nothing yet.
_LOOK, _LAST_LOOKS = 0.01, 50
# Errors of a system that cannot start one more process now; EAGAIN stands for the user's limit of processes.
_FOR_NOW = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def run(
    line: str, stopping: Callable[[], bool] = lambda: False, patience: float = PATIENCE
) -> tuple[int, bytes, bytes]:
    """Run a command without a shell: its exit code, its output and its error output.

    The command has ended when its own process has, even if children still hold its output open. When it is given up,
    its children are killed with it.
    """
    end = time.monotonic() + patience
    try:
        command = line if os.name == "nt" else shlex.split(line)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )  # a new session puts the command and its children into one process group; Windows ignores it
    except (OSError, ValueError) as failure:  # ValueError: quotes without an end
        for_now = isinstance(failure, OSError) and failure.errno in _FOR_NOW
        why = (isinstance(failure, OSError) and failure.strerror) or failure  # the command itself may be secret
        raise LoginError(f"EMAIL_TOKEN_COMMAND cannot be run ({safe(str(why))})", temporary=for_now) from None
    try:
        return _result(process, end, stopping)
    except BaseException:
        _kill(process)
        raise
    finally:
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # another user's process, as of sudo, cannot be killed
            process.wait(_LAST_STEPS)


def _result(process: "subprocess.Popen[bytes]", end: float, stopping: Callable[[], bool]) -> tuple[int, bytes, bytes]:
    """The exit code, output and error output; raises LoginError if the command runs beyond `end` or prints too much."""
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
    """Kill a command and the processes that it started; without process groups (Windows) the command alone."""
    if os.name == "nt":
        process.kill()
        return
    with contextlib.suppress(OSError):  # none is left, or they run as another user now
        os.killpg(process.pid, signal.SIGKILL)


class Endpoint:
    """A token endpoint, asked over verified HTTPS (on this machine also HTTP); secrets follow no redirect."""

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
        """Send a form; returns status and content of the answer."""
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
            except (ValueError, http.client.HTTPException) as failure:  # its text may quote a token
                text = f"the token endpoint cannot be asked, or does not answer in HTTP ({type(failure).__name__})"
                outcome.append(LoginError(text, temporary=True))

        if not self._asking.is_alive():  # the last try may still look up the name, or connect
            self._asking = threading.Thread(target=ask, name="token", daemon=True)
            self._asking.start()
            self._wait(end)
        if not outcome:
            for sock in opened:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # wakes the thread
            if opened:
                self._asking.join(_LAST_STEPS)  # otherwise the next call would find it still running
            raise LoginError("the token endpoint gave no answer in time", temporary=True)
        if isinstance(outcome[0], LoginError):
            raise outcome[0]
        return outcome[0]

    def _wait(self, end: float) -> None:
        while self._asking.is_alive() and (left := end - time.monotonic()) > 0 and not self._stopping():
            self._asking.join(min(left, _MOMENT))

    def _exchange(self, form: dict[str, str], opened: list[socket.socket], end: float) -> tuple[int, bytes]:
        """Ask; the socket is added to `opened`, and nothing is sent after `end`, when the caller has given up."""
        if not may_have_secrets(self._url):
            raise LoginError("OAUTH_TOKEN_URL: secrets go over https only")
        headers = {"Accept": "application/json"}
        request = urllib.request.Request(self._url, urllib.parse.urlencode(form).encode(), headers)  # noqa: S310 - the scheme was checked
        try:
            # This time-out comes after the caller's, so that the reason given is always the caller's.
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
    """An opener whose sockets are added to `opened`, for others to shut down; nothing is sent after `end`."""

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

    # A company's proxy is used for HTTPS only: HTTP stays on this machine.
    proxies = {scheme: proxy for scheme, proxy in urllib.request.getproxies().items() if scheme == "https"}
    return urllib.request.build_opener(Http, Https, _NoRedirect, urllib.request.ProxyHandler(proxies))
