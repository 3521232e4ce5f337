"""The most that the collector fetches of one mail is read and logged in little memory, whatever it is made of."""

import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST = 36  # MB, the mail's own 4.5 included

_READ = """
import re, sys
from datetime import UTC, datetime
from pathlib import Path
from mailer.reading import read, wants_more
from mailer.record import line
def peak():
    return int(re.search("VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1])
before = peak()
head, body, most = {head!r}, {body!r}, 4608 * 1024
raw = (head + body * (most // len(body)))[:most]
wants_more(raw)
line(read(raw, complete=False), time=datetime.now(UTC), uidvalidity=1, uid=1)
print(peak() - before)
"""


def _kind(kind: str, *others: str) -> bytes:
    fields = ("From: a@example.com", f"Content-Type: {kind}", *others)
    return "\r\n".join((*fields, "", "")).encode()


_PLAIN, _HTML = _kind("text/plain; charset=utf-8"), _kind("text/html; charset=utf-8")
_FLOWED = _kind("text/plain; charset=utf-8; format=flowed")
_JAPANESE = _kind("text/plain; charset=iso-2022-jp") + b"\x1b$B-!"  # a character that Python's own codec lacks
# One emoji makes Python take four bytes for each character of a text.
MAILS = {
    "emoji": (_PLAIN, "😀😀\r\n".encode()),
    "emoji in base64": (_kind("text/plain; charset=utf-8", "Content-Transfer-Encoding: base64"), b"8J+YgA==\r\n"),
    "soft line breaks": (_kind("text/plain", "Content-Transfer-Encoding: quoted-printable"), b"= \r\n"),
    "uuencode": (_kind("text/plain", "Content-Transfer-Encoding: uuencode") + b"begin 644 x\r\n", b"!00\r\n"),
    "flowed lines": (_FLOWED, "😀 \r\n".encode()),
    "flowed quotes": (_FLOWED, "> > 😀\r\n".encode()),
    "enriched": (_kind("text/enriched; charset=utf-8"), "<<😀".encode()),
    "what is in no charset": (_kind("text/plain"), b"\xff\xfe\x80 abc\r\n"),
    "controls": (_PLAIN, "\u202e\u202d😀\u202e".encode()),
    "a meeting's name": (_kind("text/calendar; charset=utf-8") + b"SUMMARY:x\r\n", " 😀\r\n".encode()),
    "words in HTML": (_HTML, "😀\u200b \u200c".encode()),
    "tags": (_HTML, "😀<b>".encode()),
    "lines in HTML": (_HTML, "😀<br>".encode()),
    "lines in pre": (_HTML + b"<pre>", "😀\r\n".encode()),
    "quotes in quotes": (_HTML, "<blockquote>😀".encode()),
    "entities": (_HTML, "&a;😀".encode()),
    "a link of ampersands": (_HTML, b'<a href="' + b"&a" * 500_000 + b'">x</a>'),
    "a style of ampersands": (_HTML, b'<p style="white-space:' + b"&a" * 500_000 + b'">x</p>'),
    "Japanese in one run": (_JAPANESE, b"$B"),
    "Japanese and English": (_JAPANESE, b"\x1b$B-!\x1b(B "),
    "narrow Japanese": (_JAPANESE, b"\x1b(I1"),
    "fields without a value": (b"From: a@example.com\r\n", b"a:\r\n"),
    "the same field": (b"From: a@example.com\r\n", b"Subject: x\r\n"),
}


@unittest.skipUnless(sys.platform == "linux", "only Linux tells what a process has taken at most")
class Memory(unittest.TestCase):
    def test_reading_the_most_that_is_fetched_of_a_mail(self) -> None:
        for name, (head, body) in MAILS.items():
            with self.subTest(name):
                program = _READ.format(head=head, body=body)
                ended = subprocess.run(
                    [sys.executable, "-"], input=program, cwd=ROOT, capture_output=True, text=True, check=True
                )
                self.assertLess(int(ended.stdout) / 1024, MOST)


if __name__ == "__main__":
    unittest.main()
