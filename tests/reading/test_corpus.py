"""Every mail of the corpus is read as the file beside it says."""

import json
import unittest
from pathlib import Path

from mailer.reading import read, wants_more

CORPUS = Path(__file__).parent / "corpus"
MAILS = sorted(CORPUS.glob("*/*.eml"))


class Corpus(unittest.TestCase):
    maxDiff = None

    def test_every_mail_is_read_as_expected(self) -> None:
        self.assertGreaterEqual(len(MAILS), 120)
        for path in MAILS:
            with self.subTest(mail=f"{path.parent.name}/{path.stem}"):
                expected = json.loads(path.with_suffix(".json").read_text("utf-8"))
                reading = read(path.read_bytes())._asdict()
                found = {name: list(value) if isinstance(value, tuple) else value for name, value in reading.items()}
                self.assertEqual({name: found[name] for name in expected}, expected)

    def test_a_beginning_that_wants_no_more_gives_the_same_text(self) -> None:
        for path in MAILS:
            raw = path.read_bytes()
            whole = read(raw)
            if whole.reason == "unreadable":
                continue
            for length in range(0, len(raw), max(1, len(raw) // 40)):
                if not wants_more(raw[:length]):
                    with self.subTest(mail=f"{path.parent.name}/{path.stem}", length=length):
                        part = read(raw[:length], complete=False)
                        found = (part.subject, part.sender, part.ticket)
                        self.assertEqual(found, (whole.subject, whole.sender, whole.ticket))
                        self.assertEqual(part.text.split(), whole.text[: len(part.text)].split())
                    break


if __name__ == "__main__":
    unittest.main()
