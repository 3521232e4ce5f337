"""`client.py` for scripts: flags, standard input, results, and exit codes."""

import codecs
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import unittest
from pathlib import Path
from unittest import mock

from mailer.console.courier import Courier
from mailer.errors import TransportError
from mailer.protocol import Reply, Request
from tests.sandbox.certificates import LOOPBACK
from tests.support.certificates import certificates
from tests.support.client import ROOT, ClientTestCase
from tests.support.fakeserver import OK, Answer, FakeServer, error, silence
from tests.support.scripted import refused_port
from tests.support.serverprocess import ServerProcess
from tests.support.waiting import wait_until

ADDRESS = ("--email", "alice@example.com")
BOTH = (*ADDRESS, "--message", "The printer is on fire")


class SendingTest(ClientTestCase):
    def test_flags_are_sent_and_the_ticket_is_told_on_stdout_alone(self) -> None:
        with FakeServer() as server:
            done = self.client(server.port, *BOTH)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("12345", done.stdout)
        [request] = server.requests
        self.assertEqual((request["email"], request["message"]), ("alice@example.com", "The printer is on fire"))
        self.assertRegex(request["id"], r"\A[0-9a-f]{32}\Z")

    def test_the_message_is_sent_exactly_as_given(self) -> None:
        text = "\n  Привет 🙂\n.\n..\n~e\n\n" + "x" * 5000 + "\n\ttail \n\n"
        file = self.home / "message.txt"
        file.write_bytes(text.encode())
        ways = {
            "file": ((*ADDRESS, "--file", str(file)), b""),
            "dash": ((*ADDRESS, "--file", "-"), text.encode()),
            "standard input": ((), f"alice@example.com\n{text}".encode()),
            "address with a return": ((), f"alice@example.com\r\n{text}".encode()),
            "text alone": (ADDRESS, text.encode()),
            "byte order mark": ((*ADDRESS, "--file", "-"), codecs.BOM_UTF8 + text.encode()),
            "UTF-16": ((*ADDRESS, "--file", "-"), text.encode("utf-16")),
            "address alone": (("--message", text), b"alice@example.com\n"),
        }
        for name, (flags, given) in ways.items():
            with self.subTest(name), FakeServer() as server:
                done = self.main(server.port, *flags, given=given)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertEqual(server.requests[0]["email"], "alice@example.com")
                self.assertEqual(server.requests[0]["message"], text)

    def test_the_token_goes_with_the_request_and_is_shown_nowhere(self) -> None:
        self.env["SERVER_TOKEN"] = "s3cret"
        with FakeServer(error("unauthorized")) as server:
            done = self.client(server.port, "--json", *BOTH)
        self.assertEqual(server.requests[0]["token"], "s3cret")
        self.assertNotIn("s3cret", done.stdout + done.stderr)

    def test_the_token_goes_to_no_other_machine_in_clear(self) -> None:
        self.env["SERVER_TOKEN"] = "s3cret"
        done = self.client(50007, "--host", "192.0.2.1", *BOTH)
        self.assertEqual((done.returncode, done.stdout), (78, ""))
        self.assertEqual(done.stderr, "SERVER_TLS_CA: is missing: the token would go to 192.0.2.1 in clear\n")

    def test_json_is_the_reply_on_one_line(self) -> None:
        refusal = error("mail_rejected", "550 Нет \x1b[31m")
        for answer in (OK, refusal):
            with self.subTest(answer["status"]), FakeServer(answer) as server:
                done = self.client(server.port, "--json", *BOTH)
                self.assertEqual(json.loads(done.stdout), answer)
                self.assertEqual(done.stdout.count("\n"), 1)
                self.assertNotIn("\x1b", done.stdout + done.stderr)


