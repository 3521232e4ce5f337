"""Mail made to harm its reader: there is a reading, soon, and it says what was left out."""

import base64
import os
import random
import time
import unittest
from pathlib import Path

from mailer.imap.parts import cuts
from mailer.reading import Reading, content, headers, mime, read, wants_more

CORPUS = Path(__file__).parent / "corpus"
FROM = b"From: a@example.com\r\nSubject: x\r\n"
HTML = FROM + b"Content-Type: text/html\r\n\r\n"
SIZE = 80_000

# Four times as much may take four times as long; a quadratic reader takes sixteen times as long.
HOSTILE = {
    "open brackets in To": lambda n: FROM + b"To: " + b"(<[" * n + b"\r\n\r\n",
    "open brackets in From": lambda n: b"From: " + b"(<\"[" * n + b"\r\n\r\n",
    "quotes in From": lambda n: b"From: " + b'"\\"' * n + b"\r\n\r\n",
    "encoded words without an end": lambda n: b"Subject: " + b"=?utf-8?q?a" * n + b"\r\n\r\n",
    "header of nothing but folds": lambda n: b"Subject: x" + b"\r\n " * n + b"\r\n\r\n",
    "header lines without colons": lambda n: FROM + b"nothing\r\nX: y\r\n" * n + b"\r\n",
    "parameters without an end": lambda n: FROM + b"Content-Type: text/plain; " + b"a*0=" * n + b"\r\n\r\n",
    "parts": lambda n: FROM + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * n,
    "almost boundaries": lambda n: FROM + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--bb\r\n" * n,
    "blanks after a boundary": lambda n: FROM + b"Content-Type: multipart/mixed\r\n\r\n--" + b" " * n + b"x\r\n",
    "one line": lambda n: FROM + b"\r\n" + b"x" * n,
    "NULs": lambda n: FROM + b"\r\n" + b"\0" * n,
    "8-bit bytes": lambda n: FROM + b"\r\n" + b"\xd0\xff" * n,
    "base64": lambda n: FROM + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode(b"x" * n),
    "base64 in crumbs": lambda n: FROM + b"Content-Transfer-Encoding: base64\r\n\r\n" + b"QQ==" * n,
    "base64 that is none": lambda n: FROM + b"Content-Transfer-Encoding: base64\r\n\r\n" + b"= \t!" * n,
    "blanks before what is no base64": lambda n: FROM + b"Content-Transfer-Encoding: base64\r\n\r\n" + b" " * n + b">",
    "line breaks behind a margin without an end": lambda n: HTML + b"<p>" + b">" * 4 * n + b"<br>" * n,
    "empty lines behind a margin without an end": lambda n: HTML + b"<pre>" + b">" * n + b"\n" * n,
    "quoted-printable": lambda n: FROM + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"= \t" * n,
    "uuencode": lambda n: FROM + b"Content-Transfer-Encoding: uuencode\r\n\r\nbegin 644 x\r\n" + b"!!\r\n" * n,
    "flowed nothing": lambda n: FROM + b"Content-Type: text/plain; format=flowed\r\n\r\n" + b"\n" * n,
    "flowed quotes": lambda n: FROM + b"Content-Type: text/plain; format=flowed\r\n\r\n" + b">>> x \r\n" * n,
    "utf-7": lambda n: FROM + b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + b"+2AA-" * n,
    "tags": lambda n: HTML + b"<b>" * n,
    "tags without an end": lambda n: HTML + b"<a " * n,
    "tags with open quotes": lambda n: HTML + b'<a ">"' * n,
    "comments without an end": lambda n: HTML + b"<!--" * n + b">",
    "styles without an end": lambda n: HTML + b"<style>" * n,
    "hidden without an end": lambda n: HTML + b"<div hidden>" * n + b"</div>",
    "links in one line": lambda n: HTML + b"<a href=http://x>y</a>" * n,
    "lists in lists": lambda n: HTML + b"<ul><li>x" * n,
    "quotes in quotes": lambda n: HTML + b"<blockquote>x" * n,
    "attributes": lambda n: HTML + b"<p " + b"a=b " * n + b"style=x>",
    "letters in an attribute": lambda n: HTML + b"<p style" + b"a" * n + b">",
    "entities": lambda n: HTML + b"&#x" * n + b"&" * n,
    "parameters of parts": lambda n: (
        FROM + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        + (b"--b\r\nContent-Disposition: attachment; " + b'a="\\b";' * (n // 200) + b"\r\n\r\nx\r\n") * 200
    ),
    "enriched": lambda n: FROM + b"Content-Type: text/enriched\r\n\r\n" + b"<" * n,
}


def nested(levels: int) -> bytes:
    """Multiparts in multiparts."""
    raw = FROM
    for level in range(levels):
        raw += b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)
    return raw + b"\r\ndeep\r\n"


TROUBLE = (b"\r\n", b"\n\n", b"=?", b"?=", b"--b1", b"--b1--", b"<", b'"', b"\0", b"=\r\n", b"\x1b$")


class HostileMail(unittest.TestCase):
    def test_time_is_linear(self) -> None:
        for name, make in HOSTILE.items():
            with self.subTest(mail=name):
                small = max(1, SIZE // max(1, len(make(1000)) // 1000))
                times = []
                for count in (small, 4 * small):
                    raw = make(count)
                    begin = time.process_time()
                    self.assertIsInstance(read(raw), Reading)
                    times.append(time.process_time() - begin)
                self.assertLess(times[1], max(0.5, 9 * times[0]))

    def test_a_sender_that_decodes_into_one_encoded_word_after_the_other(self) -> None:
        begin = time.process_time()
        reading = read(b"Subject: [Ticket #7] Mailer\nFrom: " + b"=" * 1010 + b"?" * 1010 + b"\n\nhello")
        self.assertLess(time.process_time() - begin, 0.5)
        self.assertEqual((reading.ticket, reading.sender, reading.text), (7, None, "hello"))

    def test_the_charset_of_a_text_makes_no_other_words_of_a_plain_subject(self) -> None:
        for charset in ("utf-16", "utf-16le", "utf-16be", "utf-32", "utf-7", "hz"):
            fields = f"From: a@b.de\nSubject: Re: [Ticket #7] Mailer\nContent-Type: text/plain; charset={charset}\n"
            with self.subTest(charset):
                self.assertEqual(read(f"{fields}\n".encode() + "x".encode(charset)).ticket, 7)

    def test_text_over_the_limit_that_is_less_without_its_marks_is_marked(self) -> None:
        for kind, body in (("text/plain; format=flowed", b"\n"), ("text/enriched", b"<b>")):
            with self.subTest(kind):
                raw = FROM + f"Content-Type: {kind}\r\n\r\nx".encode() + body * 3 * content.TEXT_LIMIT
                self.assertTrue(read(raw).truncated)

    def test_long_texts_are_the_same_as_short_ones(self) -> None:
        table = {
            "text/plain; format=flowed": ("> a \r\n> b\r\n-- \r\n", "> a b\n-- \n"),
            "text/enriched": ("<b>a</b> << б\r\n", "a < б\n"),
            "text/html; charset=utf-8": ("<b>a &amp;</b>\r\n\r\n б", "a & б"),
            "text/html; charset=utf-16": ("a<br>б<br>", "a\nб\n"),
            "text/plain; charset=utf-16": ("aб😀\r\n", "aб😀\n"),
            "text/plain; charset=gb18030": ("a汉😀\r\n", "a汉😀\n"),
            "text/plain; charset=utf-8": ("aб😀\r\n", "aб😀\n"),
            "text/plain": ("aб😀\r\n", "aб😀\n"),
        }
        for kind, (piece, expected) in table.items():
            charset = kind.partition("charset=")[2] or "utf-8"
            for times in (1, 30_000):
                with self.subTest(kind, times=times):
                    fields = f"From: a@example.com\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
                    raw = fields.encode() + base64.b64encode((piece * times).encode(charset))
                    reading = read(raw)
                    self.assertEqual(reading.text.rstrip("\n"), (expected * times).rstrip("\n"))
                    self.assertFalse(reading.truncated)

    def test_fields_and_parameters_are_bounded(self) -> None:
        many = b"".join(b"X-%d: y\r\n" % number for number in range(20_000))
        self.assertEqual(read(FROM + many + b"\r\ntext").subject, "x")
        self.assertIsNone(read(many + FROM + b"\r\ntext").subject)
        name = "".join(f" filename*{number}=x;" for number in range(150))
        raw = FROM + f"Content-Disposition: attachment;{name}\r\n\r\n".encode()
        self.assertEqual(read(raw).attachments, ("x" * 150,))

    def test_levels_are_bounded_and_named(self) -> None:
        for levels in (mime.DEPTH + 5, 5000):
            self.assertEqual(read(nested(levels)).defects, ("nesting",))
        self.assertEqual((read(nested(10)).text, read(nested(10)).defects), ("deep", ()))
        wrapped = FROM + b"Content-Type: message/rfc822\r\n\r\n" * 5000 + b"x"
        self.assertEqual(read(wrapped).defects, ("nesting",))

    def test_parts_are_bounded_and_named(self) -> None:
        reading = read(HOSTILE["parts"](5000))
        self.assertEqual(reading.defects, ("parts",))
        self.assertLess(len(reading.text), 2 * mime.PARTS)

    def test_a_header_over_the_limit_is_cut_and_named(self) -> None:
        reading = read(FROM + b"X: y\r\n" * (headers.BLOCK_LIMIT // 4) + b"\r\ntext")
        self.assertEqual((reading.subject, reading.defects), ("x", ("header",)))

    def test_text_over_the_limit_is_cut_and_marked(self) -> None:
        for raw in (FROM + b"\r\n" + b"word " * 400_000, HTML + b"word " * 400_000, HTML + b"<b>" * 400_000 + b"end"):
            reading = read(raw)
            self.assertLessEqual(len(reading.text), content.TEXT_LIMIT)
            self.assertTrue(reading.truncated)
        self.assertFalse(read(FROM + b"\r\n" + b"x" * content.TEXT_LIMIT).truncated)

    def test_no_charset_makes_lone_surrogates(self) -> None:
        bodies = {"utf-7": b"+2AA-", "unicode_escape": b"\\ud800", "utf-16-le": b"\0\xd8", "cesu-8": b"\xed\xa0\x80"}
        for name, body in bodies.items():
            raw = FROM + b"Content-Type: text/plain; charset=" + name.encode() + b"\r\n\r\n" + body
            read(raw).text.encode("utf-8")


class Fuzz(unittest.TestCase):
    def test_mutations_of_the_corpus_are_read_in_a_second_each(self) -> None:
        chance = random.Random(20_260_101)
        mails = [path.read_bytes() for path in sorted(CORPUS.glob("*/*.eml"))]
        for number in range(20_000 if os.environ.get("MAILER_LONG") else 1500):
            raw = mutated(chance, mails)
            with self.subTest(number=number):
                begin = time.process_time()
                reading = read(raw, complete=chance.random() < 0.8)
                cuts(mime.as_mail(raw), in_text=wants_more(raw))
                self.assertLess(time.process_time() - begin, 1)
                self.assertIsInstance(reading, Reading)
                reading.text.encode("utf-8")


def mutated(chance: random.Random, mails: list[bytes]) -> bytes:
    """A mail with some of its bytes changed, left out, doubled, or taken from another one."""
    raw = bytearray(chance.choice(mails))
    for _ in range(chance.choice((1, 2, 5, 20))):
        at = chance.randrange(len(raw) + 1)
        length = chance.choice((1, 1, 4, 30, 300))
        kind = chance.randrange(6)
        if kind == 0:
            raw[at : at + length] = chance.randbytes(length)
        elif kind == 1:
            del raw[at : at + length]
        elif kind == 2:
            raw[at:at] = raw[at : at + length] * chance.choice((1, 2, 50))
        elif kind == 3:
            raw[at:at] = chance.choice(TROUBLE)
        elif kind == 4:
            other = chance.choice(mails)
            begin = chance.randrange(len(other) + 1)
            raw[at : at + length] = other[begin : begin + 300]
        elif raw:
            del raw[at:]
    return bytes(raw)


if __name__ == "__main__":
    unittest.main()
