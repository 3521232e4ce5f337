"""TLS to the mail server, logging in, and where secrets go: looked at on the wire."""

import base64
import json
import socket
import time
import traceback
from dataclasses import replace
from unittest import mock

from mailer.errors import DeliveryError, LoginError
from mailer.sasl import Login, password_login
from mailer.settings import Security
from mailer.steps import finish
from tests.support.certificates import server_context
from tests.support.outboxes import ADMINISTRATOR, OutboxTestCase, complaint, letter, result
from tests.support.scripted import (
    SMTP,
    Action,
    Conversation,
    ScriptedServer,
    Table,
    bytewise,
    close,
    ehlo,
    hang,
    start_tls,
)

CLEAR_EHLO = ehlo("PIPELINING", "STARTTLS", "AUTH PLAIN LOGIN")
PASSWORD = "pässwörd 密码 \\ \"quoted\""
LOGIN = password_login(ADMINISTRATOR, PASSWORD)


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode())


def with_starttls(answer: Action, inside: bytes = ehlo("PIPELINING", "AUTH PLAIN")) -> Table:
    """A server that offers STARTTLS in clear, and the AUTH that it should not."""
    return {**SMTP, "EHLO": [CLEAR_EHLO, inside], "STARTTLS": answer}


def offering(mechanisms: str, **replies: Action | list[Action]) -> Table:
    """A server with these mechanisms."""
    return {**SMTP, "EHLO": ehlo("PIPELINING", f"AUTH {mechanisms}"), **replies}


def logins(server: ScriptedServer) -> list[bytes]:
    return [line for line in server.lines if line.upper().startswith(b"AUTH")]


