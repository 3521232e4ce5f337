"""The sandbox's SMTP server, driven by smtplib and byte by byte."""

import base64
import smtplib
import socket
import unittest
from typing import Any

from mailer.sandbox.mail import MailServer
from tests.sandbox.certificates import contexts
from tests.support.waiting import wait_until

ANN, BOB = "ann@example.com", "bob@example.com"
MAIL = b"Subject: x\r\n\r\nText\r\n"


class SmtpTest(unittest.TestCase):
    def serve(self, **rules: Any) -> MailServer:
        server = self.enterContext(MailServer(**rules))
        self.assertGreater(server.smtp_port, 0)
        return server

    def client(self, server: MailServer) -> smtplib.SMTP:
        return self.enterContext(smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=10))

    def raw(self, server: MailServer) -> socket.socket:
        return self.enterContext(socket.create_connection(("127.0.0.1", server.smtp_port), timeout=10))


def read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionError:
        pass
    return received


class TakingMailTest(SmtpTest):
    def test_mail_lands_in_the_inbox_of_every_recipient_byte_by_byte(self) -> None:
        server = self.serve()
        text = b"Subject: x\r\n\r\n.\r\n..\r\n.dot\r\n" + "кириллица 🙂\r\n".encode() + b"x" * 998 + b"\r\n"
        self.client(server).sendmail(ANN, [BOB, ANN], text, ["BODY=8BITMIME"])
        self.assertEqual(server.messages(BOB), [text])
        self.assertEqual(server.messages(ANN), [text])

    def test_an_address_is_the_same_account_in_any_case(self) -> None:
        server = self.serve()
        self.client(server).sendmail(ANN, ["Bob@Example.COM"], MAIL)
        self.assertEqual(server.messages(BOB), [MAIL])

    def test_a_recipient_named_twice_gets_one_mail(self) -> None:
        server = self.serve()
        self.client(server).sendmail(ANN, [BOB, BOB], MAIL)
        self.assertEqual(server.messages(BOB), [MAIL])

    def test_a_delivery_is_told(self) -> None:
        told: list[tuple[object, ...]] = []
        server = self.serve(on_delivery=lambda *what: told.append(what))
        self.client(server).sendmail(ANN, [BOB, ANN], MAIL)
        self.assertEqual(told, [(ANN, (BOB, ANN), MAIL)])

    def test_commands_are_told(self) -> None:
        told: list[str] = []
        server = self.serve(on_command=told.append)
        self.client(server).noop()
        self.assertIn("SMTP noop", told)

    def test_an_address_beyond_ascii_needs_smtputf8(self) -> None:
        server = self.serve()
        connection = self.raw(server)
        connection.sendall("EHLO c\r\nMAIL FROM:<анна@пример.рф>\r\nQUIT\r\n".encode())
        self.assertIn(b"553 5.6.7", read_all(connection))
        self.client(server).sendmail("анна@пример.рф", ["боб@пример.рф"], MAIL, ["SMTPUTF8"])
        self.assertEqual(server.messages("боб@пример.рф"), [MAIL])

    def test_a_connection_lost_before_the_final_dot_delivers_nothing(self) -> None:
        server = self.serve()
        client = self.client(server)
        client.ehlo()
        client.mail(ANN)
        client.rcpt(BOB)
        self.assertEqual(client.docmd("DATA")[0], 354)
        client.send(MAIL)
        client.close()
        server.stop()
        self.assertEqual(server.messages(BOB), [])

    def test_only_the_knobs_extensions_are_offered_and_work(self) -> None:
        client = self.client(self.serve(extensions=("8BITMIME",)))
        client.ehlo()
        self.assertEqual(list(client.esmtp_features), ["8bitmime"])
        table = {"AUTH PLAIN": 500, f"MAIL FROM:<{ANN}> SIZE=5": 555, f"MAIL FROM:<{ANN}> SMTPUTF8": 555}
        for command, code in table.items():
            with self.subTest(command):
                self.assertEqual(client.docmd(command)[0], code)

    def test_recipients_are_refused_by_the_knob(self) -> None:
        server = self.serve(refuse=lambda address: "450 4.2.1 Full" if address == BOB else None)
        client = self.client(server)
        self.assertEqual(client.sendmail(ANN, [BOB, ANN], MAIL), {BOB: (450, b"4.2.1 Full")})
        self.assertEqual((len(server.messages(ANN)), len(server.messages(BOB))), (1, 0))


