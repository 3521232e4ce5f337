"""Access tokens: where they come from, how long they serve, and what is said when there is none."""

import errno
import json
import os
import select
import selectors
import shlex
import signal
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
import unittest
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, quote, urlencode

from mailer.errors import LoginError
from mailer.oauth import TokenSource, asking
from mailer.settings import OAuth
from tests.support.certificates import certificates, server_context
from tests.support.scripted import ScriptedServer, close, drip, endless, hang, refused_port

CONTEXT = ssl.create_default_context()
Answer = tuple[int, object]


class TokenEndpoint:
    """Answers each POST with the next of the answers, the last of them for ever."""

    def __init__(self, *answers: Answer, context: ssl.SSLContext | None = None) -> None:
        endpoint = self
        self.forms: list[dict[str, list[str]]] = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                with lock:
                    endpoint.forms.append(form)
                    status, fields = answers[min(len(endpoint.forms), len(answers)) - 1]
                content = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f"http{'s' if context else ''}://localhost:{self.port}/token"

    def __enter__(self) -> "TokenEndpoint":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def good(token: str = "token-1", **more: object) -> Answer:
    return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600, **more}


def source(url: str, context: ssl.SSLContext = CONTEXT, patience: float = 30.0) -> TokenSource:
    settings = OAuth(token_url=url, client_id="client", client_secret="client-s3cret", refresh_token="refresh-s3cret")
    return TokenSource(settings, context, patience=patience)


