"""`server.py` as a process, in front of mail servers that can be watched."""

import contextlib
import email
import email.policy
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mailer.errors import TransportError
from mailer.protocol import Reply, Request, decode_reply, encode_request
from mailer.sandbox.mail import MailServer
from mailer.tickets import recognise
from mailer.tls import client_context
from mailer.transport import Connection
from mailer.transport.exchange import exchange
from tests.support import certificates
from tests.support.scripted import SMTP, Conversation, ScriptedServer, Table, close, ehlo, hang, refused_port
from tests.support.serverprocess import ADMIN, ROOT, ServerProcess, environment
from tests.support.waiting import wait_until

LONG = bool(os.environ.get("MAILER_LONG"))
POSIX = unittest.skipUnless(os.name == "posix", "needs POSIX signals")
ALICE = "alice@example.com"


def _code(reply: Reply) -> str:
    return "OK" if reply.ok else reply.problems[0].code.value


class _Asker(threading.Thread):
    """Somebody who asks at the same time as others."""

    def __init__(self, port: int, request: Request) -> None:
        super().__init__(daemon=True)
        self._port, self._request = port, request
        self.outcome = ""
        self.start()

    def run(self) -> None:
        try:
            self.outcome = _code(exchange("127.0.0.1", self._port, self._request, timeout=30))
        except TransportError as failure:
            self.outcome = f"{failure}, {failure.sent}"


