"""Mail as programs get it wrong: it is read as its writer meant it."""

import base64
import unittest

from mailer.reading import Reading, read

FROM = b"From: a@example.com\r\n"
PICTURE = b"Content-Type: image/png; name=x.png\r\nContent-ID: <x>\r\n\r\nPNG\r\n"


def mail(fields: str, body: bytes = b"x") -> Reading:
    return read(FROM + fields.encode() + b"\r\n\r\n" + body)


def related(parameters: str, *parts: bytes) -> Reading:
    body = b"".join(b"--b\r\n" + part for part in parts) + b"--b--\r\n"
    return mail(f"Content-Type: multipart/related; boundary=b{parameters}", body)


class Mistakes(unittest.TestCase):
    def test_a_raw_subject_in_utf_8_is_read_whatever_the_charset_of_the_text(self) -> None:
        for charset in ("iso-8859-1", "windows-1251", "koi8-r", "gb2312", "shift_jis", "utf-16"):
            with self.subTest(charset):
                found = mail(f"Subject: Ответ: [Ticket #7] Mailer\r\nContent-Type: text/plain; charset={charset}")
                self.assertEqual((found.ticket, found.subject), (7, "Ответ: [Ticket #7] Mailer"))

    def test_western_bytes_declared_as_utf_8(self) -> None:
        for text in ("Grüße aus München", "déjà vu", "é", "Un café", "Menü", "olé!", "10 €", "Il est là"):
            with self.subTest(text):
                fields = "Content-Type: text/plain; charset=utf-8\r\nSubject: "
                found = read(FROM + fields.encode() + text.encode("cp1252") + b"\r\n\r\n" + text.encode("cp1252"))
                self.assertEqual((found.text, found.subject), (text, text))

    def test_letters_at_the_very_end_are_enough_to_know_the_charset_by(self) -> None:
        for text in ("hello Мир", "ping нет", "VPN да"):
            for charset in ("cp1251", "koi8-r", "cp866", "iso-8859-5"):
                with self.subTest(text, charset=charset):
                    found = read(FROM + b"Subject: " + text.encode(charset) + b"\r\n\r\n" + text.encode(charset))
                    self.assertEqual((found.text, found.subject), (text, text))

    def test_utf_8_that_ends_in_the_middle_of_a_character_is_utf_8(self) -> None:
        for end in ("й".encode()[:1], "€".encode()[:2], "€".encode()[:1], "😀".encode()[:3]):
            with self.subTest(end):
                self.assertEqual(read(FROM + b"\r\n" + "Привет, café".encode() + end).text, "Привет, café\ufffd")

    def test_the_text_of_related_parts_wherever_it_stands(self) -> None:
        html = b"Content-Type: text/html\r\nContent-ID: <h>\r\n\r\n<p>words\r\n"
        note = b"Content-Type: text/html\r\nContent-ID: <n>\r\n\r\n<p>note\r\n"
        for parameters, parts in (
            ("", [html, PICTURE]),
            ("", [PICTURE, html]),
            ('; start="<h>"', [PICTURE, html]),
            ("; start=h", [PICTURE, html]),
            ('; start="<h>"', [note, html, PICTURE]),
            ("; start=q", [html, note]),
        ):
            with self.subTest(parameters, first=parts[0]):
                self.assertEqual(related(parameters, *parts).text, "words")

    def test_a_picture_in_the_html_hides_nothing(self) -> None:
        picture = base64.b64encode(bytes(1_500_000))
        for wrapped in (picture, picture[:76] + b"\r\n" + picture):
            html = b'<p>before</p><img src="data:image/png;base64,' + wrapped + b'"><p>after</p>'
            found = mail("Content-Type: text/html", html)
            self.assertEqual((found.text, found.truncated), ("before\n\nafter", False))

    def test_html_that_is_cut_in_a_tag_ends_before_it(self) -> None:
        found = mail("Content-Type: text/html", b'<p>before</p><img alt="' + b"a" * 1_200_000 + b'"><p>after</p>')
        self.assertEqual((found.text, found.truncated), ("before", True))

    def test_html_as_it_is_shown(self) -> None:
        table = {
            "<ol start=5><li>five<li>six</ol>": "5. five\n6. six",
            "<ol start=x><li>one</ol>": "1. one",
            '<p style="x-display:none">shown': "shown",
            '<p style="display:nonexistent">shown': "shown",
            '<p style="color:red;display:none">hidden</p>shown': "shown",
        }
        for html, text in table.items():
            with self.subTest(html):
                self.assertEqual(mail("Content-Type: text/html", html.encode()).text, text)

    def test_a_person_who_is_the_postmaster(self) -> None:
        for fields, reason in (
            ("Subject: lunch?", "subject"), ("Subject: Undeliverable: x", "bounce"), ("Return-Path: <>", "auto_reply")
        ):
            found = read(f"From: postmaster@example.com\r\n{fields}\r\n\r\nx".encode())
            self.assertEqual(found.reason, reason)
        self.assertEqual(read(b"From: MAILER-DAEMON@example.com\r\nSubject: x\r\n\r\nx").reason, "bounce")


if __name__ == "__main__":
    unittest.main()
