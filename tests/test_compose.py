"""The message on the wire, read back as any mail program reads it."""

import email
import email.policy
import unittest
from datetime import UTC, datetime
from email.message import EmailMessage

from mailer.compose import Envelope, compose
from mailer.tickets import recognise, ticket_of_message_id

ADMIN = "helpdesk@example.com"
DATE = datetime(2026, 11, 22, 10, 15, 3, tzinfo=UTC)
SENT = int(DATE.timestamp())
LONG_LOCAL = "l" * 64
LONG_DOMAIN = ".".join(("d" * 63, "d" * 63, "d" * 57, "org"))

MESSAGES = {
    "one line": "The printer is on fire",
    "lines": "one\ntwo\n\nfour\n",
    "no newline at the end": "one\ntwo",
    "many newlines at the end": "one\n\n\n",
    "newlines before": "\n\n\none",
    "dots": ".\n..\n.\n\n.\none.\n.two\n",
    "smuggling, lines": "a\n.\nMAIL FROM:<x@y.com>\nRCPT TO:<z@y.com>\nDATA\nSubject: x\n\n.\n",
    "a boundary": "--===============1234==\n\n--==\n",
    "header lines": "Subject: other\nBcc: c@d.com\n\nFrom here\nFrom the start\n>From\n",
    "a long line": "x" * 100_000,
    "long lines": "\n".join(["y" * 998, "y" * 999, "y" * 5000]),
    "trailing blanks": "one  \ntwo\t\n   \n\t\nend ",
    "emoji": "😀🔥 👩‍👩‍👧 🇩🇪",
    "languages": "Здравствуйте\n日本語\nمرحبا\nΓειά",
    "separators that are no newlines": "a\u2028b\u2029c",
    "a byte order mark": "\ufeffone",
    "equals signs": "=20=\n=C3=A9 =?utf-8?q?x?=\n",
    "100,000 characters": "Zeile é 😀\n" * 10_000,
    "100,000 emoji": "😀" * 100_000,
    "100,000 newlines and a letter": "\n" * 99_999 + "x",
    "a tab": "tab\there",
}  # fmt: skip


def _compose(message: str = "x", address: str = "alice@example.com", sender: str = ADMIN) -> Envelope:
    return compose(12345, address, message, sender=sender, sent=SENT, unique="0badcafe")


