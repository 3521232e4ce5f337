"""From an address to an IMAP session: TLS, and one login, with nothing secret in clear and nothing stripped."""

import base64
import logging
import re
import ssl
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any

from mailer.errors import ExitCode, LoginError, MailboxError
from mailer.imap import Mailbox
from mailer.sandbox.mail import MailServer
from mailer.sasl import Login, password_login
from mailer.settings import Endpoint, Security
from mailer.tls import client_context
from tests.support.certificates import certificates, server_context
from tests.support.scripted import Conversation, ScriptedServer, close, hang, start_tls
from tests.test_imap import IMAP

USER, PASSWORD = "helpdesk@example.com", "s3cret-pass"
UNTRUSTING = client_context(None)
TLS_CAPABLE = b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n%tag% OK done\r\n"


def capable(*names: str) -> bytes:
    return f"* CAPABILITY IMAP4rev1 {' '.join(names)}\r\n%tag% OK done\r\n".encode()


def later(_: Conversation) -> None:
    time.sleep(0.1)


class LoginCase(unittest.TestCase):
    def open(
        self, port: int, *, login: Login | None = None, security: Security = Security.PLAIN,
        context: ssl.SSLContext = UNTRUSTING, host: str = "localhost",
    ) -> Mailbox:
        login = login or Login(USER, lambda _: PASSWORD)
        box = Mailbox(Endpoint(host, port, security), login, "INBOX", context=context, timeout=5.0)
        self.addCleanup(box.close)
        box.open()
        return box

    def failure(self, action: Callable[[], object]) -> MailboxError:
        with self.assertRaises(MailboxError) as raised:
            action()
        return raised.exception