class RefusingMailTest(SmtpTest):
    def data_reply(self, text: bytes, **rules: Any) -> bytes:
        """The reply to this text after DATA, in a session that goes on afterwards."""
        server = self.serve(**rules)
        connection = self.raw(server)
        envelope = f"EHLO c\r\nMAIL FROM:<{ANN}>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n".encode()
        connection.sendall(envelope + text + b"\r\n.\r\nQUIT\r\n")
        *_, reply, end = read_all(connection).splitlines()
        self.assertEqual(end[:3], b"221")
        self.assertEqual(len(server.messages(BOB)), int(reply.startswith(b"250")))
        return reply

    def test_what_a_strict_server_would_refuse(self) -> None:
        table = {
            "a line of 998 bytes": (b"x" * 998, b"250"),
            "and with a stuffed dot": (b"." + b"." * 998, b"250"),
            "a line of 999 bytes": (b"x" * 999, b"550 5.6.0"),
            "a very long line": (b"x" * 200_000, b"550 5.6.0"),
            "a bare LF": (b"one\ntwo", b"550 5.6.0"),
            "a smuggled end": (b"one\n.\r\nMAIL FROM:<x@example.com>", b"550 5.6.0"),
            "another smuggled end": (b"one\r\n.\nMAIL FROM:<x@example.com>", b"550 5.6.0"),
        }
        for name, (text, reply) in table.items():
            with self.subTest(name):
                self.assertEqual(self.data_reply(text)[: len(reply)], reply)

    def test_a_message_over_the_limit(self) -> None:
        text = (b"x" * 70 + b"\r\n") * 20
        self.assertEqual(self.data_reply(text, max_message=1_000)[:9], b"552 5.3.4")

    def test_an_announced_size_over_the_limit(self) -> None:
        client = self.client(self.serve(max_message=1_000))
        client.ehlo()
        self.assertEqual(client.mail(ANN, ["SIZE=1001"])[0], 552)
        self.assertEqual(client.mail(ANN, ["SIZE=1000"])[0], 250)

    def test_an_endless_message_is_cut_off(self) -> None:
        connection = self.raw(self.serve(max_message=1_000))
        connection.sendall(f"EHLO c\r\nMAIL FROM:<{ANN}>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n".encode())
        with self.assertRaises(ConnectionError):
            while True:
                connection.sendall(b"x\r\n" * 1_000)

    def test_an_endless_line_is_cut_off(self) -> None:
        connection = self.raw(self.serve())
        with self.assertRaises(ConnectionError):
            while True:
                connection.sendall(b"x" * 65_536)

    def test_a_long_command_line_is_refused_and_the_next_one_answered(self) -> None:
        connection = self.raw(self.serve())
        connection.sendall(b"NOOP " + b"x" * 20_000 + b"\r\nNOOP\r\n\xff\r\nQUIT\r\n")
        codes = [line[:3] for line in read_all(connection).splitlines()]
        self.assertEqual(codes, [b"220", b"500", b"250", b"500", b"221"])

    def test_too_many_errors_end_the_session(self) -> None:
        connection = self.raw(self.serve())
        connection.sendall(b"NONSENSE\r\n" * 30)
        self.assertEqual(read_all(connection).splitlines()[-1][:3], b"421")

    def test_too_many_recipients(self) -> None:
        connection = self.raw(self.serve())
        recipients = b"".join(b"RCPT TO:<b%d@example.com>\r\n" % number for number in range(1001))
        connection.sendall(f"EHLO c\r\nMAIL FROM:<{ANN}>\r\n".encode() + recipients + b"QUIT\r\n")
        self.assertIn(b"452 4.5.3 Too many recipients", read_all(connection))


