"""The record: one line of JSON that harms no terminal and gives everything back."""

import json
import random
import unittest
from datetime import UTC, datetime
from typing import Any

from mailer import record
from mailer.reading import Reading

TIME = datetime(2026, 11, 22, 10, 15, 3, 999, tzinfo=UTC)
TICKET = Reading(
    ticket=12345,
    subject="Re: [Ticket #12345] Mailer",
    sender="alice@example.com",
    date="2026-11-22T10:15:00+00:00",
    message_id="<a@example.com>",
    text="Спасибо",
    attachments=(),
    truncated=False,
    reason=None,
    related_ticket=None,
    defects=(),
)
BOUNCE = TICKET._replace(
    ticket=None, subject=None, sender=None, date=None, message_id=None, reason="bounce", related_ticket=7
)
# C0, DEL, C1, the two separators that some readers take for line ends, and what turns the direction of text.
CONTROLS = {
    *map(chr, (*range(32), *range(127, 160))), "\u2028", "\u2029",
    "\u061c", "\u200e", "\u200f", *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))),
}


def _line(reading: Reading, **where: Any) -> str:
    """The record as text."""
    return record.line(reading, **where).decode()


class Record(unittest.TestCase):
    def test_a_ticket_mail(self) -> None:
        self.assertEqual(
            _line(TICKET, time=TIME, uidvalidity=1699, uid=42),
            '{"time": "2026-11-22T10:15:03+00:00", "ticket": 12345, "from": "alice@example.com", '
            '"subject": "Re: [Ticket #12345] Mailer", "text": "Спасибо", "date": "2026-11-22T10:15:00+00:00", '
            '"message_id": "<a@example.com>", "uidvalidity": 1699, "uid": 42}\n',
        )
        self.assertEqual(record.success_or_error(TICKET), "success")

    def test_any_other_mail(self) -> None:
        self.assertEqual(
            _line(BOUNCE, time=TIME, uidvalidity=1, uid=2),
            '{"time": "2026-11-22T10:15:03+00:00", "reason": "bounce", "related_ticket": 7, "from": null, '
            '"subject": null, "text": "Спасибо", "date": null, "message_id": null, "uidvalidity": 1, "uid": 2}\n',
        )
        self.assertEqual(record.success_or_error(BOUNCE), "error")
        self.assertNotIn("related_ticket", _line(BOUNCE._replace(related_ticket=None), time=TIME))

    def test_what_is_there_only_at_times(self) -> None:
        reading = TICKET._replace(attachments=("a.pdf", "b\n.png"), truncated=True, defects=("parts",))
        found = json.loads(_line(reading, time=TIME, uidvalidity=1, uid=2))
        self.assertEqual(list(found)[-3:], ["attachments", "truncated", "defects"])
        self.assertEqual(found["attachments"], ["a.pdf", "b\n.png"])
        self.assertEqual((found["truncated"], found["defects"]), (True, ["parts"]))

    def test_a_mail_in_a_file(self) -> None:
        found = json.loads(_line(TICKET, time=TIME, file="letters/1.eml"))
        self.assertEqual(list(found)[:3], ["file", "time", "ticket"])
        self.assertNotIn("uid", found)
        self.assertNotIn("uidvalidity", found)

    def test_one_line_without_controls_from_which_the_same_strings_come_back(self) -> None:
        chance = random.Random(1)
        every = "".join(map(chr, range(0x300))) + "".join(sorted(CONTROLS)) + "\ufeff\ufffe😀" + "\\\"/"
        for text in [every, *("".join(chance.choices(every, k=50)) for _ in range(200))]:
            line = _line(TICKET._replace(text=text, subject=text, sender=text), time=TIME)
            self.assertEqual(line.count("\n"), 1)
            self.assertFalse(CONTROLS & set(line[:-1]))
            self.assertEqual(line.splitlines(), [line[:-1]])
            found = json.loads(line)
            self.assertEqual((found["text"], found["subject"], found["from"]), (text, text, text))

    def test_letters_of_all_languages_stay_as_they_are(self) -> None:
        for text in ("Ёжик 你好 😀", "שלום عليكم", "\U0001f468\u200d\U0001f467", "می\u200cخواهم"):
            self.assertIn(text, _line(TICKET._replace(text=text), time=TIME))


if __name__ == "__main__":
    unittest.main()