class Logins(LoginCase):
    """What goes over the wire for each set of offered mechanisms."""

    def said(self, login: Login, *tables: dict[str, Any]) -> list[bytes]:
        """What the client sends before SELECT, but for CAPABILITY: some versions of imaplib ask again after a login."""
        with ScriptedServer(*({**IMAP, **table} for table in tables), imap=True) as server:
            self.open(server.port, login=login)
            lines = [re.sub(rb"^[A-Z]{4}\d+ ", b"", line) for line in server.lines]
        self.assertEqual(lines[0], b"CAPABILITY\r\n")
        return [line for line in lines[:-1] if line != b"CAPABILITY\r\n"]

    def test_mechanisms(self) -> None:
        plain = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()) + b"\r\n"
        user, password = (base64.b64encode(text.encode()) + b"\r\n" for text in (USER, PASSWORD))
        table: list[tuple[tuple[str, ...], list[bytes]]] = [
            (("AUTH=PLAIN",), [b"AUTHENTICATE PLAIN\r\n", plain]),
            (("AUTH=LOGIN", "AUTH=PLAIN", "AUTH=CRAM-MD5"), [b"AUTHENTICATE PLAIN\r\n", plain]),
            (("AUTH=LOGIN",), [b"AUTHENTICATE LOGIN\r\n", user, password]),
            (("AUTH=CRAM-MD5", "AUTH=XOAUTH2"), [b'LOGIN "helpdesk@example.com" "s3cret-pass"\r\n']),
            ((), [b'LOGIN "helpdesk@example.com" "s3cret-pass"\r\n']),
        ]
        for offered, expected in table:
            done = b"%tag% OK welcome\r\n"
            with self.subTest(offered):
                responses = done if "AUTH=PLAIN" in offered else [b"+ UGFzc3dvcmQ6\r\n", done]
                changes = {"CAPABILITY": capable(*offered), "response": responses}
                self.assertEqual(self.said(Login(USER, lambda _: PASSWORD), changes), expected)

    def test_passwords_of_any_characters(self) -> None:
        for password in ("пароль", 'p"a\\s s', "line\r\nend", "😀"):
            encoded = base64.b64encode(f"\0{USER}\0{password}".encode()) + b"\r\n"
            with self.subTest(password):
                self.assertEqual(self.said(Login(USER, lambda _, password=password: password), {})[1], encoded)  # type: ignore[misc]
        literal = {"CAPABILITY": capable(), "LOGIN": b"+ go on\r\n"}
        table = {"пароль": (b"{12}\r\n", "пароль\r\n".encode()), "a\tb": (b"{3}\r\n", b"a\tb\r\n")}
        for password, (length, line) in table.items():
            with self.subTest("LOGIN", password=password):
                login = Login(USER, lambda _, password=password: password)  # type: ignore[misc]
                self.assertEqual(self.said(login, literal), [b'LOGIN "helpdesk@example.com" ' + length, line])
        quoted = Login(USER, lambda _: 'p"a\\s s')
        self.assertEqual(
            self.said(quoted, {"CAPABILITY": capable()}), [b'LOGIN "helpdesk@example.com" "p\\"a\\\\s s"\r\n']
        )

    def test_a_client_says_its_name_where_that_is_asked_for(self) -> None:
        changes = {"CAPABILITY": capable("AUTH=PLAIN", "ID"), "ID": b"%tag% OK done\r\n"}
        said = self.said(Login(USER, lambda _: PASSWORD), changes)
        self.assertEqual(said[-1], b'ID ("name" "Mailer")\r\n')

    def test_refusals(self) -> None:
        refused, unavailable, later = ExitCode.LOGIN_REFUSED, ExitCode.UNAVAILABLE, ExitCode.TEMPORARY
        no_password = {"CAPABILITY": capable("LOGINDISABLED", "AUTH=CRAM-MD5")}
        table: dict[str, tuple[dict[str, Any], ExitCode, str]] = {
            "wrong": ({"response": b"%tag% NO [AUTHENTICATIONFAILED] no\r\n"}, refused, "AUTHENTICATIONFAILED"),
            "bad": ({"AUTHENTICATE": b"%tag% BAD what\r\n"}, refused, "what"),
            "later": ({"response": b"%tag% NO [UNAVAILABLE] try later\r\n"}, later, "try later"),
            "Gmail": ({"response": b"%tag% NO [ALERT] Too many simultaneous connections.\r\n"}, later, "simul"),
            "Microsoft": ({"response": b"%tag% BAD User is authenticated but not connected.\r\n"}, later, "User"),
            "gone": ({"greeting": b"* BYE too busy\r\n"}, unavailable, ": * BYE too busy"),
            "no mechanism": (no_password, refused, "offers no password login"),
            "endless challenges": ({"response": b"+ bW9yZQ==\r\n"}, unavailable, "asking"),
            "closed": ({"response": close}, unavailable, "closed"),
        }
        for name, (changes, code, words) in table.items():
            with self.subTest(name), ScriptedServer({**IMAP, **changes}, imap=True) as server:
                failure = self.failure(lambda server=server: self.open(server.port))  # type: ignore[misc]
                self.assertIs(failure.exit_code, code)
                self.assertIn(words, str(failure))
                self.assertNotIn(PASSWORD, str(failure) + repr(failure))
                self.assertLessEqual(sum(b"AUTHENTICATE" in line or b"LOGIN" in line for line in server.lines), 1)

    def test_a_server_that_repeats_what_it_was_told_is_not_quoted_word_for_word(self) -> None:
        first = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
        encoded = base64.b64encode(PASSWORD.encode())
        table: list[dict[str, Any]] = [
            {"CAPABILITY": capable(), "LOGIN": b"%tag% NO [ALERT] wrong: " + PASSWORD.encode() + b"\r\n"},
            {"CAPABILITY": capable(), "LOGIN": b"%tag% BAD wrong: " + PASSWORD.encode() + b"\r\n"},
            {"CAPABILITY": capable("AUTH=PLAIN"), "response": b"%tag% NO wrong: " + first + b"\r\n"},
            {"CAPABILITY": capable("AUTH=LOGIN"), "response": [b"+ \r\n", b"%tag% NO wrong: " + encoded + b"\r\n"]},
        ]
        for changes in table:
            with self.subTest(changes), ScriptedServer({**IMAP, **changes}, imap=True) as server:
                words = str(self.failure(lambda server=server: self.open(server.port)))  # type: ignore[misc]
                self.assertIn("wrong: …", words)
                for secret in (PASSWORD, first.decode(), encoded.decode()):
                    self.assertNotIn(secret, words)

    def test_no_password_is_repeated_whatever_its_characters_and_the_kind_of_answer(self) -> None:
        for password in (PASSWORD, 'pa"ss\\wo rd', "pässwörd", "  lead  trail  ", "пароль"):
            for kind in (b"%tag% NO", b"%tag% BAD", b"* BYE", b"nonsense", b"* LIST {x}"):

                def answer(conversation: Conversation, kind: bytes = kind) -> None:
                    line = conversation.lines[-1].rstrip()
                    if line.endswith(b"}"):
                        return conversation.send(b"+ go on\r\n")
                    conversation.send(b"%b you said %b\r\n" % (kind, line.partition(b" LOGIN ")[2] or line))
                    return close(conversation)

                changes: dict[str, Any] = {"CAPABILITY": capable(), "LOGIN": answer, "response": answer}
                with self.subTest(password, kind=kind), ScriptedServer({**IMAP, **changes}, imap=True) as server:
                    login = Login(USER, lambda _, password=password: password)  # type: ignore[misc]
                    words = str(self.failure(lambda login=login, port=server.port: self.open(port, login=login)))  # type: ignore[misc]
                    for part in re.split(r"\W+", password.strip()):
                        self.assertNotIn(part, words)
                    self.assertEqual("said" in words, "…" in words, words)

    def test_no_secret_is_repeated_after_the_login(self) -> None:
        plain = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
        told = b" you said " + PASSWORD.encode() + b" or " + plain + b"\r\n"
        for kind in (b"%tag% NO", b"%tag% NO [UNAVAILABLE]", b"%tag% BAD", b"* BYE"):
            for key in ("greeting", "CAPABILITY", "ID", "SELECT", "UID SEARCH", "UID FETCH", "UID STORE"):
                changes: dict[str, Any] = {"CAPABILITY": capable("AUTH=PLAIN", "ID"), "ID": b"%tag% OK\r\n"}
                changes[key] = (kind + told, close) if kind == b"* BYE" else kind + told
                with self.subTest(key, kind=kind), ScriptedServer({**IMAP, **changes}, imap=True) as server:
                    login = password_login(USER, PASSWORD)
                    with self.assertLogs(level="DEBUG") as logged:
                        logging.getLogger().info("begin")
                        try:
                            box = self.open(server.port, login=login)
                            list(box.fetch(box.since(1), lambda _: False))
                            box.mark([9])
                        except MailboxError as failure:
                            logging.getLogger().info("%s", failure)
                    for secret in (PASSWORD, plain.decode()):
                        self.assertNotIn(secret, "\n".join(logged.output))

    def test_nothing_that_was_sent_is_kept(self) -> None:
        with ScriptedServer({**IMAP, "CAPABILITY": capable()}, imap=True) as server:
            box = self.open(server.port)
            self.assertNotIn(PASSWORD, repr(vars(box._wire)))

    def test_an_access_token_that_is_refused_is_renewed_once(self) -> None:
        asked: list[bool] = []

        def token(fresh: bool) -> str:
            asked.append(fresh)
            return "new" if fresh else "old"

        def check(conversation: Conversation) -> None:
            answer = base64.b64decode(conversation.lines[-1])
            good = b"%tag% OK in\r\n" if b"Bearer new" in answer else b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n"
            if answer in (b"", b"\1"):
                good = b"%tag% NO refused\r\n"
            conversation.send(good)

        for mechanism in ("XOAUTH2", "OAUTHBEARER"):
            asked.clear()
            changes: dict[str, Any] = {"CAPABILITY": capable(f"AUTH={mechanism}"), "response": check}
            with self.subTest(mechanism), ScriptedServer({**IMAP, **changes}, imap=True) as server:
                self.open(server.port, login=Login(USER, token, oauth=True))
                self.assertEqual(asked, [False, True])

    def test_a_token_refused_twice_tells_the_reason_and_no_token(self) -> None:
        changes: dict[str, Any] = {
            "CAPABILITY": capable("AUTH=XOAUTH2", "AUTH=PLAIN"),
            "response": [b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n", b"%tag% NO refused\r\n"] * 2,
        }
        with ScriptedServer({**IMAP, **changes}, imap=True) as server:
            login = Login(USER, lambda _: "T0KEN", oauth=True)
            failure = self.failure(lambda: self.open(server.port, login=login))
        self.assertIs(failure.exit_code, ExitCode.LOGIN_REFUSED)
        self.assertIn('{"status":"400"}', str(failure))
        self.assertNotIn("T0KEN", str(failure))

    def test_no_token_is_no_login(self) -> None:
        for temporary, code in ((True, ExitCode.UNAVAILABLE), (False, ExitCode.LOGIN_REFUSED)):

            def secret(_: bool, temporary: bool = temporary) -> str:
                raise LoginError("the provider says no", temporary=temporary)

            login = Login(USER, secret, oauth=True)
            capability = capable("AUTH=XOAUTH2")
            with self.subTest(code), ScriptedServer({**IMAP, "CAPABILITY": capability}, imap=True) as server:
                failure = self.failure(lambda: self.open(server.port, login=login))  # noqa: B023
                self.assertIs(failure.exit_code, code)
                self.assertIn("the provider says no", str(failure))


class Tls(LoginCase):
    def setUp(self) -> None:
        self.trusting = client_context(certificates().ca)

    def server(self, **settings: Any) -> MailServer:
        server = MailServer(password=PASSWORD, **settings)
        server.start()
        self.addCleanup(server.stop)
        return server

    def test_tls_and_starttls_with_a_trusted_certificate(self) -> None:
        for security in (Security.TLS, Security.STARTTLS):
            server = self.server(tls=server_context(), implicit_tls=security is Security.TLS)
            for host in ("localhost", "127.0.0.1"):
                with self.subTest(security, host=host):
                    self.open(server.imap_port, security=security, context=self.trusting, host=host)

    def test_certificates_that_are_not_to_be_trusted_are_told_apart(self) -> None:
        table = {"self_signed": "self-signed", "wrong_host": "not valid for 'localhost'", "expired": "expired"}
        for security in (Security.TLS, Security.STARTTLS):
            for name, words in table.items():
                commands: list[str] = []
                server = self.server(
                    tls=server_context(name), implicit_tls=security is Security.TLS, on_command=commands.append
                )
                with self.subTest(security, certificate=name):
                    failure = self.failure(
                        lambda: self.open(server.imap_port, security=security, context=self.trusting)  # noqa: B023
                    )
                    self.assertIs(failure.exit_code, ExitCode.UNAVAILABLE)
                    self.assertIn(words, str(failure))
                    self.assertRegex(str(failure), r"\Athe certificate of localhost\S* is not to be trusted: ")
                    self.assertFalse(any("AUTH" in command or "LOGIN" in command for command in commands))

    def test_a_server_without_tls_is_told_as_the_other_script_does(self) -> None:
        with ScriptedServer({**IMAP, "greeting": b"* OK " + b"hello " * 10 + b"\r\n"}, imap=True) as server:
            failure = self.failure(lambda: self.open(server.port, security=Security.TLS, context=self.trusting))
        self.assertRegex(str(failure), r"\ATLS with \S+ failed \(the other side goes on in clear\)\Z")

    def test_starttls_is_never_stripped(self) -> None:
        tls = server_context()
        injected = b"%tag% OK go\r\n* OK injected\r\n"
        table: dict[str, tuple[dict[str, Any], str]] = {
            "not offered": ({"CAPABILITY": capable("AUTH=PLAIN")}, "offers no STARTTLS"),
            "refused": ({"CAPABILITY": TLS_CAPABLE, "STARTTLS": b"%tag% NO not now\r\n"}, "refuses STARTTLS"),
            "not known": ({"CAPABILITY": TLS_CAPABLE, "STARTTLS": b"%tag% BAD what\r\n"}, "refuses STARTTLS"),
            "goes on in clear": ({"CAPABILITY": TLS_CAPABLE, "STARTTLS": (b"%tag% OK go\r\n", later, b"* OK\r\n")}, ""),
            "injected": ({"CAPABILITY": TLS_CAPABLE, "STARTTLS": start_tls(tls, injected)}, "in clear after STARTTLS"),
            "already logged in": ({"greeting": b"* PREAUTH welcome\r\n", "CAPABILITY": TLS_CAPABLE}, "PREAUTH"),
            "closed": ({"CAPABILITY": TLS_CAPABLE, "STARTTLS": close}, "closed"),
            "hangs in the handshake": ({"CAPABILITY": TLS_CAPABLE, "STARTTLS": (b"%tag% OK go\r\n", hang)}, ""),
        }
        for name, (changes, words) in table.items():
            with self.subTest(name), ScriptedServer({**IMAP, **changes}, imap=True) as server:
                box = Mailbox(
                    Endpoint("localhost", server.port, Security.STARTTLS), Login(USER, lambda _: PASSWORD), "INBOX",
                    context=self.trusting, timeout=1.0,
                )
                self.addCleanup(box.close)
                self.assertIn(words, str(self.failure(box.open)))
                said = b"".join(server.lines)
                self.assertNotIn(b"AUTHENTICATE", said)
                self.assertNotIn(b"LOGIN", said)
                self.assertNotIn(base64.b64encode(PASSWORD.encode())[:8], said)

    def test_capabilities_told_in_clear_are_forgotten(self) -> None:
        """A mechanism that only somebody in between offers is not used."""
        clear = b"* CAPABILITY IMAP4rev1 STARTTLS AUTH=LOGIN\r\n%tag% OK done\r\n"
        changes: dict[str, Any] = {
            "CAPABILITY": [clear, capable("AUTH=PLAIN")],
            "STARTTLS": start_tls(server_context(), b"* CAPABILITY IMAP4rev1 AUTH=LOGIN\r\n%tag% OK go\r\n"),
            "response": b"%tag% OK in\r\n",
        }
        with ScriptedServer({**IMAP, **changes}, imap=True) as server:
            self.open(server.port, security=Security.STARTTLS, context=self.trusting)
            self.assertTrue(any(line.endswith(b"AUTHENTICATE PLAIN\r\n") for line in server.lines))

    def test_a_greeting_that_skips_the_login_is_taken_inside_tls(self) -> None:
        with ScriptedServer({**IMAP, "greeting": b"* PREAUTH in\r\n"}, imap=True, context=server_context()) as server:
            self.open(server.port, security=Security.TLS, context=self.trusting)
            self.assertFalse(any(b"AUTHENTICATE" in line for line in server.lines))

    def test_a_stop_is_heard_inside_tls(self) -> None:
        stop = threading.Event()
        with ScriptedServer({**IMAP, "CAPABILITY": hang}, imap=True, context=server_context()) as server:
            box = Mailbox(
                Endpoint("localhost", server.port, Security.TLS), Login(USER, lambda _: PASSWORD), "INBOX",
                context=self.trusting, timeout=60.0, stopping=stop.is_set,
            )
            threading.Timer(0.2, stop.set).start()
            began = time.monotonic()
            self.failure(box.open)
            self.assertLess(time.monotonic() - began, 5)