def _read(envelope: Envelope) -> EmailMessage:
    message = email.message_from_bytes(envelope.data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def _reference(address: str, text: str, sender: str = ADMIN) -> EmailMessage:
    """The same message as the standard library would make it."""
    message = EmailMessage(policy=email.policy.SMTPUTF8)
    message["From"] = sender
    message["To"] = address
    if address.lower() != sender.lower():
        message["Cc"] = sender
    message["Subject"] = "[Ticket #12345] Mailer"
    message["Date"] = DATE
    message["Message-ID"] = f"<ticket.12345.0badcafe@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text, charset="utf-8", cte="base64")
    return message


def _headers(message: EmailMessage) -> list[tuple[str, str]]:
    return sorted((name.lower(), str(value)) for name, value in message.items())


class TheMessage(unittest.TestCase):
    def test_the_text_arrives_as_it_was_given(self) -> None:
        for name, text in MESSAGES.items():
            with self.subTest(name):
                read = _read(_compose(text))
                payload = read.get_payload(decode=True)
                assert isinstance(payload, bytes)
                self.assertEqual(payload.decode(), text.replace("\n", "\r\n"))
                self.assertEqual(read.get_content().replace("\r\n", "\n"), text)
                self.assertEqual(read.defects, [])

    def test_the_headers_are_those_that_email_message_gives(self) -> None:
        addresses = (
            "alice@example.com", ADMIN, "Helpdesk@Example.COM", f"{LONG_LOCAL}@example.com",
            f"{LONG_LOCAL}@{LONG_DOMAIN}", "o'brien+tag@example.ie", "!#$%&'*+-/=?^_`{|}~@example.com",
            "почта@xn--e1afmkfd.xn--p1ai", "a@b.co",
        )  # fmt: skip
        for address in addresses:
            with self.subTest(address):
                ours, reference = _read(_compose("x", address)), _reference(address, "x\n")
                theirs = email.message_from_bytes(reference.as_bytes(), policy=email.policy.default)
                self.assertEqual(_headers(ours), _headers(theirs))
                if address.isascii():  # the standard library does not know RFC 6532 when it looks for defects
                    self.assertEqual([defect for value in ours.values() for defect in value.defects], [])

    def test_the_headers(self) -> None:
        read = _read(_compose())
        self.assertEqual(
            dict(read.items()),
            {
                "From": ADMIN,
                "To": "alice@example.com",
                "Cc": ADMIN,
                "Subject": "[Ticket #12345] Mailer",
                "Date": "Sun, 22 Nov 2026 10:15:03 +0000",
                "Message-ID": "<ticket.12345.0badcafe@example.com>",
                "Auto-Submitted": "auto-generated",
                "MIME-Version": "1.0",
                "Content-Type": 'text/plain; charset="utf-8"',
                "Content-Transfer-Encoding": "base64",
            },
        )
        self.assertEqual(recognise(str(read["Subject"])), 12345)
        self.assertEqual(ticket_of_message_id(str(read["Message-ID"])), 12345)

    def test_every_ticket_number(self) -> None:
        for ticket in (1, 10_000, 10**15, 10**18 - 1):
            envelope = compose(ticket, "a@b.de", "x", sender=ADMIN, sent=SENT, unique="00")
            self.assertEqual(_read(envelope)["Subject"], f"[Ticket #{ticket}] Mailer")
            self.assertEqual(_read(envelope)["Date"].datetime, DATE)


class TheBytes(unittest.TestCase):
    def test_they_are_lines_that_every_server_takes(self) -> None:
        for name, text in MESSAGES.items():
            for address in ("alice@example.com", f"{LONG_LOCAL}@{LONG_DOMAIN}", "ü" * 32 + "@example.com"):
                with self.subTest(name, address=address[:10]):
                    data = _compose(text, address).data
                    self.assertTrue(data.endswith(b"\r\n"))
                    self.assertNotIn(b"\r\n\r\n\r\n", data)
                    lines = data.split(b"\r\n")
                    self.assertFalse([line for line in lines if b"\r" in line or b"\n" in line or b"\0" in line])
                    self.assertLessEqual(max(map(len, lines)), 998)
                    body = data.partition(b"\r\n\r\n")[2]
                    self.assertTrue(body.isascii())
                    self.assertLessEqual(max(map(len, body.split(b"\r\n"))), 76)
                    self.assertNotIn(b".", body)  # nothing to stuff, nothing to smuggle

    def test_only_an_address_beyond_ascii_needs_smtputf8(self) -> None:
        table = (
            ("alice@example.com", ADMIN, False),
            ("почта@xn--e1afmkfd.xn--p1ai", ADMIN, True),
            ("alice@example.com", "büro@example.com", True),
        )
        for address, sender, smtputf8 in table:
            with self.subTest(address, sender=sender):
                envelope = _compose("😀", address, sender)
                self.assertEqual(envelope.smtputf8, smtputf8)
                self.assertEqual(envelope.data.isascii(), not smtputf8)


class TheEnvelope(unittest.TestCase):
    def test_the_person_first_the_administrator_last(self) -> None:
        self.assertEqual(_compose().recipients, ("alice@example.com", ADMIN))
        self.assertEqual(_compose().sender, ADMIN)

    def test_an_address_that_only_looks_like_the_administrators_is_another_one(self) -> None:
        for address in ("helpdes\u212a@example.com", "helpde\u017fk@example.com"):  # Kelvin sign, long s
            envelope = _compose("x", address)
            self.assertEqual(envelope.recipients, (address, ADMIN))
            self.assertIn(f"Cc: {ADMIN}\r\n".encode(), envelope.data)

    def test_the_administrator_who_writes_gets_it_once(self) -> None:
        for address in (ADMIN, "HelpDesk@example.com", "helpdesk@EXAMPLE.com"):
            with self.subTest(address):
                envelope = _compose("x", address)
                self.assertEqual(envelope.recipients, (ADMIN,))
                self.assertEqual(_read(envelope)["To"], address)
                self.assertIsNone(_read(envelope)["Cc"])

    def test_addresses_that_validation_refuses_raise(self) -> None:
        attempts = (
            "a@b.com\r\nBcc: c@d.com", "a@b.com\nBcc: c@d.com", "a@b.com\rX", "a@b.com>", "<a@b.com", "a b@c.com",
            "a@b.com\0", "a@b.com\x1b[2J", "a@b.com\t", "a\u2028b@c.com", "a\u0085b@c.com", "a@b.com> SIZE=1",
            "a\u00a0@b.com",
        )  # fmt: skip
        for address in attempts:
            with self.subTest(ascii(address)):
                self.assertRaises(ValueError, _compose, "x", address)
                self.assertRaises(ValueError, _compose, "x", "alice@example.com", address)
