"""Large mails in a real mailbox: everything is recorded, and attachments are not downloaded."""

import base64
import re
import unittest

from mailer.reading import read
from tests.benchmarks import processes
from tests.real.workplace import Workplace
from tests.support.mails import multipart
from tests.support.realservers import Dovecot, requires
from tests.support.waiting import wait_until
from tests.test_imap_parts import HEAD, MAILS, file, text

ADDRESS = "large@example.com"
SENT = re.compile(r"imap\(large@.* out=(\d+)")


@requires("dovecot")
class DovecotTest(unittest.TestCase):
    def setUp(self) -> None:
        dovecot = self.enterContext(Dovecot())
        self.dovecot = dovecot
        self.workplace = Workplace(EMAIL_LOGIN=ADDRESS, IMAP_PORT=dovecot.imap_port)
        self.addCleanup(self.workplace.close)

    def records(self, *mails: bytes) -> list[dict]:
        self.dovecot.deliver(ADDRESS, *mails)
        done = self.workplace.run("collector.py", "--once")
        self.assertEqual(done.returncode, 0, done)
        return self.workplace.successes()

    def test_everything_is_recorded(self) -> None:
        records = self.records(*(raw for raw, _ in MAILS.values()))
        for (name, (raw, _)), record in zip(MAILS.items(), records, strict=True):
            with self.subTest(name):
                reading = read(raw)
                self.assertEqual(record["text"], reading.text)
                self.assertEqual(tuple(record.get("attachments", ())), reading.attachments)

    def test_attachments_are_not_downloaded(self) -> None:
        photos = [file(f"{number}.jpg") for number in range(3)]
        records = self.records(
            HEAD + multipart("mixed", "b", text("look"), *photos),
            HEAD + multipart("mixed", "b", text("before"), file("video", 25_000_000), text("after")),
        )
        self.assertEqual([record["attachments"] for record in records], [["0.jpg", "1.jpg", "2.jpg"], ["video"]])
        self.assertEqual([record["text"] for record in records], ["look", "before\nafter"])
        wait_until(lambda: SENT.search(self.dovecot.log.read_text()))
        self.assertLess(sum(int(size) for size in SENT.findall(self.dovecot.log.read_text())), 200_000)

    def test_memory_is_bounded(self) -> None:
        fields = HEAD + b"Content-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        for kind, words in ((b"plain", "😀🔥" * 40 + "\n"), (b"html", "<p>" + "😀🔥" * 40 + "<br>\n")):
            data = base64.encodebytes((words * 17_000).encode()).replace(b"\n", b"\r\n")
            self.dovecot.deliver(ADDRESS, *[fields % kind + data] * 2)
        with self.workplace.running("collector.py") as collector:
            collector.wait_until(lambda: len(self.workplace.successes()) == 4, 60)
            self.assertLess(processes.peak_memory(collector.process.pid), 60)
        self.assertEqual([record["truncated"] for record in self.workplace.successes()], [True] * 4)


if __name__ == "__main__":
    unittest.main()