class RefreshTest(unittest.TestCase):
    def complaint(self, tokens: TokenSource, *, temporary: bool) -> str:
        with self.assertRaises(LoginError) as caught, self.assertNoLogs(level="DEBUG"):
            tokens(False)
        self.assertEqual(caught.exception.temporary, temporary, caught.exception)
        for secret in ("refresh-s3cret", "client-s3cret"):
            self.assertNotIn(secret, str(caught.exception))
        return str(caught.exception)

    def test_the_refresh_grant_as_the_standard_has_it(self) -> None:
        with TokenEndpoint(good()) as endpoint:
            self.assertEqual(source(endpoint.url)(False), "token-1")
            self.assertEqual(
                endpoint.forms,
                [{"grant_type": ["refresh_token"], "refresh_token": ["refresh-s3cret"], "client_id": ["client"],
                  "client_secret": ["client-s3cret"]}],
            )  # fmt: skip

    def test_a_token_is_kept_until_shortly_before_it_ends(self) -> None:
        with TokenEndpoint(good("one"), good("two")) as endpoint, mock.patch("time.monotonic", return_value=0.0) as now:
            tokens = source(endpoint.url)
            for moment, token in ((0.0, "one"), (3500.0, "one"), (3545.0, "two"), (7000.0, "two")):
                now.return_value = moment
                self.assertEqual(tokens(False), token)

    def test_lives_that_make_no_sense_are_taken_as_short(self) -> None:
        lives: tuple[object, ...] = (None, "soon", "nan", -1, 1e999, {}, True)
        for life in lives:
            with self.subTest(life=life), TokenEndpoint(good("one", expires_in=life), good("two")) as endpoint:
                tokens = source(endpoint.url)
                tokens(False)
                with mock.patch("time.monotonic", return_value=10.0**9):
                    self.assertEqual(tokens(False), "two")

    def test_a_refused_token_is_renewed_once_for_all_threads(self) -> None:
        with TokenEndpoint(good("old"), good("new"), good("newer")) as endpoint, ThreadPoolExecutor(8) as threads:
            tokens = source(endpoint.url)
            barrier = threading.Barrier(8)

            def use(_: int) -> tuple[str, str]:
                first = tokens(False)
                barrier.wait(10)
                return first, tokens(True)

            self.assertEqual(list(threads.map(use, range(8))), [("old", "new")] * 8)
            self.assertEqual(tokens(False), "new")
            self.assertEqual(tokens(True), "newer")

    def test_a_refresh_token_that_is_replaced_is_used_from_then_on(self) -> None:
        with TokenEndpoint(good(refresh_token="next"), good()) as endpoint:
            tokens = source(endpoint.url)
            tokens(False)
            tokens(True)
            self.assertEqual([form["refresh_token"] for form in endpoint.forms], [["refresh-s3cret"], ["next"]])

    def test_what_is_no_refresh_token_replaces_none(self) -> None:
        strange: tuple[object, ...] = (["next"], {"next": 1}, 5, True, None, "")
        for replaced in strange:
            with self.subTest(replaced=replaced), TokenEndpoint(good(refresh_token=replaced), good()) as endpoint:
                tokens = source(endpoint.url)
                tokens(False)
                tokens(True)
                self.assertEqual([form["refresh_token"] for form in endpoint.forms], [["refresh-s3cret"]] * 2)

    def test_refusals_carry_the_providers_reason(self) -> None:
        for answer, temporary, reason in (
            ((400, {"error": "invalid_grant", "error_description": "over\r\n\x1b"}), False, "invalid_grant over"),
            ((401, {"error": "no refresh-s3cret or client-s3cret"}), False, "no … or …"),
            ((429, {}), True, "429"),
            ((408, b"timed out"), True, "408"),
            ((400, {"error": "temporarily_unavailable"}), True, "temporarily_unavailable"),
            ((400, {"error": ["slow_down"]}), False, "slow_down"),
            ((503, b"<html>down</html>"), True, "503"),
            ((200, b"not json"), True, "200"),  # it is not the provider's, or not all of it
            ((200, b'{"access_token": "tok'), True, "200"),
            ((200, b"[" * 50_000), True, "200"),
            ((200, ["access_token"]), True, "200"),
            ((200, {"access_token": ""}), False, "200"),
            ((200, {"access_token": ["token"]}), False, "no access token"),
            ((200, {"access_token": {"token": "token"}}), False, "no access token"),
            ((200, {"access_token": 12345}), False, "no access token"),
            ((200, {"access_token": True}), False, "no access token"),
            ((200, {"access_token": "two words"}), False, "no access token"),
            ((200, {"access_token": "a\1auth=x"}), False, "no access token"),
            ((302, good()[1]), False, "302"),
        ):
            with self.subTest(answer=answer), TokenEndpoint(answer) as endpoint:
                self.assertIn(reason, self.complaint(source(endpoint.url), temporary=temporary))
                self.assertEqual(len(endpoint.forms), 1)

    def test_no_token_is_in_a_reason(self) -> None:
        refresh, client, access = "1//refresh-s3cret", "client s3cret+/", "ya29.aCCess-T0ken_123456"
        settings = OAuth(token_url="", client_id="client", client_secret=client, refresh_token=refresh)
        form = urlencode({"refresh_token": refresh, "client_secret": client})
        trace = "Trace ID: 0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f. See https://login.example.com/the-documentation"
        plain = f"{refresh} {client} {access}"
        for said in (form, quote(form), json.dumps(form), plain, {"you said": [client, access]}):
            answer = {"error": "invalid_request", "error_description": f"{said}: {trace}"}
            for status in (200, 400):
                with self.subTest(said=said, status=status), TokenEndpoint((status, answer)) as endpoint:
                    with self.assertRaises(LoginError) as caught:
                        TokenSource(replace(settings, token_url=endpoint.url), CONTEXT)(False)
                    words = str(caught.exception)
                    self.assertNotRegex(words, r"(?i)s3cret|T0ken")
                    self.assertTrue(words.endswith(trace), words)
        content = json.dumps(good(access)[1]).encode()
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for raw in (content, b"HTTP/1.1 " + content, chunked + content):
            with self.subTest(raw=raw), ScriptedServer({"POST": (raw + b"\r\n\r\n", close)}) as server:
                words = self.complaint(source(f"http://127.0.0.1:{server.port}/"), temporary=True)
                self.assertIn("does not answer in HTTP", words)
                self.assertNotIn("T0ken", words)

    def test_an_endpoint_that_cannot_be_reached_is_temporary(self) -> None:
        self.complaint(source(f"http://127.0.0.1:{refused_port()}/"), temporary=True)

    def test_an_endpoint_that_drips_ends_in_time(self) -> None:
        with ScriptedServer({"POST": drip(b"HTTP/1.1 200 OK\r\n")}) as server:
            tokens = source(f"http://127.0.0.1:{server.port}/", patience=0.3)
            self.assertIn("in time", self.complaint(tokens, temporary=True))

    def test_a_try_that_was_given_up_ends(self) -> None:
        for action in (hang, drip(b"HTTP/1.1 200 OK\r\n"), (b"HTTP/1.1 200 OK\r\n\r\n", drip(b"x"))):
            with ScriptedServer({"POST": action}) as server:
                self.complaint(source(f"http://127.0.0.1:{server.port}/", patience=0.3), temporary=True)
                self.assertNotIn("token", [thread.name for thread in threading.enumerate()])

    def test_those_who_wait_for_a_renewal_share_its_failure(self) -> None:
        with ScriptedServer({"POST": hang}) as server, ThreadPoolExecutor(8) as threads:
            tokens = source(f"http://127.0.0.1:{server.port}/", patience=0.5)
            failures = [threads.submit(tokens, False).exception for _ in range(8)]
            self.assertEqual({str(failure()) for failure in failures}, {"the token endpoint gave no answer in time"})
            self.assertEqual(len(server.conversations), 1)
            self.complaint(tokens, temporary=True)
            self.assertEqual(len(server.conversations), 2)

    def test_an_answer_without_end_is_cut(self) -> None:
        with ScriptedServer({"POST": (b"HTTP/1.1 200 OK\r\n\r\n", endless(b"x" * 10_000))}) as server:
            self.assertIn("200", self.complaint(source(f"http://127.0.0.1:{server.port}/"), temporary=True))

    def test_secrets_go_over_verified_https_only(self) -> None:
        trusting = ssl.create_default_context(cafile=certificates().ca)
        with TokenEndpoint(good(), context=server_context()) as endpoint:
            self.assertEqual(source(endpoint.url, trusting)(False), "token-1")
            self.complaint(source(endpoint.url), temporary=True)
            self.assertEqual(len(endpoint.forms), 1)
        for url in (
            "http://login.example.com/token", "http://127.0.0.1.example.com/", "file:///etc/passwd", "ftp://x/", "https:///",
        ):  # fmt: skip
            with self.subTest(url):
                self.assertIn("https only", self.complaint(source(url), temporary=False))

    def test_a_proxy_is_used_for_what_is_encrypted_alone(self) -> None:
        with ScriptedServer({"CONNECT": b"HTTP/1.1 403 Forbidden\r\n\r\n"}) as proxy, TokenEndpoint(good()) as endpoint:
            name = f"http://127.0.0.1:{proxy.port}"
            with mock.patch.dict(os.environ, {"https_proxy": name, "http_proxy": name, "no_proxy": ""}):
                self.assertIn("403", self.complaint(source("https://login.example.com/token"), temporary=True))
                self.assertIn("CONNECT login.example.com:443 HTTP/1.", str(proxy.lines))
                self.assertNotIn("s3cret", str(proxy.lines))
                self.assertEqual(source(endpoint.url)(False), "token-1")

    def test_nothing_shows_a_secret(self) -> None:
        with TokenEndpoint(good()) as endpoint, self.assertNoLogs(level="DEBUG"):
            tokens = source(endpoint.url)
            tokens(False)
            self.assertNotIn("s3cret", repr(tokens) + repr(vars(tokens)["_oauth"]))


