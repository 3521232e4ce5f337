"""Reading the beginning of a mail: how much of it is worth fetching, and what is made of it."""

import base64
import unittest

from mailer.reading import LOOK_BEHIND, content, read, wants_more

HEAD = b"From: a@example.com\r\nSubject: [Ticket #1] Mailer\r\nMIME-Version: 1.0\r\n"
MIXED = HEAD + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
PLAIN = b"--b\r\nContent-Type: text/plain\r\n\r\nThe text\r\n"
FILE = b'--b\r\nContent-Type: application/pdf; name="a.pdf"\r\nContent-Disposition: attachment\r\n'
FILE += b"Content-Transfer-Encoding: base64\r\n\r\n"
DATA = base64.encodebytes(bytes(60_000)).replace(b"\n", b"\r\n")
ALTERNATIVE = HEAD + b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
HTML = b"--b\r\nContent-Type: text/html\r\n\r\n<p>The text "

WANTED = {
    "nothing yet": b"",
    "inside the header": HEAD[:40],
    "inside the name of a field": HEAD + b"Conte",
    "at the end of the header": HEAD,
    "inside a single text": HEAD + b"\r\nThe te",
    "before the first part": MIXED,
    "inside the header of a part": MIXED + PLAIN[:20],
    "inside the name of a field of a part": MIXED + PLAIN + FILE[:60],
    "in a calendar": HEAD + b"Content-Type: text/calendar\r\n\r\nBEGIN:VCAL",
    "inside the text part": MIXED + PLAIN[:-6],
    "after the text, inside the next part's header": MIXED + PLAIN + FILE[:30],
    "in HTML, the plain part being empty": ALTERNATIVE + b"--b\r\n\r\n \r\n" + HTML,
    "in HTML that is the only text": ALTERNATIVE + HTML,
    "in an attachment that comes before any text": MIXED + FILE + DATA,
    "in a forwarded mail": MIXED + PLAIN + b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nHel",
}
ENOUGH = {
    "in the attachment after the text": MIXED + PLAIN + FILE + DATA[:100],
    "in the HTML version of a plain text": ALTERNATIVE + PLAIN + HTML,
    "after the last part": MIXED + PLAIN + b"--b--\r\n",
    "text of more than is recorded": HEAD + b"\r\n" + b"x" * (content.TEXT_LIMIT + 10),
    "in an attachment that is the whole mail": HEAD + b"Content-Type: image/png\r\n\r\n" + b"x",
    "in an attachment behind which nobody looks for a text": MIXED + FILE + b"x" * LOOK_BEHIND,
    "in a returned message": HEAD
    + b"Content-Type: multipart/report; boundary=b\r\n\r\n"
    + PLAIN
    + b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nHel",
}


class Beginning(unittest.TestCase):
    def test_more_is_wanted_while_it_could_change_the_record(self) -> None:
        for name, raw in WANTED.items():
            with self.subTest(ends=name):
                self.assertTrue(wants_more(raw))

    def test_no_more_is_wanted_than_that(self) -> None:
        for name, raw in ENOUGH.items():
            with self.subTest(ends=name):
                self.assertFalse(wants_more(raw))

    def test_an_attachment_that_is_cut_off_is_named_without_a_defect(self) -> None:
        reading = read(MIXED + PLAIN + FILE + DATA[:1001], complete=False)
        self.assertEqual((reading.ticket, reading.text, reading.attachments), (1, "The text", ("a.pdf",)))
        self.assertEqual((reading.defects, reading.truncated), ((), False))

    def test_a_text_that_is_cut_off_is_marked(self) -> None:
        for raw in (HEAD + b"\r\nThe te", MIXED + PLAIN[:-6], MIXED + PLAIN + b"--b\r\n\r\nmore"):
            self.assertTrue(read(raw, complete=False).truncated)
            self.assertFalse(read(raw).truncated)

    def test_a_small_beginning_is_enough_for_a_large_mail(self) -> None:
        raw = MIXED + PLAIN + FILE + DATA * 100 + b"--b--\r\n"
        length = next(length for length in range(1, len(raw)) if not wants_more(raw[:length]))
        self.assertLess(length, 500)
        self.assertEqual(read(raw[:length], complete=False), read(raw))


if __name__ == "__main__":
    unittest.main()