class LoggingInTest(SmtpTest):
    def test_no_mail_without_login_where_it_is_required(self) -> None:
        client = self.client(self.serve(require_login=True))
        client.ehlo()
        self.assertEqual(client.mail(ANN)[0], 530)

    def test_a_password_beyond_ascii(self) -> None:
        client = self.client(self.serve(password="пароль"))
        client.ehlo()
        response = base64.b64encode(f"\0{ANN}\0пароль".encode()).decode()
        self.assertEqual(client.docmd(f"AUTH PLAIN {response}")[0], 235)

    def test_smtplib_logs_in(self) -> None:
        server = self.serve(require_login=True)
        for mechanism in ("PLAIN", "LOGIN"):
            with self.subTest(mechanism):
                client = self.client(server)
                client.ehlo()
                client.esmtp_features["auth"] = mechanism
                client.login(ANN, "sandbox")
                self.assertEqual(client.sendmail(ANN, [BOB], MAIL), {})

    def test_a_wrong_password(self) -> None:
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            self.client(self.serve()).login(ANN, "wrong")

    def test_not_before_the_greeting_and_not_for_another_user(self) -> None:
        client = self.client(self.serve())
        self.assertEqual(client.docmd("AUTH PLAIN AGEAc2FuZGJveA==")[0], 503)
        client.ehlo()
        self.assertEqual(client.docmd("AUTH PLAIN YgBhAHNhbmRib3g=")[0], 535)  # b acting for a
        self.assertEqual(client.docmd("AUTH PLAIN AGEAc2FuZGJveA==")[0], 235)

    def test_starttls(self) -> None:
        server_side, client_side = contexts()
        server = self.serve(tls=server_side, require_login=True)
        client = self.client(server)
        client.ehlo()
        self.assertFalse(client.has_extn("auth"))
        client.starttls(context=client_side)
        client.ehlo()
        self.assertFalse(client.has_extn("starttls"))
        client.login(ANN, "sandbox")
        self.assertEqual(client.sendmail(ANN, [BOB], MAIL), {})

    def test_commands_sent_in_clear_after_starttls_are_thrown_away(self) -> None:
        server_side, client_side = contexts()
        connection = self.raw(self.serve(tls=server_side))
        connection.sendall(b"EHLO c\r\nSTARTTLS\r\nNOOP\r\n")
        received = b""
        while b"Ready" not in received:
            received += connection.recv(4096)
        with client_side.wrap_socket(connection, server_hostname="127.0.0.1") as protected:
            protected.sendall(b"QUIT\r\n")
            self.assertEqual(protected.recv(4096)[:3], b"221")

    def test_tls_from_the_first_byte(self) -> None:
        server_side, client_side = contexts()
        server = self.serve(tls=server_side, implicit_tls=True)
        with smtplib.SMTP_SSL("127.0.0.1", server.smtp_port, context=client_side, timeout=10) as client:
            client.login(ANN, "sandbox")
            client.sendmail(ANN, [BOB], MAIL)
        self.assertEqual(server.messages(BOB), [MAIL])


class OutageTest(SmtpTest):
    def test_a_server_that_comes_back_has_its_ports_and_its_mail(self) -> None:
        server = self.serve()
        client = self.client(server)
        client.sendmail(ANN, [BOB], MAIL)
        port = server.smtp_port
        server.stop()
        with self.assertRaises(smtplib.SMTPServerDisconnected):
            client.noop()
        with self.assertRaises(ConnectionRefusedError):
            smtplib.SMTP("127.0.0.1", port, timeout=5)
        server.start()
        self.assertEqual(server.smtp_port, port)
        self.client(server).sendmail(ANN, [BOB], MAIL)
        wait_until(lambda: len(server.messages(BOB)) == 2)

    def test_connections_can_be_cut(self) -> None:
        server = self.serve()
        client = self.client(server)
        server.cut_connections()
        with self.assertRaises(smtplib.SMTPServerDisconnected):
            client.noop()
        self.assertEqual(self.client(server).noop()[0], 250)

    def test_a_taken_port_is_an_error_and_leaves_nothing_open(self) -> None:
        taken = self.serve()
        other = MailServer(imap_port=taken.imap_port)
        with self.assertRaises(OSError):
            other.start()
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", other.smtp_port or 1), timeout=5)