class _Held:
    """An action of a scripted server that comes about when the test says so."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self.reached = 0
        self.go = threading.Event()

    def __call__(self, conversation: Conversation) -> None:
        self.reached += 1
        self.go.wait(30)
        conversation.send(self._reply)


class HowItEnds(unittest.TestCase):
    def assert_ends(self, code: int, *words: str, flags: tuple[str, ...] = (), **settings: Any) -> None:
        done = ServerProcess(*flags, **settings).run()
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertEqual(done.stdout, "")

    def test_with_nothing_set_every_key_is_named(self) -> None:
        self.assert_ends(78, "EMAIL_LOGIN: is missing ", "EMAIL_PASSWORD: is missing ", "SMTP_HOST: is missing ",
                         "SMTP_PORT: is missing ", EMAIL_LOGIN="", EMAIL_PASSWORD="", SMTP_HOST="")  # fmt: skip

    def test_every_bad_value_is_named_at_once(self) -> None:
        self.assert_ends(78, "SMTP_PORT: ", "MAIL_TIMEOUT: ", "RATE_PER_CLIENT: ", "EMAIL_LOGIN: ",
                         SMTP_PORT="x", MAIL_TIMEOUT="nan", RATE_PER_CLIENT="x", EMAIL_LOGIN="x")  # fmt: skip

    def test_files_that_cannot_be_used_are_named(self) -> None:
        files = {"MAIL_CA_FILE": "/no/ca.pem", "SERVER_TLS_CERT": "/no/cert.pem", "EMAIL_PASSWORD_FILE": "/no/password"}
        for key, path in files.items():
            with self.subTest(key):
                more: dict[str, Any] = {"EMAIL_PASSWORD": ""} if key == "EMAIL_PASSWORD_FILE" else {}
                more[key] = path
                self.assert_ends(78, key, SMTP_PORT=25, **more)

    def test_a_state_folder_that_cannot_be_used_is_named_before_anything_is_served(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            self.assert_ends(78, f"STATE_DIR: {file.name} ", SMTP_PORT=25, STATE_DIR=file.name)

    def test_a_place_where_it_cannot_listen_is_named(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assert_ends(78, f"SERVER_PORT: cannot listen on 127.0.0.1:{port}", SMTP_PORT=25, flags=("--port",
            str(port)))
        self.assert_ends(78, "SERVER_HOST", "a..b", SMTP_PORT=25, flags=("--host", "a..b"))

    def test_flags(self) -> None:
        self.assert_ends(64, "unknown: --prot 1 (did you mean --port?)", flags=("--prot", "1"))
        self.assert_ends(78, "SERVER_PORT: ", SMTP_PORT=25, flags=("--port", "x"))
        self.assert_ends(78, "/no/such.env: cannot be read", flags=("--env", "/no/such.env"))

    def test_help(self) -> None:
        done = ServerProcess("--help").run()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for flag in ("--env", "--host", "--port", "--check", "--verbose"):
            self.assertIn(flag, done.stdout)


class Check(unittest.TestCase):
    def test_what_only_the_start_would_find_is_found_already(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            code, _, errors = self.check(25, STATE_DIR=f"{file.name}/state")
            self.assertEqual((code, errors.partition(":")[0]), (78, "STATE_DIR"))
        code, _, errors = self.check(25, SERVER_TLS_CERT="/no/such.pem")
        self.assertEqual((code, errors.partition(":")[0]), (78, "SERVER_TLS_CERT"))

    def check(self, port: int, **settings: Any) -> tuple[int, str, str]:
        settings = {"SERVER_PORT": 0, **settings}  # the default port may be taken
        done = ServerProcess("--check", SMTP_PORT=port, MAIL_TIMEOUT=3, **settings).run()
        self.assertNotIn("Traceback", done.stderr)
        self.assertNotIn("sandbox-secret", done.stdout + done.stderr)
        return done.returncode, done.stdout, done.stderr

    def test_a_line_for_each_step_and_nothing_sent(self) -> None:
        commands: list[str] = []
        with MailServer(on_command=commands.append) as mail:
            code, output, errors = self.check(mail.smtp_port)
            self.assertEqual((code, errors), (0, ""))
            self.assertGreaterEqual(len(output.splitlines()), 3)
            self.assertEqual(mail.messages(ADMIN), [])
        verbs = [line.split()[1].upper() for line in commands]
        self.assertEqual(verbs, ["EHLO", "AUTH", "MAIL", "RCPT", "RSET", "QUIT"])

    def test_what_fails_is_said_by_its_exit_code(self) -> None:
        self.assertEqual(self.check(refused_port())[0], 69)
        with MailServer(password="other") as mail:
            self.assertEqual(self.check(mail.smtp_port, EMAIL_PASSWORD="sandbox-secret")[0], 77)
        with MailServer(refuse=lambda _: "550 5.1.1 Nobody here") as mail:
            code, _, errors = self.check(mail.smtp_port)
            self.assertEqual(code, 1)
            self.assertIn("Nobody here", errors)
        table: dict[str, tuple[Table, int]] = {
            "greeting": ({"greeting": b"421 4.3.2 too busy\r\n"}, 69), "no mail": ({"greeting": b"554 no\r\n"}, 1),
            "AUTH": ({"EHLO": ehlo("AUTH PLAIN"), "AUTH": b"454 4.7.0 not now\r\n"}, 75),
            "MAIL": ({"MAIL": b"451 4.3.0 not now\r\n"}, 75), "RCPT": ({"RCPT": b"450 4.7.1 greylisted\r\n"}, 75),
            "lost": ({"RCPT": close}, 69),
        }  # fmt: skip
        for name, (changes, expected) in table.items():
            with self.subTest(name), ScriptedServer({**SMTP, **changes}) as scripted:
                self.assertEqual(self.check(scripted.port)[0], expected)

    def test_a_place_where_it_cannot_listen_is_named(self) -> None:
        with MailServer() as mail:
            for host in ("no-such-name.invalid", "192.0.2.1", "a..b"):
                code, output, errors = self.check(mail.smtp_port, SERVER_HOST=host, SERVER_PORT=50111)
                self.assertEqual((code, output), (78, ""))
                self.assertRegex(errors, rf"^SERVER_HOST, SERVER_PORT: cannot listen on {host}:50111 \(.+\)\n$")

    def test_a_server_that_runs_is_in_nobodys_way(self) -> None:
        with MailServer() as mail, socket.create_server(("127.0.0.1", 0)) as running:
            port = running.getsockname()[1]
            code, _, errors = self.check(mail.smtp_port, SERVER_PORT=port)
            self.assertEqual(code, 0)
            self.assertIn(f"WARNING SERVER_HOST, SERVER_PORT: cannot listen on 127.0.0.1:{port}", errors)
        with MailServer() as mail:
            self.assertEqual(self.check(mail.smtp_port, SERVER_PORT=refused_port())[2], "")

    def test_a_certificate_that_is_not_to_be_trusted_is_69(self) -> None:
        for name in ("self_signed", "wrong_host", "expired") if LONG else ("self_signed",):
            with self.subTest(name), MailServer(tls=certificates.server_context(name)) as mail:
                authority = certificates.certificates().ca
                settings = {"SMTP_HOST": "localhost", "SMTP_SECURITY": "starttls", "MAIL_CA_FILE": authority}
                self.assertEqual(self.check(mail.smtp_port, **settings)[0], 69)


class TheJob(unittest.TestCase):
    def test_one_mail_for_both_and_a_ticket(self) -> None:
        deliveries: list[tuple[str, tuple[str, ...], bytes]] = []
        with MailServer(on_delivery=lambda *delivery: deliveries.append(delivery)) as mail:
            with ServerProcess(SMTP_PORT=mail.smtp_port) as server:
                reply = exchange("127.0.0.1", server.port, Request(ALICE, "The printer\n is on fire"), timeout=10)
        self.assertEqual(reply, Reply(ticket=10_000))
        ((sender, recipients, data),) = deliveries
        self.assertEqual((sender, recipients), (ADMIN, (ALICE, ADMIN)))
        message = email.message_from_bytes(data, policy=email.policy.default)
        self.assertEqual(message["Subject"], "[Ticket #10000] Mailer")
        self.assertEqual(message.get_content(), "The printer\r\n is on fire")

    def test_numbers_go_on_after_an_orderly_end(self) -> None:
        with tempfile.TemporaryDirectory() as folder, MailServer() as mail:
            tickets = []
            for _ in range(2):
                with ServerProcess(folder=Path(folder), SMTP_PORT=mail.smtp_port) as server:
                    tickets += [self.ask(server).ticket, self.ask(server).ticket]
                    server.terminate()
                    self.assertEqual(server.wait(), 0, server.log)
        self.assertEqual(tickets, list(range(10_000, 10_004)))

    def ask(self, server: ServerProcess, address: str = ALICE, message: str = "x", **more: str) -> Reply:
        return exchange("127.0.0.1", server.port, Request(address, message, **more), timeout=10)

    def test_the_same_request_again_is_one_mail(self) -> None:
        with MailServer() as mail, ServerProcess(SMTP_PORT=mail.smtp_port) as server:
            replies = {self.ask(server, id="once") for _ in range(3)}
            other = self.ask(server, message="other", id="once")
            self.assertEqual((len(replies), len(mail.messages(ADMIN))), (1, 1))
            self.assertEqual(_code(other), "bad_request")

    def test_what_the_mail_server_refuses(self) -> None:
        def refuse(address: str) -> str | None:
            return "550 5.1.1 Nobody here\x1b[2J" if address.startswith("nobody") else None

        with MailServer(refuse=refuse) as mail, ServerProcess(SMTP_PORT=mail.smtp_port) as server:
            refused = self.ask(server, "nobody@example.com")
            self.assertEqual((_code(refused), refused.retry), ("recipient_refused", False))
            self.assertTrue(refused.problems[0].text.isprintable())
            self.assertEqual(mail.messages(ADMIN), [])
            self.assertTrue(self.ask(server).ok)

    def test_rates(self) -> None:
        with MailServer() as mail:
            settings: dict[str, Any] = {"RATE_PER_RECIPIENT": "1/hour burst 2", "RATE_PER_CLIENT": "1/hour burst 4"}
            with ServerProcess(SMTP_PORT=mail.smtp_port, **settings) as server:
                codes = [_code(self.ask(server, address)) for address in (ALICE, ALICE, ALICE, "b@b.de", "c@c.de")]
            self.assertEqual(codes, ["OK", "OK", "rate_limited", "OK", "rate_limited"])

    def test_a_password_handed_over_in_a_file(self) -> None:
        with tempfile.NamedTemporaryFile() as file, MailServer(require_login=True) as mail:
            file.write(b"sandbox\n")
            file.flush()
            with ServerProcess(SMTP_PORT=mail.smtp_port, EMAIL_PASSWORD="", EMAIL_PASSWORD_FILE=file.name) as server:
                self.assertTrue(self.ask(server).ok)

    def test_tls_and_a_token(self) -> None:
        files = certificates.certificates()
        settings: dict[str, Any] = {"SERVER_TLS_CERT": files.chain("good"), "SERVER_TLS_KEY": files.key("good"),
        "SERVER_TOKEN": "my-token"}
        with MailServer() as mail, ServerProcess(SMTP_PORT=mail.smtp_port, **settings) as server:
            trusting = client_context(files.ca)
            for token, code in ((None, "unauthorized"), ("my-toke", "unauthorized"), ("my-token", "OK")):
                request = Request(ALICE, "x", token=token)
                self.assertEqual(_code(exchange("localhost", server.port, request, timeout=10, context=trusting)), code)
            self.assertEqual(_code(self.ask(server, token="my-token")), "bad_request")
            self.assertEqual(len(mail.messages(ADMIN)), 1)

    def test_a_server_that_others_can_reach_without_tls_and_token_warns(self) -> None:
        with MailServer() as mail:
            for token, words in (("", "set SERVER_TLS_CERT and SERVER_TOKEN\n"), ("x", "set SERVER_TLS_CERT\n")):
                with ServerProcess("--host", "0.0.0.0", SMTP_PORT=mail.smtp_port, SERVER_TOKEN=token) as server:
                    self.assertIn(words, server.log + "\n")
            with ServerProcess(SMTP_PORT=mail.smtp_port) as server:
                self.assertNotIn("WARNING", server.log)


@POSIX
class TheEnd(unittest.TestCase):
    def test_requests_in_flight_are_answered_and_it_ends_with_0(self) -> None:
        held = _Held(b"250 queued\r\n")
        with ScriptedServer({**SMTP, "body": held}) as mail, ServerProcess(SMTP_PORT=mail.port) as server:
            askers = [_Asker(server.port, Request(f"a{number}@example.com", "x")) for number in range(5)]
            wait_until(lambda: held.reached == 5)
            idle = socket.create_connection(("127.0.0.1", server.port), 10)
            began = time.monotonic()
            server.terminate()
            with idle:
                # Closed if a worker had it already, told `busy` if it still waited to be accepted: ended at once.
                said = b"".join(iter(lambda: idle.recv(4096), b""))
                self.assertTrue(not said or b'"busy"' in said, said)
            wait_until(lambda: self.turned_away(server.port))
            self.assertIsNone(server.process.poll())
            held.go.set()
            self.assertEqual(server.wait(), 0, server.log)
            self.assertLess(time.monotonic() - began, 10)
            for asker in askers:
                asker.join(10)
            self.assertEqual([asker.outcome for asker in askers], ["OK"] * 5)
            self.assertIn("5 OK", server.log)
            self.assertEqual(len(mail.bodies), 5)

    def turned_away(self, port: int) -> bool:
        try:
            return _code(exchange("127.0.0.1", port, Request(ALICE, "x"), timeout=5)) == "busy"
        except TransportError:
            return True

    def test_ctrl_c_does_the_same(self) -> None:
        with MailServer() as mail, ServerProcess(SMTP_PORT=mail.smtp_port) as server:
            server.process.send_signal(signal.SIGINT)
            self.assertEqual(server.wait(5), 0)
            self.assertIn("0 requests answered", server.log)

    def test_an_ipv6_address_is_told_in_brackets(self) -> None:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            self.skipTest("there is no IPv6 here")
        with ServerProcess("--host", "::1", SMTP_PORT=refused_port()) as server:
            self.assertIn(f"listening on [::1]:{server.port}", server.log)

    def test_a_second_signal_ends_at_once(self) -> None:
        held = _Held(b"250 queued\r\n")
        with ScriptedServer({**SMTP, "body": held}) as mail, ServerProcess(SMTP_PORT=mail.port) as server:
            asker = _Asker(server.port, Request(ALICE, "x"))
            wait_until(lambda: held.reached)
            server.terminate()
            wait_until(lambda: self.turned_away(server.port))
            began = time.monotonic()
            server.terminate()
            self.assertEqual(server.wait(5), 128 + signal.SIGTERM)
            self.assertLess(time.monotonic() - began, 2)
            held.go.set()
            asker.join(10)

    @unittest.skipUnless(LONG, "takes ten seconds: MAILER_LONG=1")
    def test_a_mail_server_that_hangs_does_not_hold_up_the_end(self) -> None:
        held = _Held(b"250 queued\r\n")
        with ScriptedServer({**SMTP, "body": held}) as mail, ServerProcess(SMTP_PORT=mail.port) as server:
            asker = _Asker(server.port, Request(ALICE, "x"))
            wait_until(lambda: held.reached)
            began = time.monotonic()
            server.terminate()
            self.assertEqual(server.wait(12), 0)
            self.assertLess(time.monotonic() - began, 10)
            held.go.set()
            asker.join(10)

    def test_what_waits_for_a_slow_mail_server_at_the_end_is_not_begun(self) -> None:
        def accept_slowly(conversation: Conversation) -> None:
            time.sleep(0.3)
            conversation.send(b"250 accepted\r\n")

        with ScriptedServer({**SMTP, "body": accept_slowly}) as mail:
            server = ServerProcess(SMTP_PORT=mail.port, SMTP_SESSIONS=1)
            program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import server; from mailer import desk; "
            grace = "desk._GRACE, desk._LAST_DELIVERIES = 3.0, 2.0; "
            server.command[1:2] = ["-c", program + grace + "sys.exit(server.main(sys.argv[1:]))"]
            with server:
                askers = [_Asker(server.port, Request(ALICE, "x")) for _ in range(16)]
                wait_until(lambda: len(mail.bodies) > 1)
                server.terminate()
                self.assertEqual(server.wait(), 0)
                for asker in askers:
                    asker.join(10)
                self.assertEqual({asker.outcome for asker in askers}, {"OK", "busy"})
                self.assertEqual([asker.outcome for asker in askers].count("OK"), len(mail.bodies))

    def test_what_a_mail_server_has_not_answered_at_the_last_moment_is_told_as_it_is(self) -> None:
        table: dict[str, tuple[Table, Callable[[ScriptedServer], int], str]] = {
            "greeting": ({"greeting": hang}, lambda mail: len(mail.conversations), "mail_unavailable"),
            "handshake": ({"greeting": hang}, lambda mail: len(mail.conversations), "mail_unavailable"),
            "login": ({"EHLO": hang}, lambda mail: len(mail.lines), "mail_unavailable"),
            "recipients": ({"RCPT": hang}, lambda mail: b"".join(mail.lines).count(b"MAIL"), "mail_unavailable"),
            "message": ({"body": hang}, lambda mail: len(mail.bodies), "delivery_uncertain"),
        }
        for name, (changes, reached, expected) in table.items():
            with self.subTest(name), ScriptedServer({**SMTP, **changes}) as mail:
                security = "tls" if name == "handshake" else "plain"
                server = ServerProcess(SMTP_PORT=mail.port, SMTP_SESSIONS=2, SMTP_SECURITY=security)
                program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import server; from mailer import desk; "
                server.command[1:2] = ["-c", program + "desk._GRACE = 1.5; sys.exit(server.main(sys.argv[1:]))"]
                with server:
                    askers = [_Asker(server.port, Request(ALICE, "x")) for _ in range(5)]
                    wait_until(lambda mail=mail, reached=reached: reached(mail) == 2)  # type: ignore[misc]
                    server.terminate()
                    self.assertEqual(server.wait(), 0)
                    for asker in askers:
                        asker.join(10)
                    outcomes = [asker.outcome for asker in askers]
                    self.assertGreaterEqual(outcomes.count(expected), 2)
                    self.assertLessEqual(set(outcomes), {expected, "mail_unavailable", "busy"})
                    self.assertNotIn("given up", server.log)


class Injection(unittest.TestCase):
    """What goes over the wire to the mail server, whatever a request holds."""

    ADDRESSES = (
        "a@b.com>\r\nRCPT TO:<evil@example.com", "a@b.com\r\nRCPT TO:<evil@example.com>", "a@b.com\nDATA",
        "a@b.com\rRSET",
        "a@b.com> NOTIFY=SUCCESS ORCPT=rfc822;x", "a@b.com> SIZE=1", "<a@b.com>,<evil@example.com>",
        "a@b.com,evil@example.com",
        "a@b.com\0", "a@b.com\r\n.\r\nMAIL FROM:<evil@example.com>", '"a\r\nRSET"@b.com',
        "a@b.com\u2028RCPT TO:<evil@example.com>",
        "@evil.example,@b.com:a@b.com", "a@b.com\r\n\r\nQUIT", "=?utf-8?q?evil=40example.com=3E?=@b.com",
        "a@b.com\udc0d\udc0a",
    )  # fmt: skip
    MESSAGES = (
        ".", "..", ".\n", "\n.\n", "a\n.\nb",
        "a\r\n.\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<evil@example.com>\r\nDATA\r\nx\r\n.\r\n",
        "a\n.\r\nRSET", "a\r.\rRSET", "a\r.\r\nRSET", "a\n.\rRSET", "a\r\n.\nRSET", "a\r\r\n.\r\r\nRSET",
        "\r\n\r\n.\r\n\r\n.",
        "Bcc: evil@example.com\nSubject: other\n\nx", "QUIT\r\nRSET", "x" * 5000 + "\r\n.\r\n",
        "trailing \t \nblanks  ",
        "--\nboundary\n--", "From evil\n>From", "😀.\n.\n😀", "\u2028.\u2028QUIT", "=0D=0A.=0D=0A",
    )  # fmt: skip

    def test_nothing_adds_a_command_a_recipient_a_parameter_or_a_header(self) -> None:
        commands: list[str] = []
        deliveries: list[tuple[str, tuple[str, ...], bytes]] = []
        with MailServer(on_command=commands.append, on_delivery=lambda *d: deliveries.append(d)) as mail:
            with ServerProcess("--verbose", SMTP_PORT=mail.smtp_port) as server:
                for address in self.ADDRESSES:
                    with self.subTest(ascii(address)):
                        payload = {"email": address, "message": "x"}
                        self.assertEqual(_code(_ask_raw(server.port, payload)), "email_invalid")
                self.assertEqual(commands, [])
                for text in self.MESSAGES:
                    with self.subTest(ascii(text[:60])):
                        self.assertTrue(exchange("127.0.0.1", server.port, Request(ALICE, text), timeout=10).ok)
                        self.assert_mail(deliveries.pop(), text.replace("\r\n", "\n").replace("\r", "\n"))
                log = server.lines
        mailbox = f"({ADMIN}|{ALICE})"
        allowed = re.compile(
            rf"SMTP (EHLO \S+|AUTH PLAIN \S+|MAIL FROM:<{ADMIN}>( SIZE=\d+)?( BODY=8BITMIME)?|RCPT TO:<{mailbox}>"
            r"|DATA|NOOP|QUIT)",
            re.IGNORECASE,
        )
        self.assertEqual([line for line in commands if not allowed.fullmatch(line)], [])
        self.assertEqual(Counter(line.split()[1] for line in commands)["RCPT"], 2 * len(self.MESSAGES))
        stamped = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
        self.assertEqual([line for line in log if not stamped.match(line) or not line.isprintable()], [])

    def assert_mail(self, delivery: tuple[str, tuple[str, ...], bytes], text: str) -> None:
        sender, recipients, data = delivery
        self.assertEqual((sender, recipients), (ADMIN, (ALICE, ADMIN)))
        message = email.message_from_bytes(data, policy=email.policy.default)
        self.assertEqual(message.get_content().replace("\r\n", "\n"), text)
        self.assertEqual(
            message.keys(),
            ["From", "To", "Cc", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
             "Content-Transfer-Encoding"],
        )  # fmt: skip
        self.assertRegex(message["Subject"], r"\A\[Ticket #\d+\] Mailer\Z")

    def test_the_bytes_after_data_end_with_the_one_final_dot(self) -> None:
        with ScriptedServer(SMTP) as mail, ServerProcess(SMTP_PORT=mail.port) as server:
            for text in self.MESSAGES:
                self.assertTrue(exchange("127.0.0.1", server.port, Request(ALICE, text), timeout=10).ok)
            bodies = mail.bodies
        self.assertEqual(len(bodies), len(self.MESSAGES))
        for body in bodies:
            self.assertEqual(body.count(b"\n"), body.count(b"\r\n"))
            self.assertEqual(body.count(b"\r"), body.count(b"\r\n"))
            self.assertFalse([line for line in body.split(b"\r\n") if line.startswith(b".")])


def _ask_raw(port: int, content: dict[str, str]) -> Reply:
    """Ask with what our own client would not encode."""
    payload = json.dumps(content).encode()
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(len(payload).to_bytes(4, "big") + payload)
        return decode_reply(Connection(sock, 10).receive() or b"")


class Secrets(unittest.TestCase):
    def test_no_secret_is_in_any_log_or_argument(self) -> None:
        secrets: dict[str, Any] = {"EMAIL_PASSWORD": "sesame-of-the-mailbox", "SERVER_TOKEN": "sesame-of-the-server"}
        tables: tuple[Table, ...] = (SMTP, {**SMTP, "AUTH": b"535 5.7.8 no: sesame\r\n"}, {**SMTP,
        "AUTH": b"garbage\r\n"},
                  {**SMTP, "EHLO": ehlo("AUTH LOGIN"), "AUTH": b"334 VXNlcm5hbWU6\r\n", "response": [b"334 x\r\n",
                  b"535 no\r\n"]})  # fmt: skip
        for number, table in enumerate(tables):
            with self.subTest(number), ScriptedServer(table) as mail:
                with ServerProcess("--verbose", SMTP_PORT=mail.port, MAIL_TIMEOUT=3, **secrets) as server:
                    for token in (secrets["SERVER_TOKEN"], "sesame-that-is-wrong"):
                        exchange("127.0.0.1", server.port, Request(ALICE, "sesame-of-the-message", token=token),
                        timeout=20)
                    _ask_raw(server.port, {"email": "x", "token": secrets["SERVER_TOKEN"]})
                    arguments = " ".join(server.command)
                    server.terminate()
                    server.wait()
                    log = server.log.replace("535 5.7.8 no: sesame", "")
                    for form in ("sesame", "c2VzYW1l", "AHNlc2FtZ", "zZXNhbW"):  # and in base64
                        self.assertNotIn(form, log + arguments)
                    self.assertNotIn("Traceback", log)


@POSIX
class TokenCommand(unittest.TestCase):
    def server(self, folder: Path, mail: ScriptedServer, **settings: object) -> ServerProcess:
        """A server whose command for tokens hangs, with a child of its own; both write to a pipe, and keep it open."""
        command, pipe = folder / "hangs.py", folder / "pipe"
        command.write_text("import os, sys, time\nos.fork()\n"
                           "os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')\ntime.sleep(60)\n")
        os.mkfifo(pipe)
        settings |= {"EMAIL_AUTH": "oauth2", "EMAIL_TOKEN_COMMAND": f"{sys.executable} {command} {pipe}"}
        return ServerProcess(folder=folder, SMTP_PORT=mail.port, **settings)

    def test_one_that_hangs_is_ended_with_the_server_and_its_request_answered(self) -> None:
        with ScriptedServer({**SMTP, "EHLO": ehlo("AUTH XOAUTH2")}) as mail, tempfile.TemporaryDirectory() as folder:
            server = self.server(Path(folder), mail)
            program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import server; from mailer import desk; "
            server.command[1:2] = ["-c", program + "desk._GRACE = 1.0; sys.exit(server.main(sys.argv[1:]))"]
            with server, os.fdopen(os.open(Path(folder) / "pipe", os.O_RDONLY | os.O_NONBLOCK), "rb", 0) as pipe:
                asker = _Asker(server.port, Request(ALICE, "x"))
                written = b""
                while len(written) < 2:  # both run
                    select.select([pipe], [], [], 10)
                    written += pipe.read(1) or b""
                server.terminate()
                self.assertEqual(server.wait(), 0)
                asker.join(10)
                self.assertEqual(asker.outcome, "mail_unavailable")
                self.assertNotIn("given up", server.log)
                self.assertEqual(select.select([pipe], [], [], 5)[0], [pipe])
                self.assertEqual(pipe.read(1), b"")  # nobody holds its other end

    def test_one_that_hangs_is_ended_with_a_check(self) -> None:
        for ending in (signal.SIGTERM, signal.SIGHUP):
            with (
                self.subTest(ending.name),
                ScriptedServer({**SMTP, "EHLO": ehlo("AUTH XOAUTH2")}) as mail,
                tempfile.TemporaryDirectory() as folder,
            ):
                server = self.server(Path(folder), mail)
                process = subprocess.Popen([*server.command, "--check"], env=environment(), stdout=subprocess.DEVNULL)
                with os.fdopen(os.open(Path(folder) / "pipe", os.O_RDONLY | os.O_NONBLOCK), "rb", 0) as pipe:
                    self.assertEqual(select.select([pipe], [], [], 10)[0], [pipe])
                    process.send_signal(ending)
                    self.assertEqual(process.wait(10), 130)
                    pipe.read(2)
                    self.assertEqual(select.select([pipe], [], [], 5)[0], [pipe])
                    self.assertEqual(pipe.read(1), b"")  # nobody holds its other end

    def test_one_that_hangs_is_waited_for_as_long_as_the_mail_server(self) -> None:
        with ScriptedServer({**SMTP, "EHLO": ehlo("AUTH XOAUTH2")}) as mail, tempfile.TemporaryDirectory() as folder:
            server = self.server(Path(folder), mail, MAIL_TIMEOUT=0.5)
            with server, os.fdopen(os.open(Path(folder) / "pipe", os.O_RDONLY | os.O_NONBLOCK), "rb", 0):
                began = time.monotonic()
                reply = exchange("127.0.0.1", server.port, Request(ALICE, "x"), timeout=40)
                self.assertEqual(_code(reply), "mail_unavailable")
                wait_until(lambda: "EMAIL_TOKEN_COMMAND did not end in time" in server.log)
                self.assertLess(time.monotonic() - began, 10)


@POSIX
class LostLog(unittest.TestCase):
    def test_it_ends_as_it_would_have_with_its_log(self) -> None:
        reading, broken = os.pipe()
        os.close(reading)
        descriptors = [broken, *[os.open(name, os.O_WRONLY) for name in ("/dev/full",) if Path(name).exists()]]
        for descriptor in descriptors:
            self.addCleanup(os.close, descriptor)
            with self.subTest(descriptor), tempfile.TemporaryDirectory() as folder, MailServer() as mail:
                port = refused_port()
                command = ServerProcess("--port", str(port), folder=Path(folder), SMTP_PORT=mail.smtp_port).command
                process = subprocess.Popen(command, stderr=descriptor, env=environment())
                self.addCleanup(process.kill)
                wait_until(lambda port=port: self.listens(port))  # type: ignore[misc]
                self.assertTrue(exchange("127.0.0.1", port, Request(ALICE, "x"), timeout=10).ok)
                process.terminate()
                self.assertEqual(process.wait(15), 0)

    def test_a_terminal_whose_other_end_sleeps_stops_nobody(self) -> None:
        asleep, terminal = os.openpty()
        self.addCleanup(os.close, asleep)
        self.addCleanup(os.close, terminal)
        with tempfile.TemporaryDirectory() as folder, ScriptedServer(SMTP) as mail:
            port = refused_port()
            off = {"RATE_PER_CLIENT": "off", "RATE_PER_RECIPIENT": "off"}
            command = ServerProcess("--port", str(port), folder=Path(folder), SMTP_PORT=mail.port, **off).command
            process = subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment())
            self.addCleanup(process.kill)
            wait_until(lambda: self.listens(port))
            for _ in range(600):
                self.assertTrue(exchange("127.0.0.1", port, Request(ALICE, "x"), timeout=10).ok)
            process.terminate()
            self.assertEqual(process.wait(15), 0)

    def listens(self, port: int) -> bool:
        with socket.socket() as sock:
            return not sock.connect_ex(("127.0.0.1", port))


class UnderLoad(unittest.TestCase):
    def test_kill_9_under_load_and_two_servers_on_one_folder_repeat_no_ticket(self) -> None:
        dice = random.Random(20261122)
        deliveries: list[tuple[tuple[str, ...], int]] = []

        def on_delivery(sender: str, recipients: tuple[str, ...], data: bytes) -> None:
            message = email.message_from_bytes(data, policy=email.policy.default)
            deliveries.append((recipients, recognise(str(message["Subject"])) or 0))

        promised: list[int] = []
        with tempfile.TemporaryDirectory() as folder, MailServer(on_delivery=on_delivery) as mail:
            home = Path(folder)
            (home / "second").mkdir()
            shared = {"SMTP_PORT": mail.smtp_port, "STATE_DIR": home / "state"}
            with ServerProcess(folder=home / "second", **shared) as steady, _Load(steady.port, promised) as load:
                for _ in range(30 if LONG else 2):
                    with ServerProcess(folder=home, **shared) as victim, _Load(victim.port, promised):
                        enough = len(promised) + 20
                        wait_until(lambda enough=enough: len(promised) > enough, 30)  # type: ignore[misc]
                        time.sleep(dice.random() * 0.1)
                        victim.process.kill()
                        victim.process.wait()
                load.finish()
        tickets = [ticket for _, ticket in deliveries]
        self.assertEqual([ticket for ticket, count in Counter(tickets).items() if count > 1], [])
        self.assertEqual([ticket for ticket, count in Counter(promised).items() if count > 1], [])
        self.assertLessEqual(set(promised), set(tickets))
        self.assertEqual({len(recipients) for recipients, _ in deliveries}, {2})

    @unittest.skipUnless(Path("/proc/self/status").exists(), "needs /proc")
    def test_nothing_leaks(self) -> None:
        count = 100_000 if LONG else 2_000
        with ScriptedServer(SMTP) as mail, ServerProcess(SMTP_PORT=mail.port, SERVER_WORKERS=32) as server:
            self.ask(server.port, 1_000)
            mail.conversations[0].bodies.clear()
            before = self.used(server)
            self.ask(server.port, count)
            after = self.used(server)
        self.assertLessEqual(after["fds"], before["fds"] + 4)
        self.assertLessEqual(after["threads"], before["threads"])
        self.assertLess(after["rss"] - before["rss"], 8_000, (before, after))  # kB

    def ask(self, port: int, count: int) -> None:
        def run() -> None:
            for _ in range(count // 40):
                with socket.create_connection(("127.0.0.1", port), 30) as sock:
                    connection = Connection(sock, 30)
                    for number in range(10):
                        connection.send(encode_request(Request(ALICE, "x" * 100,
                        f"{id(sock)}-{number}-{random.random()}")))
                        answered.append(decode_reply(connection.receive() or b"").ok)

        answered: list[bool] = []
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((len(answered), all(answered)), (count, True))

    def used(self, server: ServerProcess) -> dict[str, int]:
        process = Path(f"/proc/{server.process.pid}")
        status = process.joinpath("status").read_text()
        numbers = {name: int(number) for name, number in re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE)}
        return {"rss": numbers["VmRSS"], "threads": numbers["Threads"], "fds": len(list((process / "fd").iterdir()))}


    @unittest.skipUnless(sys.platform.startswith("linux"), "needs prlimit")
    def test_idlers_cannot_keep_users_out_where_descriptors_run_out_before_workers(self) -> None:
        import resource

        with MailServer() as mail, ServerProcess(SMTP_PORT=mail.smtp_port) as server, contextlib.ExitStack() as crowd:
            self.assertTrue(exchange("127.0.0.1", server.port, Request(ALICE, "x"), timeout=10).ok)
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (64, 64))
            for _ in range(200):
                crowd.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            began = time.monotonic()
            self.assertTrue(exchange("127.0.0.1", server.port, Request(ALICE, "x"), timeout=30).ok)
            self.assertLess(time.monotonic() - began, 3)
            self.assertEqual(server.log.count("Too many open files"), 1)

    @unittest.skipUnless(sys.platform.startswith("linux"), "needs a limit on memory that threads count for")
    def test_where_few_threads_can_run_fewer_serve(self) -> None:
        with MailServer() as mail, contextlib.ExitStack() as crowd:
            server = ServerProcess(SMTP_PORT=mail.smtp_port)
            server.command = ["sh", "-c", 'ulimit -v 600000; exec "$@"', "sh", *server.command]
            with server:
                few = re.compile(r"only \d+ threads can run, not 256: set a smaller SERVER_WORKERS")
                wait_until(lambda: few.search(server.log))
                for _ in range(200):
                    crowd.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
                for _ in range(10):
                    self.assertTrue(exchange("127.0.0.1", server.port, Request(ALICE, "x"), timeout=30).ok)
                server.terminate()
                self.assertEqual(server.wait(), 0)

    @POSIX
    def test_where_few_files_may_be_open_fewer_are_served_at_once(self) -> None:
        with MailServer() as mail, contextlib.ExitStack() as crowd:
            server = ServerProcess(SMTP_PORT=mail.smtp_port)
            server.command = ["sh", "-c", 'ulimit -n 100; exec "$@"', "sh", *server.command]
            with server:
                for _ in range(200):
                    crowd.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
                for _ in range(20):
                    self.assertTrue(exchange("127.0.0.1", server.port, Request(ALICE, "x"), timeout=30).ok)
                self.assertIn("only 100 files may be open, not 336", server.log)
                self.assertNotIn("Too many open files", server.log)


class _Load:
    """Four who ask without pause and note the tickets they were promised, until the server is gone or `finish`."""

    def __init__(self, port: int, promised: list[int]) -> None:
        self._port, self._promised = port, promised
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self) -> "_Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        with contextlib.suppress(TransportError):
            while not self._done.is_set():
                reply = exchange("127.0.0.1", self._port, Request(ALICE, "x"), timeout=20)
                if reply.ticket is not None:
                    self._promised.append(reply.ticket)
