"""The sandbox's IMAP server, driven by imaplib and byte by byte."""

import base64
import contextlib
import imaplib
import socket
import unittest
from datetime import UTC, datetime
from typing import Any

from mailer.sandbox.imap_syntax import BadError, NoError, decode_mailbox, encode_mailbox, parse, select
from mailer.sandbox.mail import MailServer
from tests.sandbox.certificates import contexts

ANN = "ann@example.com"
MAIL = b"Subject: x\r\nFrom: bob@example.com\r\n\r\nText\r\n"


class ImapTest(unittest.TestCase):
    def serve(self, mails: int = 0, **rules: Any) -> MailServer:
        server = self.enterContext(MailServer(**rules))
        for number in range(mails):
            server.deliver(ANN, b"Subject: %d\r\n\r\nText\r\n" % number)
        return server

    def client(self, server: MailServer, folder: str = "INBOX", *, readonly: bool = False) -> imaplib.IMAP4:
        client = imaplib.IMAP4("127.0.0.1", server.imap_port, timeout=10)
        self.addCleanup(client.shutdown)
        client.login(ANN, "sandbox")
        self.assertEqual(client.select(folder, readonly)[0], "OK")
        return client

    def raw(self, server: MailServer, *commands: bytes) -> list[bytes]:
        """All lines that the server says to these commands, sent at once."""
        with socket.create_connection(("127.0.0.1", server.imap_port), timeout=10) as connection:
            connection.sendall(b"".join(command + b"\r\n" for command in commands))
            received = b""
            with contextlib.suppress(ConnectionError):
                while chunk := connection.recv(65536):
                    received += chunk
        return received.splitlines()


class LoggingInTest(ImapTest):
    def test_by_every_way(self) -> None:
        server = self.serve(password='pass" \\ word')
        response = base64.b64encode(f'\0{ANN}\0pass" \\ word'.encode())
        ways = {
            "a quoted string": [b'a LOGIN ann@example.com "pass\\" \\\\ word"'],
            "a literal": [b"a LOGIN {15}", b"ann@example.com {12}", b'pass" \\ word'],
            "a literal that does not wait": [b"a LOGIN {15+}", b"ann@example.com {12+}", b'pass" \\ word'],
            "authenticate at once": [b"a AUTHENTICATE PLAIN " + response],
            "authenticate in two steps": [b"a authenticate plain", response],
        }
        for name, lines in ways.items():
            with self.subTest(name):
                self.assertIn(b"a OK", b"\n".join(self.raw(server, *lines, b"b LOGOUT")))

    def test_a_literal_is_taken_to_its_last_byte(self) -> None:
        lines = self.raw(self.serve(password="x \r\n "), b"a LOGIN ann@example.com {5+}", b"x \r\n ", b"b LOGOUT")
        self.assertIn(b"a OK", b"\n".join(lines))

    def test_a_password_beyond_ascii(self) -> None:
        server = self.serve(password="пароль")
        client = imaplib.IMAP4("127.0.0.1", server.imap_port, timeout=10)
        self.addCleanup(client.shutdown)
        self.assertEqual(client.authenticate("PLAIN", lambda _: f"\0{ANN}\0пароль".encode())[0], "OK")

    def test_a_wrong_password(self) -> None:
        client = imaplib.IMAP4("127.0.0.1", self.serve().imap_port, timeout=10)
        self.addCleanup(client.shutdown)
        with self.assertRaisesRegex(imaplib.IMAP4.error, "AUTHENTICATIONFAILED"):
            client.login(ANN, "wrong")

    def test_starttls(self) -> None:
        server_side, client_side = contexts()
        client = imaplib.IMAP4("127.0.0.1", self.serve(tls=server_side).imap_port, timeout=10)
        self.addCleanup(client.shutdown)
        self.assertIn("LOGINDISABLED", client.capabilities)
        with self.assertRaisesRegex(imaplib.IMAP4.error, "PRIVACYREQUIRED"):
            client.login(ANN, "sandbox")
        client.starttls(client_side)
        self.assertNotIn("STARTTLS", client.capabilities)
        self.assertEqual(client.login(ANN, "sandbox")[0], "OK")

    def test_tls_from_the_first_byte(self) -> None:
        server_side, client_side = contexts()
        server = self.serve(tls=server_side, implicit_tls=True)
        with imaplib.IMAP4_SSL("127.0.0.1", server.imap_port, ssl_context=client_side, timeout=10) as client:
            self.assertEqual(client.login(ANN, "sandbox")[0], "OK")