class FailureTest(ClientTestCase):
    def test_every_failure_has_its_exit_code_and_a_sentence(self) -> None:
        cases: dict[str, tuple[Answer, int, str]] = {
            "mail rejected": (error("mail_rejected", "554 5.7.1 Spam"), 1, "554 5.7.1 Spam"),
            "recipient refused": (error("recipient_refused", "550 No such user"), 1, "550 No such user"),
            "refused for now": (error("recipient_refused", "450 Later", retry=True), 75, "just now: 450 Later"),
            "bad request": (error("bad_request"), 1, "did not understand"),
            "unauthorized": (error("unauthorized"), 77, "SERVER_TOKEN"),
            "login refused": (error("mail_auth_failed"), 77, "administrator"),
            "rate": (error("rate_limited", "Try again in 5 minutes.", retry=True), 75, "in 5 minutes"),
            "busy": (error("busy", retry=True), 75, "busy"),
            "mail server down": (error("mail_unavailable", "timed out", retry=True), 75, "timed out"),
            "uncertain": (error("delivery_uncertain"), 74, "Nobody can tell"),
            "a code of the future": (error("on_fire", "Fire."), 1, "Fire."),
            "no answer": (None, 74, "answer was lost"),
            "garbage": (b"\x00garbage", 74, "makes no sense"),
        }
        for name, (answer, code, words) in cases.items():
            with self.subTest(name), FakeServer(answer) as server:
                done = self.main(server.port, *BOTH)
                self.assertEqual((done.returncode, done.stdout), (code, ""))
                self.assertIn(words, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1)

    def test_of_endless_problems_a_handful_is_shown(self) -> None:
        many = error("mail_rejected", "No.")
        many["errors"] *= 12_000
        for language, words in (("en", "… and 11992 more."), ("ru", "… и ещё 11992.")):
            self.env["LANGUAGE"] = language
            with self.subTest(language), FakeServer(many) as server:
                done = self.client(server.port, *BOTH)
                self.assertEqual(done.stderr.count("\n"), 9)
                self.assertEqual(done.stderr.splitlines()[-1], words)

    def test_nothing_is_asked_of_the_server_with_bad_input(self) -> None:
        text = ("--message", "x")
        cases: dict[str, tuple[tuple[str, ...], bytes, int, str]] = {
            "address": (("--email", "alice", *text), b"", 1, "name@example.com"),
            "a name as well": (("--email", "Bob <bob@example.com>", *text), b"", 1, "one address and nothing else"),
            "a link": (("--email", "mailto:bob@example.com", *text), b"", 1, "one address and nothing else"),
            "two": (("--email", "a@example.com, b@example.com", *text), b"", 1, "one address and nothing else"),
            "both": (("--email", "alice", "--message", " "), b"", 1, "is empty"),
            "too long": ((*ADDRESS, "--file", "-"), b"x" * 100_001, 1, "100,001"),
            "far too long": ((*ADDRESS, "--file", "-"), b"x" * (5 << 20), 1, "100,000"),
            "not text": ((*ADDRESS, "--file", "-"), b"\x7fELF", 1, "cannot be sent, U+007F"),
            "not UTF-8": ((*ADDRESS, "--file", "-"), b"one\ncaf\xe9", 1, "bytes that are not UTF-8, on line 2."),
            "two signs": (("--email", "a@b@example.com", *text), b"", 1, "one @ and no more"),
            "nothing on standard input": ((), b"", 64, "standard input"),
            "no text on standard input": (ADDRESS, b"", 64, "The message is missing"),
            "no address on standard input": (text, b"", 64, "--email is missing"),
            "no such file": ((*ADDRESS, "--file", str(self.home / "none")), b"", 66, "none"),
            "a folder": ((*ADDRESS, "--file", str(self.home)), b"", 66, str(self.home)),
            "two texts": ((*ADDRESS, *text, "--file", "x"), b"", 64, "--file"),
            "unknown flag": (("--mesage", "x"), b"", 64, "did you mean --message?"),
        }
        with FakeServer() as server:
            for name, (flags, given, code, words) in cases.items():
                with self.subTest(name):
                    done = self.main(server.port, *flags, given=given)
                    self.assertEqual((done.returncode, done.stdout), (code, ""))
                    self.assertIn(words, done.stderr)
        self.assertEqual(server.requests, [])

    def test_a_server_that_is_not_there_is_named(self) -> None:
        done = self.main(1, *BOTH)
        self.assertEqual(done.returncode, 69)
        self.assertIn("127.0.0.1:1", done.stderr)

    def test_a_server_without_tls_is_not_talked_to_where_tls_is_configured(self) -> None:
        self.env["SERVER_TLS_CA"] = str(LOOPBACK)
        with FakeServer() as server:
            done = self.main(server.port, *BOTH)
        self.assertEqual((done.returncode, server.requests), (69, []))
        self.assertIn("No TLS with", done.stderr)

    def test_a_server_that_speaks_no_tls_is_suspected_of_it(self) -> None:
        self.env["SERVER_TLS_CA"] = str(LOOPBACK)
        with ServerProcess(SMTP_PORT=refused_port()) as server:
            done = self.main(server.port, *BOTH)
        self.assertEqual(done.returncode, 69)
        self.assertIn("the server speaks no TLS", done.stderr)
        self.assertNotRegex(done.stderr, r"_ssl|_[A-Z]+_NUMBER|\[SSL")

    def test_where_tls_does_not_fit_it_says_what_to_check(self) -> None:
        with ServerProcess(SMTP_PORT=refused_port(), SERVER_TLS_CERT=LOOPBACK) as server:
            done = self.main(server.port, *BOTH)
            self.assertEqual(done.returncode, 1)
            self.assertIn("over TLS alone; for client.py that is SERVER_TLS_CA. Nothing was sent.", done.stderr)
            self.env["SERVER_TLS_CA"] = str(certificates().ca)
            done = self.main(server.port, *BOTH)
            self.assertEqual(done.returncode, 69)
            self.assertIn("has to fit SERVER_TLS_CERT", done.stderr)
            self.assertIn("certificate", done.stderr)

    def test_a_certificate_of_another_name_is_no_matter_of_the_authority(self) -> None:
        files = certificates()
        self.env["SERVER_TLS_CA"] = str(files.ca)
        given = {"SERVER_TLS_CERT": files.chain("wrong_host"), "SERVER_TLS_KEY": files.key("wrong_host")}
        with ServerProcess(SMTP_PORT=refused_port(), **given) as server:
            done = self.main(server.port, *BOTH)
        self.assertEqual(done.returncode, 69)
        self.assertIn("not valid for '127.0.0.1'. SERVER_HOST here has to be a name", done.stderr)

    def test_settings_that_cannot_be_used(self) -> None:
        self.env |= {"SERVER_HOST": "desk.example.com", "SERVER_TOKEN": "x", "MAIL_TIMEOUT": "soon"}
        done = self.main(0, *BOTH)
        self.assertEqual((done.returncode, done.stdout), (78, ""))
        self.assertIn("SERVER_PORT", done.stderr)
        self.assertIn("SERVER_TLS_CA", done.stderr)
        self.assertNotIn("MAIL_TIMEOUT", done.stderr)  # it is the server's

    def test_an_answer_that_is_lost_is_asked_for_once_more_with_the_same_id(self) -> None:
        # What a second server, or one that was restarted, says of the moment is not true of the first time.
        moments = ("busy", "rate_limited", "mail_unavailable", "mail_rejected", "recipient_refused", "mail_auth_failed",
                   "internal_error", "unauthorized", "delivery_uncertain")  # fmt: skip
        table = [((None, OK), 0, 2), ((None, None, OK), 74, 2), ((None, error("message_invalid")), 1, 2),
                 ((None, error("email_invalid")), 74, 2),
                 *[((None, error(code)), 74, 2) for code in moments]]  # fmt: skip
        for answers, code, asked in table:
            with self.subTest(answers=answers), FakeServer(*answers) as server:
                done = self.client(server.port, *BOTH)
                self.assertEqual((done.returncode, len(server.requests)), (code, asked))
                self.assertEqual(server.requests[0], server.requests[1])

    def test_an_answer_that_is_lost_is_not_asked_for_where_the_server_has_forgotten_it(self) -> None:
        for slept, asked in ((0, 2), (7200, 1)):
            clock = iter([1000.0, 1000.0 + slept])
            asks = 0

            def send(_: Request) -> Reply:
                nonlocal asks
                asks += 1
                raise TransportError("reset", sent=True)

            courier = Courier("here", 1.0, send)
            with self.subTest(slept), mock.patch("time.time", lambda: next(clock)):  # noqa: B023 - used in this round
                with self.assertRaises(TransportError) as lost:
                    courier.deliver(Request("alice@example.com", "x", "1"), lambda _: None)
                self.assertEqual((lost.exception.sent, asks), (True, asked))

    @unittest.skipUnless(os.name == "posix", "Ctrl-C cannot be sent to one process alone here")
    def test_an_interrupt_leaves_it_open_whether_it_was_sent(self) -> None:
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(ending.name), FakeServer(silence) as server:
                process = subprocess.Popen(
                    self.command(server.port, *BOTH), env=self.env, stderr=subprocess.PIPE,
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background it is ignored
                )  # fmt: skip
                wait_until(lambda: server.requests)
                process.send_signal(ending)
                said = process.communicate(timeout=10)[1]
                self.assertEqual((said, process.returncode), (b"It may have been sent all the same.\n", 130))

    def test_it_can_be_called_in_a_thread(self) -> None:
        codes: list[int] = []
        with FakeServer() as server:
            asking = threading.Thread(target=lambda: codes.append(self.main(server.port, *BOTH).returncode))
            asking.start()
            asking.join(30)
        self.assertEqual(codes, [0])

    @unittest.skipUnless(os.name == "posix", "there is no SIGHUP here")
    def test_a_signal_that_is_ignored_stays_so(self) -> None:
        go_on = threading.Event()
        with FakeServer(lambda _request: go_on.wait(30) and OK) as server:
            process = subprocess.Popen(
                self.command(server.port, *BOTH), env=self.env, stdout=subprocess.PIPE,
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # as `nohup` does
            )  # fmt: skip
            wait_until(lambda: server.requests)
            process.send_signal(signal.SIGHUP)
            go_on.set()
            self.assertIn(b"12345", process.communicate(timeout=10)[0])

    @unittest.skipUnless(os.name == "posix", "Ctrl-C cannot be sent to one process alone here")
    def test_an_interrupt_before_there_is_a_connection_leaves_nothing_open(self) -> None:
        self.env["SERVER_TLS_CA"] = str(LOOPBACK)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            process = subprocess.Popen(
                self.command(silent.getsockname()[1], *BOTH), env=self.env, stderr=subprocess.PIPE,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
            )  # fmt: skip
            with silent.accept()[0] as peer:
                peer.recv(1)  # it waits for the other half of the handshake
                process.send_signal(signal.SIGINT)
                said = process.communicate(timeout=10)[1]
        self.assertEqual((said, process.returncode), (b"It was not sent.\n", 130))