class CommandTest(unittest.TestCase):
    def tokens(self, code: str, *arguments: str, patience: float = 30.0) -> TokenSource:
        command = shlex.join([sys.executable, "-c", code, *arguments])
        return TokenSource(OAuth(command=command), CONTEXT, patience=patience)

    def test_the_output_is_the_token(self) -> None:
        self.assertEqual(self.tokens("print('  abc.DEF-1~+/=  ')")(False), "abc.DEF-1~+/=")

    def test_there_is_no_shell(self) -> None:
        self.assertEqual(self.tokens("import sys; print(sys.argv[1])", "$HOME;`id`")(False), "$HOME;`id`")

    def test_on_a_busy_machine_too(self) -> None:
        selector = selectors.PollSelector if hasattr(selectors, "PollSelector") else selectors.SelectSelector
        poll, select, looks = subprocess.Popen.poll, selector.select, iter(range(20))

        def at_the_end(process: Any) -> Any:
            process.wait()
            return poll(process)

        def late(of: Any, timeout: float | None = None) -> Any:
            time.sleep(0.02 if next(looks, None) is not None else 0.0)
            return select(of, timeout)

        with mock.patch.object(subprocess.Popen, "poll", at_the_end), mock.patch.object(selector, "select", late):
            self.assertEqual(self.tokens("print('token')")(False), "token")

    def test_it_is_run_again_when_its_token_is_refused(self) -> None:
        tokens = self.tokens("import os; print(os.getpid())")
        first = tokens(False)
        self.assertEqual(tokens(False), first)
        self.assertNotEqual(tokens(True), first)

    def test_failures(self) -> None:
        for code, temporary, reason in (
            ("pass", False, "no access token"),
            ("print('a b')", False, "no access token"),
            ("print('a\\nb')", False, "no access token"),
            ("print(chr(233))", False, "no access token"),
        ):
            with self.subTest(code), self.assertRaises(LoginError) as caught:
                self.tokens(code)(False)
            self.assertEqual(caught.exception.temporary, temporary)
            self.assertIn(reason, str(caught.exception))

    def test_a_token_that_a_failing_command_printed_is_not_told(self) -> None:
        for token in ("s3cret-token", "ya29.aCCess-s3cret_123456"):
            for code in ("print(t); sys.exit('no network: ' + t)", "print([t]); sys.exit('no network:' + t)"):
                with self.subTest(code, token=token):
                    self.assertIn("1: no network", self.complaint(f"import sys; t = {token!r}; {code}"))
        self.assertIn("1: no \ufffdnetwork", self.complaint("import sys; sys.exit('x\\nno \\x1bnetwork')"))
        self.assertIn("1: no use: 1//…", self.complaint("import sys; sys.exit('no use: 1//REFRESHs3cret987654')"))

    def complaint(self, code: str) -> str:
        """What is logged of a command that fails: its reason, which the error does not hold."""
        with self.assertLogs("mailer.oauth", "WARNING") as log, self.assertRaises(LoginError) as caught:
            self.tokens(code)(False)
        self.assertEqual(str(caught.exception), "EMAIL_TOKEN_COMMAND failed with 1")
        self.assertNotIn("s3cret", log.output[0])
        return log.output[0]

    def test_an_outage_is_complained_of_once(self) -> None:
        tokens = self.tokens("import sys; sys.exit('no network')")
        with self.assertLogs("mailer.oauth", "WARNING") as log:
            for _ in range(3):
                self.assertRaises(LoginError, tokens._renew)
        self.assertEqual(len(log.output), 1)

    def test_what_may_pass_is_told_apart(self) -> None:
        table = {"sys.exit(69)": True, "sys.exit(75)": True, "os.kill(os.getpid(), 9)": os.name == "posix",
                 "sys.exit(1)": False, "sys.exit(77)": False}  # fmt: skip
        for code, temporary in table.items():
            with self.subTest(code), self.assertLogs("mailer.oauth"), self.assertRaises(LoginError) as caught:
                self.tokens(f"import os, sys; {code}")(False)
            self.assertEqual(caught.exception.temporary, temporary)

    def test_a_command_that_is_not_there_or_not_a_command(self) -> None:
        for command in ("/nowhere/token", "'unclosed"):
            with self.subTest(command), self.assertRaises(LoginError) as caught:
                TokenSource(OAuth(command=command), CONTEXT)(False)
            self.assertIn("cannot be run", str(caught.exception))

    def test_its_words_may_be_secret(self) -> None:
        with self.assertRaises(LoginError) as caught:
            TokenSource(OAuth(command="PASSPHRASE=hunter2 oama access a@example.com"), CONTEXT)(False)
        self.assertNotIn("hunter2", str(caught.exception))

    def test_what_the_system_has_nothing_left_for_may_pass(self) -> None:
        for number, temporary in ((errno.EMFILE, True), (errno.EAGAIN, True), (errno.EACCES, False)):
            failure = OSError(number, os.strerror(number))
            with mock.patch.object(subprocess, "Popen", side_effect=failure), self.assertRaises(LoginError) as caught:
                self.tokens("pass")(False)
            self.assertIs(caught.exception.temporary, temporary, failure)

    @unittest.skipUnless(hasattr(os, "killpg"), "needs groups of processes")
    def test_one_that_cannot_be_ended_is_left_behind(self) -> None:
        kill, groups = os.killpg, []

        def refuse(group: int, number: int) -> None:
            groups.append(group)
            raise PermissionError  # as for the processes of others

        began = time.monotonic()
        with mock.patch.object(os, "killpg", refuse), mock.patch.object(asking, "_LAST_STEPS", 0.1):
            with warnings.catch_warnings(action="ignore", category=ResourceWarning), self.assertRaises(LoginError):
                self.tokens("import time; time.sleep(60)", patience=0.3)(False)
        self.assertLess(time.monotonic() - began, 5)
        kill(groups[0], signal.SIGKILL)

    def test_a_command_that_hangs_ends_in_time(self) -> None:
        with self.assertRaises(LoginError) as caught:
            self.tokens("import time; time.sleep(60)", patience=0.3)(False)
        self.assertTrue(caught.exception.temporary)

    def test_a_command_that_prints_without_end_is_ended(self) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for stream in ("stdout", "stderr"):
            with self.subTest(stream), self.assertRaises(LoginError) as caught:
                self.tokens(f"import sys\nwhile True: sys.{stream}.write('x' * 100_000)")(False)
            self.assertIn("too much", str(caught.exception))
        self.assertLess(tracemalloc.get_traced_memory()[1], 100_000_000)

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork")
    def test_a_command_that_is_given_up_leaves_no_process(self) -> None:
        for ending, reason in (
            ("time.sleep(60)", "in time"),
            ("[print('x' * 100_000) for _ in range(100)]; time.sleep(60)", "too much"),
            ("print('x' * 100_000)", "too much"),
        ):
            living, end = os.pipe()  # is at its end as soon as nobody holds the other end
            self.addCleanup(os.close, living)
            os.set_inheritable(end, True)
            code = f"import os, time; os.fork() or time.sleep(60); os.fork(); {ending}"
            with (
                self.subTest(ending),
                mock.patch.object(subprocess, "Popen", partial(subprocess.Popen, pass_fds=(end,))),
                self.assertRaises(LoginError) as caught,
            ):
                self.tokens(code, patience=0.5)(False)
            self.assertIn(reason, str(caught.exception))
            os.close(end)
            self.assertEqual(select.select([living], [], [], 10)[0], [living])
            self.assertEqual(os.read(living, 1), b"")

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork")
    def test_a_child_that_keeps_the_output_open_is_not_waited_for(self) -> None:
        gone, end = os.pipe()
        self.addCleanup(os.close, gone)
        os.set_inheritable(gone, True)
        code = f"import os; print('token', flush=True); os.fork() or os.read({gone}, 1)"
        with mock.patch.object(subprocess, "Popen", partial(subprocess.Popen, pass_fds=(gone,))):
            self.assertEqual(self.tokens(code)(False), "token")
        os.close(end)  # lets the child end


if __name__ == "__main__":
    unittest.main()