class TlsTest(OutboxTestCase):
    def deliver(self, port: int, security: Security, **options: float) -> str:
        box = self.outbox(port, security=security, host="localhost", **options)  # type: ignore[arg-type]
        try:
            finish(box.deliver(letter()))
        except DeliveryError as failure:
            self.assertEqual((failure.problem.code, failure.retry), ("mail_unavailable", True))
            return str(failure)
        return "sent"

    def test_the_dot_behind_a_name_is_none_of_a_certificates(self) -> None:
        with ScriptedServer({**SMTP, "EHLO": ehlo("PIPELINING")}, context=server_context()) as server:
            found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", server.port))]
            with mock.patch("socket.getaddrinfo", return_value=found):
                self.assertEqual(result(self.outbox(server.port, security=Security.TLS, host="localhost.")), "sent")

    def test_a_good_certificate_is_taken(self) -> None:
        with ScriptedServer(SMTP, context=server_context()) as server:
            self.assertEqual(self.deliver(server.port, Security.TLS), "sent")
            self.assertEqual(len(logins(server)), 1)
        with ScriptedServer(with_starttls(start_tls(server_context()))) as server:
            self.assertEqual(self.deliver(server.port, Security.STARTTLS), "sent")
            self.assertEqual([line[:4] for line in server.lines[:4]], [b"ehlo", b"STAR", b"ehlo", b"AUTH"])

    def test_a_bad_certificate_is_refused_and_the_reason_told(self) -> None:
        for name, reason in (
            ("wrong_host", "(?i)hostname mismatch.*localhost"),
            ("expired", "expired"),
            ("self_signed", "self.signed"),
        ):
            context = server_context(name)
            with self.subTest(name), ScriptedServer(SMTP, context=context) as server:
                self.assertRegex(self.deliver(server.port, Security.TLS), reason)
                self.assertEqual(server.lines, [])
            with self.subTest(name), ScriptedServer(with_starttls(start_tls(context))) as server:
                self.assertRegex(self.deliver(server.port, Security.STARTTLS), reason)
                self.assertEqual(len(server.lines), 2, server.lines)

    def test_without_starttls_nothing_goes_on_in_clear(self) -> None:
        with ScriptedServer({**SMTP, "EHLO": ehlo("PIPELINING", "AUTH PLAIN")}) as server:
            self.assertIn("offers no STARTTLS", self.deliver(server.port, Security.STARTTLS))
            self.assertEqual(len(server.lines), 1)

    def test_a_failed_starttls_is_the_end(self) -> None:
        answers: dict[str, Action] = {
            "454": b"454 no TLS now\r\n",
            "closes": close,
            "hangs": hang,
            "hangs in the handshake": (b"220 go\r\n", hang),
            "closes in the handshake": (b"220 go\r\n", close),
            "talks on in clear": (b"220 go\r\n", bytewise(b"250-mail.example\r\n250 AUTH PLAIN\r\n")),
            "babbles": b"220 go\r\n\x15\x03\x03\x00\x02\x02\x28",
        }
        for what, answer in answers.items():
            with self.subTest(what), ScriptedServer(with_starttls(answer)) as server:
                self.assertNotEqual(self.deliver(server.port, Security.STARTTLS, timeout=0.5), "sent")
                self.assertEqual(logins(server), [])
                self.assertNotIn(b"MAIL", b"".join(server.lines))
        with ScriptedServer(with_starttls(b"554 never\r\n")) as server:
            box = self.outbox(server.port, security=Security.STARTTLS, host="localhost")
            self.assertEqual(result(box), "mail_rejected")

    def test_a_server_that_talks_on_in_clear_is_told(self) -> None:
        def talk_on(conversation: Conversation) -> None:
            conversation.send(b"220 go\r\n")
            conversation.sock.recv(4096)
            conversation.send(b"250 mail.example\r\n")

        with ScriptedServer(with_starttls(talk_on)) as starttls, ScriptedServer(SMTP) as plain:
            for server, security in ((starttls, Security.STARTTLS), (plain, Security.TLS)):
                self.assertIn("failed (the other side goes on in clear)", self.deliver(server.port, security))
                self.assertEqual(logins(server), [])

    def test_plaintext_injected_before_the_handshake_is_refused(self) -> None:
        for injected in (b"250 AUTH PLAIN\r\n", b"2", b"\r\n"):
            table = with_starttls(start_tls(server_context(), b"220 go\r\n" + injected))
            with self.subTest(injected), ScriptedServer(table) as server:
                self.assertIn("injected plaintext", self.deliver(server.port, Security.STARTTLS))
                self.assertEqual(len(server.lines), 2)

    def test_what_was_offered_in_clear_is_forgotten(self) -> None:
        with ScriptedServer(with_starttls(start_tls(server_context()), ehlo("8BITMIME"))) as server:
            self.assertEqual(self.deliver(server.port, Security.STARTTLS), "sent")
            self.assertEqual(logins(server), [])

    def test_a_clear_text_server_on_a_tls_port_is_refused(self) -> None:
        with ScriptedServer(SMTP) as server:
            self.assertIn("TLS with localhost failed", self.deliver(server.port, Security.TLS, timeout=1))

    def test_a_handshake_that_hangs_ends_in_time(self) -> None:
        with ScriptedServer({"greeting": hang}) as server:
            begun = time.monotonic()
            self.assertIn("in time", self.deliver(server.port, Security.TLS, timeout=0.3))
            self.assertLess(time.monotonic() - begun, 1)

    def test_sessions_over_tls_are_kept_and_a_stale_one_is_replaced(self) -> None:
        with ScriptedServer(SMTP, context=server_context()) as server:
            box = self.outbox(server.port, security=Security.TLS, host="localhost")
            self.assertEqual([result(box) for _ in range(5)], ["sent"] * 5)
            self.assertEqual(len(server.conversations), 1)
            server.cut()
            self.assertEqual(result(box), "sent")
            big = letter("x" * 3_000_000)
            self.assertEqual(result(box, big), "sent")
            self.assertEqual(server.bodies[-1], big.data)

    def test_check_names_the_protection(self) -> None:
        with ScriptedServer(SMTP, context=server_context()) as server:
            box = self.outbox(server.port, security=Security.TLS, host="localhost")
            self.assertRegex(list(box.check(ADMINISTRATOR, ADMINISTRATOR))[1], r"protected by TLSv1\.[23]")