@unittest.skipUnless(Path("/dev/full").exists(), "needs a file that is always full")
class UnwritableTest(ClientTestCase):
    def ends(self, port: int, *flags: str, stdout: int | None = None, stderr: int | None = None) -> tuple[int, bytes]:
        out, err = (subprocess.PIPE if given is None else given for given in (stdout, stderr))
        done = subprocess.run(self.command(port, *flags), env=self.env, stdout=out, stderr=err, timeout=60)
        return done.returncode, (done.stderr or b"") + (done.stdout or b"")

    def nowhere(self) -> dict[str, int]:
        """A full disk, and a pipe whose reader has gone."""
        full = os.open("/dev/full", os.O_WRONLY)
        reading, broken = os.pipe()
        os.close(reading)
        for descriptor in (full, broken):
            self.addCleanup(os.close, descriptor)
        return {"No space left on device": full, "Broken pipe": broken}

    def test_a_result_that_cannot_be_written_is_told_on_stderr(self) -> None:
        answers = {OK["status"]: (OK, 0, b"12345"), "refused": (error("mail_rejected", "554 Spam"), 1, b"554 Spam")}
        for why, descriptor in self.nowhere().items():
            for name, (answer, code, words) in answers.items():
                with self.subTest(why, answer=name), FakeServer(answer) as server:
                    ended, said = self.ends(server.port, "--json", *BOTH, stdout=descriptor)
                    self.assertEqual(ended, code)
                    self.assertIn(words, said)
                    self.assertIn(f"cannot be written to standard output ({why})".encode(), said.splitlines()[-1])
                    self.assertNotIn(b"Traceback", said)
                    self.assertNotIn(b"Exception", said)

    def test_nor_is_it_lost_where_there_is_no_standard_output(self) -> None:
        with FakeServer() as server:
            command = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *self.command(server.port, *BOTH)]
            done = subprocess.run(command, env=self.env, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"12345", done.stderr)

    def test_no_stream_at_all_changes_the_exit_code(self) -> None:
        for why, descriptor in self.nowhere().items():
            for answer, code in ((OK, 0), (error("busy", retry=True), 75), (None, 74)):
                with self.subTest(why, code=code), FakeServer(answer) as server:
                    self.assertEqual(self.ends(server.port, *BOTH, stdout=descriptor, stderr=descriptor)[0], code)
            with self.subTest(why):
                self.assertEqual(self.ends(refused_port(), *BOTH, stderr=descriptor), (69, b""))
                self.assertEqual(self.ends(1, "--email", stderr=descriptor), (64, b""))
                self.assertEqual(self.ends(1, "--port", "x", stderr=descriptor), (78, b""))
                self.assertEqual(self.ends(1, "--help", stdout=descriptor)[0], 0)


class CharsetTest(ClientTestCase):
    def test_no_locale_ends_in_a_traceback(self) -> None:
        for settings in ({"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "koi8-r"}):
            with self.subTest(settings), FakeServer(error("mail_rejected", "Нельзя 🙂")) as server:
                self.env |= settings
                done = self.client(server.port, given="zoé@example.com\nПривет 🙂".encode())
                self.assertEqual(done.returncode, 1)
                self.assertEqual(server.requests[0]["message"], "Привет 🙂")

    def test_help_fits_a_screen_and_has_an_example(self) -> None:
        done = subprocess.run(
            [sys.executable, str(ROOT / "client.py"), "--help"], env={**self.env, "COLUMNS": "80"}, capture_output=True,
            text=True, timeout=30,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0)
        self.assertLess(len(done.stdout.splitlines()), 24)
        self.assertIn("example:", done.stdout)


if __name__ == "__main__":
    unittest.main()