class ReadingTest(ImapTest):
    def test_any_bytes_come_out_as_they_went_in(self) -> None:
        server = self.serve()
        raws = [b"", b"\r\n", b"\x00\xff{3}\r\n(", b"no end", b"bare\nlines\rand \x1a", bytes(range(256)) * 5000]
        for raw in raws:
            server.deliver(ANN, raw)
        client = self.client(server)
        for uid, raw in enumerate(raws, 1):
            with self.subTest(raw[:20]):
                _, answer = client.uid("FETCH", str(uid), "(UID RFC822.SIZE BODY.PEEK[])")
                head, body = answer[0]
                self.assertEqual((body, f"RFC822.SIZE {len(raw)} ".encode() in head), (raw, True))

    def test_sections_of_a_mail_without_a_blank_line(self) -> None:
        server = self.serve()
        server.deliver(ANN, b"Subject: only a header\r\n")
        client = self.client(server)
        for part, text in (("HEADER", b"Subject: only a header\r\n"), ("TEXT", b"")):
            answer: Any = client.fetch("1", f"(BODY.PEEK[{part}])")[1]
            self.assertEqual(answer[0][1], text)

    def test_peeking_leaves_a_mail_unread_and_reading_does_not(self) -> None:
        server = self.serve(2)
        client = self.client(server)
        client.uid("FETCH", "1", "(BODY.PEEK[])")
        client.uid("FETCH", "2", "(BODY[])")
        self.assertEqual((server.flags(ANN, 1), server.flags(ANN, 2)), (frozenset(), {"\\Seen"}))

    def test_a_folder_opened_to_be_read_stays_as_it_is(self) -> None:
        server = self.serve(1)
        client = self.client(server, readonly=True)
        client.uid("FETCH", "1", "(BODY[])")
        self.assertEqual(client.uid("STORE", "1", "+FLAGS", "(\\Seen)")[0], "NO")
        self.assertEqual(server.flags(ANN, 1), frozenset())

    def test_a_search_without_an_end_is_refused(self) -> None:
        client = self.client(self.serve(1))
        with self.assertRaisesRegex(imaplib.IMAP4.error, "BAD"):
            client.search(None, "NOT " * 3_000 + "ALL")
        self.assertEqual(client.search(None, "ALL"), ("OK", [b"1"]))

    def test_searching_by_flags_and_numbers(self) -> None:
        server = self.serve()
        server.deliver(ANN, MAIL, flags=["\\Seen"])
        server.deliver(ANN, MAIL, flags=["\\Flagged", "$Done"])
        client = self.client(server)
        table = {
            "SEEN": b"1", "UNSEEN": b"2", "FLAGGED": b"2", "UNFLAGGED": b"1", "NOT (SEEN)": b"2", "UID 5:*": b"2",
            "ALL SEEN UID 1:*": b"1", "(SEEN) (FLAGGED)": b"", "NOT NOT 1": b"1", "UNDELETED 1:2": b"1 2",
        }  # fmt: skip
        for keys, found in table.items():
            with self.subTest(keys):
                self.assertEqual(client.uid("SEARCH", keys), ("OK", [found]))

    def test_the_internal_date(self) -> None:
        server = self.serve()
        moment = datetime(2020, 5, 4, 3, 2, 1, tzinfo=UTC)
        server.deliver(ANN, MAIL, received=moment)
        answer: Any = self.client(server).fetch("1", "(INTERNALDATE)")[1]
        told: Any = imaplib.Internaldate2tuple(answer[0])
        self.assertEqual(datetime(*told[:6]).astimezone(UTC), moment)


class ChangesTest(ImapTest):
    def test_arrivals_are_told_at_the_next_command(self) -> None:
        server = self.serve(1)
        client = self.client(server)
        server.deliver(ANN, MAIL)
        client.noop()
        self.assertEqual(client.response("EXISTS")[1][-1], b"2")
        self.assertEqual(client.uid("SEARCH", "ALL"), ("OK", [b"1 2"]))

    def test_what_is_expunged_elsewhere_is_told_but_not_while_numbers_are_in_use(self) -> None:
        server = self.serve(3)
        client = self.client(server)
        server.expunge(ANN, 2)
        client.fetch("3", "(UID)")
        self.assertEqual(client.response("EXPUNGE")[1], [None])
        client.noop()
        self.assertEqual(client.response("EXPUNGE")[1], [b"2"])
        self.assertEqual(client.fetch("2", "(UID)")[1], [b"2 (UID 3)"])

    def test_flags_changed_elsewhere_are_told(self) -> None:
        server = self.serve(1)
        client = self.client(server)
        server.set_flags(ANN, 1, ["\\Seen"])
        client.noop()
        self.assertIn(b"\\Seen", client.response("FETCH")[1][0])

    def test_flags_set_here_are_seen_by_another_session(self) -> None:
        server = self.serve(2)
        one, other = self.client(server), self.client(server)
        one.uid("STORE", "1:*", "+FLAGS.SILENT", "(\\Seen)")
        self.assertEqual(other.uid("SEARCH", "SEEN"), ("OK", [b"1 2"]))
        self.assertEqual(server.flags(ANN, 2), {"\\Seen"})

    def test_expunged_uids_are_not_given_again(self) -> None:
        server = self.serve(2)
        client = self.client(server)
        client.store("2", "+FLAGS", "(\\Deleted)")
        self.assertEqual(client.expunge(), ("OK", [b"2"]))
        self.assertEqual(server.deliver(ANN, MAIL), 3)

    def test_another_uidvalidity_is_told_when_the_folder_is_selected(self) -> None:
        server = self.serve(1, uidvalidity=5)
        client = self.client(server)
        self.assertEqual(client.response("UIDVALIDITY")[1], [b"5"])
        server.uidvalidity = 6
        client.select()
        self.assertEqual(client.response("UIDVALIDITY")[1], [b"6"])

    def test_unknown_uids_are_errors_for_a_test(self) -> None:
        server = self.serve(1)
        for wrong in (lambda: server.flags(ANN, 9), lambda: server.expunge(ANN, 9)):
            with self.assertRaises(KeyError):
                wrong()