class PasswordTest(OutboxTestCase):
    def test_plain_carries_any_password(self) -> None:
        with ScriptedServer(offering("CRAM-MD5 LOGIN PLAIN")) as server:
            self.assertEqual(result(self.outbox(server.port, login=LOGIN)), "sent")
            self.assertEqual(logins(server), [b"AUTH PLAIN " + b64(f"\0{ADMINISTRATOR}\0{PASSWORD}") + b"\r\n"])

    def test_login_is_the_second_choice(self) -> None:
        asks_for_both: Action = b"334 VXNlcm5hbWU6\r\n"
        password, user = b64(PASSWORD) + b"\r\n", b64(ADMINISTRATOR) + b"\r\n"
        asks_for_password = b"334 UGFzc3dvcmQ6\r\n"
        welcome = b"235 ok\r\n"
        for ask, answers, said in (
            (asks_for_password, [welcome], [password]),
            (asks_for_both, [asks_for_password, welcome], [user, password]),
        ):
            with ScriptedServer(offering("LOGIN", AUTH=ask, response=[*answers])) as server:
                self.assertEqual(result(self.outbox(server.port, login=LOGIN)), "sent")
                self.assertEqual(server.lines[1:2 + len(said)], [b"AUTH LOGIN " + user, *said])

    def test_no_other_mechanism_is_used(self) -> None:
        for mechanisms in ("CRAM-MD5", "XOAUTH2 OAUTHBEARER", "DIGEST-MD5 NTLM", ""):
            with self.subTest(mechanisms), ScriptedServer(offering(mechanisms)) as server:
                self.assertEqual(result(self.outbox(server.port)), "mail_auth_failed")
                self.assertEqual(logins(server), [])

    def test_after_a_refusal_no_other_mechanism_is_tried(self) -> None:
        with ScriptedServer(offering("PLAIN LOGIN", AUTH=b"535 5.7.8 no\r\n")) as server:
            self.assertIn("535 5.7.8 no", complaint(self.outbox(server.port)))
            self.assertEqual(len(logins(server)), 1)

    def test_a_login_that_cannot_be_checked_now_is_temporary(self) -> None:
        with ScriptedServer(offering("PLAIN", AUTH=[b"454 4.7.0 later\r\n", b"235 ok\r\n"])) as server:
            self.assertEqual(result(self.outbox(server.port)), "mail_unavailable retry")

    def test_a_server_that_asks_without_end_is_left(self) -> None:
        with ScriptedServer(offering("LOGIN", AUTH=b"334 Pzo=\r\n", response=b"334 Pzo=\r\n")) as server:
            self.assertEqual(result(self.outbox(server.port)), "mail_unavailable retry")
            self.assertLess(len(server.lines), 10)

    def test_a_server_that_offers_no_login_is_used_without(self) -> None:
        with ScriptedServer({**SMTP, "EHLO": ehlo("PIPELINING")}) as server:
            self.assertEqual(result(self.outbox(server.port)), "sent")
            self.assertEqual(logins(server), [])

    def test_no_secret_goes_in_clear_to_another_machine(self) -> None:
        with ScriptedServer(SMTP) as server:  # 127.1 is this machine, but it is not written like it
            self.assertIn("in clear", complaint(self.outbox(server.port, host="127.1")))
            self.assertEqual(logins(server), [])
        with ScriptedServer({**SMTP, "EHLO": ehlo("PIPELINING")}) as server:
            self.assertEqual(result(self.outbox(server.port, host="127.1")), "sent")

    def test_no_secret_is_in_an_error_or_a_log(self) -> None:
        secrets = (PASSWORD, b64(PASSWORD).decode(), b64(f"\0{ADMINISTRATOR}\0{PASSWORD}").decode())

        def echo(conversation: Conversation) -> None:
            conversation.send(b"535 bad: " + conversation.lines[-1].strip() + b" " + PASSWORD.encode() + b"\r\n")

        asks = b"334 UGFzc3dvcmQ6\r\n"
        for fault in (echo, (b"nonsense ", echo), (b"421 ", echo), close):
            for table in (offering("PLAIN", AUTH=fault), offering("LOGIN", AUTH=asks, response=fault)):
                with ScriptedServer(table) as server, self.assertNoLogs(level="DEBUG"):
                    box = self.outbox(server.port, login=LOGIN)
                    with self.assertRaises(DeliveryError) as caught:
                        finish(box.deliver(letter()))
                    shown = "".join(traceback.format_exception(caught.exception)) + repr(vars(box))
                    for secret in secrets:
                        self.assertNotIn(secret, shown)

    def test_no_secret_is_in_what_the_server_says_later(self) -> None:
        plain = b64(f"\0{ADMINISTRATOR}\0{PASSWORD}")
        told = b" you said " + b" or ".join((PASSWORD.encode(), b64(PASSWORD), plain)) + b"\r\n"
        for code in (b"354", b"421", b"450", b"550"):
            for key in ("greeting", "EHLO", "AUTH", "MAIL", "RCPT", "body"):
                first: Table = {**SMTP, "body": (b"250 queued\r\n", close)}
                second: Table = {**SMTP, key: code + told}
                with self.subTest(key, code=code), ScriptedServer(first, second) as server:
                    box = self.outbox(server.port, login=LOGIN)
                    self.assertEqual(result(box), "sent")
                    self.assertRegex(complaint(box), r"you said … or … or …")

    def test_a_mask_does_not_tell_a_client_that_its_guess_is_right(self) -> None:
        def echo(conversation: Conversation) -> None:
            conversation.send(b"550 5.1.1 no such person: " + conversation.lines[-1].strip() + b"\r\n")

        table: Table = {**SMTP, "RCPT": echo, "body": b"554 5.7.1 spam: http://winter2024.example\r\n"}
        for password in ("winter2024", "summer2024"):
            login = password_login(ADMINISTRATOR, password)
            with self.subTest(password), ScriptedServer(table) as server:
                box = self.outbox(server.port, login=login)
                for address in ("winter2024@a.example", "a@Winter2024.example", "summer2024@a.example"):
                    envelope = replace(letter("x", address, ADMINISTRATOR), given=(address, "x"))
                    with self.assertRaises(DeliveryError) as caught:
                        finish(box.deliver(envelope))
                    self.assertIn(f"no such person: RCPT TO:<{address}>", str(caught.exception))
            folded: Table = {**SMTP, "RCPT": b"550-no such person: winter2\r\n550 024!\r\n"}
            with ScriptedServer(folded) as server:
                envelope = replace(letter("x"), given=("winter2024@a.example", "x"))
                with self.assertRaises(DeliveryError) as caught:
                    finish(self.outbox(server.port, login=login).deliver(envelope))
                self.assertIn("no such person: winter2 024!", str(caught.exception))
            with ScriptedServer({**SMTP, "body": table["body"]}) as server:
                text = "look at http://winter2024.example"
                envelope = replace(letter(text), given=("a@b.example", text))
                with self.assertRaises(DeliveryError) as caught:
                    finish(self.outbox(server.port, login=login).deliver(envelope))
                self.assertIn("spam: http://winter2024.example", str(caught.exception))

    def test_what_a_client_gives_unmasks_nothing_else(self) -> None:
        login = b64(f"\0{ADMINISTRATOR}\0{PASSWORD}").decode()
        told: Table = {**SMTP, "body": b"554 5.7.1 no, you are " + PASSWORD.encode() + b"\r\n"}
        for text in (login[:16], b64(PASSWORD).decode()[:16], "…", PASSWORD[:-1], f"x{PASSWORD}"[:-1]):
            with self.subTest(text), ScriptedServer(told) as server:
                box = self.outbox(server.port, login=LOGIN)
                with self.assertRaises(DeliveryError) as caught:
                    finish(box.deliver(replace(letter("x"), given=("a@b.example", text))))
                self.assertNotIn(PASSWORD, str(caught.exception))

    def test_no_secret_is_in_a_check(self) -> None:
        told = b" you said " + PASSWORD.encode() + b"\r\n"
        for key in ("EHLO", "MAIL", "RCPT", "RSET"):
            with self.subTest(key), ScriptedServer({**SMTP, key: b"550" + told}) as server:
                box = self.outbox(server.port, login=LOGIN)
                with self.assertRaises(DeliveryError) as caught:
                    list(box.check(ADMINISTRATOR, ADMINISTRATOR))
                self.assertRegex(str(caught.exception), r"550 you said …\Z")