class FoldersTest(ImapTest):
    def test_names_beyond_ascii(self) -> None:
        server = self.serve()
        server.deliver(ANN, MAIL, folder='Заявки & "другое"')
        encoded = '"&BBcEMARPBDIEOgQ4- &- \\"&BDQEQARDBDMEPgQ1-\\""'
        client = self.client(server, encoded)
        self.assertEqual(client.uid("SEARCH", "ALL"), ("OK", [b"1"]))
        self.assertIn(f'() "/" {encoded}'.encode(), client.list()[1])
        self.assertEqual(client.status(encoded, "(MESSAGES)")[1], [f"{encoded} (MESSAGES 1)".encode()])

    def test_every_name_survives_the_encoding(self) -> None:
        for name in ("INBOX", "a&b", "&", "日本語", "Ђ/ћ", "🙂 x", 'quo"te\\', "~!*%"):
            with self.subTest(name):
                token = parse(encode_mailbox(name).encode())[0]
                self.assertEqual(decode_mailbox(token.decode() if isinstance(token, bytes) else ""), name)

    def test_a_name_that_is_no_modified_utf7(self) -> None:
        for name in ("&BB", "&!-", "&AB-"):
            with self.subTest(name), self.assertRaises(NoError):
                decode_mailbox(name + "&AB-")


class BoundsTest(ImapTest):
    def test_what_is_too_long_is_refused_and_the_next_command_answered(self) -> None:
        server = self.serve()
        table = {
            "a line": b"a NOOP " + b"x" * 100_000,
            "a literal that waits": b"a LOGIN {100000000}",
            "many parentheses": b"a LOGIN " + b"(" * 1000,
            "wildcards": b'a LIST "" "' + b"*a" * 100 + b'"',
        }
        for name, command in table.items():
            with self.subTest(name):
                first = [] if name != "wildcards" else [b"l LOGIN ann@example.com sandbox"]
                lines = self.raw(server, *first, command, b"b NOOP", b"c LOGOUT")
                self.assertRegex(b"\n".join(lines), rb"(?s)(a|\*) (BAD|NO).*b OK.*c OK")

    def test_a_literal_that_does_not_wait_and_is_too_big_ends_the_session(self) -> None:
        lines = self.raw(self.serve(), b"a LOGIN {100000000+}", b"b NOOP")
        self.assertRegex(lines[-1], rb"a NO \[TOOBIG\]")

    def test_an_endless_line_is_cut_off(self) -> None:
        with socket.create_connection(("127.0.0.1", self.serve().imap_port), timeout=10) as connection:
            with self.assertRaises(ConnectionError):
                while True:
                    connection.sendall(b"x" * 65_536)

    def test_too_many_errors_end_the_session(self) -> None:
        self.assertEqual(self.raw(self.serve(), *[b"a NONSENSE"] * 30)[-1][:5], b"* BYE")

    def test_garbage_is_bad_and_no_more(self) -> None:
        garbage = [b"", b" ", b"a", b"a ", b"* OK", b"\xff NOOP", b'a LOGIN "', b"a LOGIN {5", b"a )", b"a {0}\r\n"]
        for line in garbage:
            with self.subTest(line):
                lines = self.raw(self.serve(), line, b"b LOGOUT")
                self.assertRegex(b"\n".join(lines), rb"BAD.*\n\* BYE.*\nb OK")

    def test_sets_of_numbers(self) -> None:
        numbers = [2, 4, 7, 9]
        table = {"4": [1], "1:5": [0, 1], "5:1": [0, 1], "*": [3], "8:*": [3], "20:*": [3], "*:20": [3],
                 "20:30": [], "2,9": [0, 3], "1:*": [0, 1, 2, 3], "4:4294967295": [1, 2, 3]}  # fmt: skip
        for text, positions in table.items():
            with self.subTest(text):
                self.assertEqual(select(text, numbers), positions)
        self.assertEqual(select("1:*", []), [])
        for text in ("", "0", "a", "1:", ":1", "1,,2", "1:2:3", "-1", "1;2", "99999999999"):
            with self.subTest(text), self.assertRaises(BadError):
                select(text, numbers)