class TokenTest(OutboxTestCase):
    REASON = json.dumps({"status": "400", "schemes": "Bearer", "scope": "https://mail.example/"})

    def setUp(self) -> None:
        self.asked: list[bool] = []

    def login(self) -> Login:
        def secret(fresh: bool) -> str:
            self.asked.append(fresh)
            return "fresh-token" if fresh else "old-token"

        return Login(ADMINISTRATOR, secret, oauth=True)

    def test_xoauth2_and_oauthbearer(self) -> None:
        for offered, mechanism in (("PLAIN XOAUTH2", b"XOAUTH2"), ("PLAIN XOAUTH2 OAUTHBEARER", b"OAUTHBEARER")):
            with ScriptedServer(offering(offered)) as server:
                self.assertEqual(result(self.outbox(server.port, login=self.login())), "sent")
                (line,) = logins(server)
                self.assertEqual(line.split()[1], mechanism)
                self.assertIn(b"auth=Bearer old-token\1\1", base64.b64decode(line.split()[2]))

    def test_what_is_too_long_for_a_command_is_given_when_it_is_asked_for(self) -> None:
        for length, asks in ((300, False), (2_500, True)):
            token = Login(ADMINISTRATOR, lambda _, length=length: "t" * length, oauth=True)  # type: ignore[misc]  # bound
            password = Login(ADMINISTRATOR, lambda _, length=length: "p" * length)  # type: ignore[misc]  # bound
            for mechanism, login in (("XOAUTH2", token), ("OAUTHBEARER", token), ("PLAIN", password)):
                auth = b"334 \r\n" if asks else b"235 welcome\r\n"
                table = offering(mechanism, AUTH=auth, response=b"235 welcome\r\n")
                with self.subTest(mechanism, length=length), ScriptedServer(table) as server:
                    self.assertEqual(result(self.outbox(server.port, login=login)), "sent")
                    *_, secret = logins(server)[0].split()
                    if asks:
                        self.assertEqual(secret, mechanism.encode())
                        secret = server.lines[server.lines.index(logins(server)[0]) + 1]
                    self.assertIn((b"p" if mechanism == "PLAIN" else b"t") * length, base64.b64decode(secret))

    def test_a_refused_token_is_renewed_once(self) -> None:
        refuse_once: list[Action] = [b"334 " + b64(self.REASON) + b"\r\n", b"235 welcome\r\n"]
        for mechanism, answer in (("XOAUTH2", b"\r\n"), ("OAUTHBEARER", b"AQ==\r\n")):
            self.asked.clear()
            with ScriptedServer(offering(mechanism, AUTH=refuse_once, response=b"535 5.7.8 expired\r\n")) as server:
                self.assertEqual(result(self.outbox(server.port, login=self.login())), "sent")
                self.assertEqual(self.asked, [False, True])
                self.assertEqual(server.lines[2], answer)
                self.assertIn(b"fresh-token", base64.b64decode(logins(server)[1].split()[2]))

    def test_a_token_refused_twice_is_the_end_and_the_reason_told(self) -> None:
        refuse = b"334 " + b64(self.REASON) + b"\r\n"
        with ScriptedServer(offering("XOAUTH2", AUTH=refuse, response=b"535 5.7.8 bad token\r\n")) as server:
            box = self.outbox(server.port, login=self.login())
            with self.assertRaises(DeliveryError) as caught:
                finish(box.deliver(letter()))
            self.assertEqual((caught.exception.problem.code, self.asked), ("mail_auth_failed", [False, True]))
            self.assertIn("bad token", str(caught.exception))
            self.assertIn("https://mail.example/", str(caught.exception))
            self.assertNotIn("-token", str(caught.exception))

    def test_a_token_never_goes_into_another_mechanism(self) -> None:
        with ScriptedServer(offering("PLAIN LOGIN")) as server:
            self.assertEqual(result(self.outbox(server.port, login=self.login())), "mail_auth_failed")
            self.assertEqual((logins(server), self.asked), ([], []))

    def test_no_token_to_be_had(self) -> None:
        for temporary, code in ((True, "mail_unavailable retry"), (False, "mail_auth_failed")):

            def no_token(_fresh: bool, temporary: bool = temporary) -> str:
                raise LoginError("invalid_grant: revoked", temporary=temporary)

            with ScriptedServer(offering("XOAUTH2")) as server:
                box = self.outbox(server.port, login=Login(ADMINISTRATOR, no_token, oauth=True))
                self.assertEqual(result(box), code)
                self.assertIn("invalid_grant: revoked", complaint(box))


