"""The saved position: durable, exclusive, compact."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from mailer.errors import StateError
from mailer.position import Position
from mailer.progress import Mark, Progress, Tries, pack, unpack
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
SAVED = Progress(
    1699, 1000, "1:3,7,900:999", done=2, refused={7: Tries(2, 1_763_806_503.25)}, marking=(1, 2),
    marks=(Mark(1, 2, 3, 4), Mark(5, 6, 7, 1 << 62)),
)


class SequenceSets(unittest.TestCase):
    def test_sets_are_compact_and_come_back_as_they_were(self) -> None:
        high = 4294967295
        table = {(): "", (1,): "1", (1, 2, 3): "1:3", (2, 4, 5, 9): "2,4:5,9", (high - 1, high): f"{high - 1}:{high}"}
        for uids, text in table.items():
            with self.subTest(text):
                self.assertEqual(pack(uids), text)
                self.assertEqual(tuple(unpack(text)), uids)

    def test_a_million_uids_take_four_megabytes(self) -> None:
        uids = unpack("1:1000000")
        self.assertEqual((len(uids), uids.itemsize), (1_000_000, 4))


class Positions(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-position-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def open(self, mailbox: str = "a@host/INBOX") -> Position:
        position = Position(self.folder / "state", mailbox)
        self.addCleanup(position.close)
        return position

    def test_a_mailbox_never_seen_has_no_uidvalidity(self) -> None:
        self.assertEqual(self.open().load(), Progress())

    def test_what_was_saved_is_there_after_a_restart(self) -> None:
        position = self.open()
        position.begin(SAVED)
        position.close()
        position = self.open()
        self.assertEqual(position.load(), SAVED)
        further = replace(SAVED, done=7, refused={}, marking=(7,))
        position.save(further)
        position.close()
        self.assertEqual(self.open().load(), further)

    def test_mailboxes_are_kept_apart(self) -> None:
        first = self.open()
        first.begin(SAVED)
        first.close()
        second = self.open("b@host/INBOX")
        self.assertEqual(second.load(), Progress())

    def test_others_are_told_of_where_a_mailbox_is_new(self) -> None:
        position = self.open("me@host/INBOX")
        position.begin(SAVED)
        self.assertEqual(position.others(), [])
        position.close()
        other = self.open("you@host/INBOX")
        self.assertEqual((other.load(), other.others()), (Progress(), ["me@host/INBOX"]))

    def test_the_folder_is_private(self) -> None:
        self.open()
        if sys.platform != "win32":
            self.assertEqual((self.folder / "state").stat().st_mode & 0o077, 0)

    def test_a_second_collector_is_refused_until_the_first_is_killed(self) -> None:
        code = (
            "import sys, time; from pathlib import Path; from mailer.position import Position\n"
            f"held = Position(Path({str(self.folder / 'state')!r}), 'other'); print('held', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as first:
            assert first.stdout is not None
            self.assertEqual(first.stdout.readline().strip(), b"held")
            with self.assertRaises(StateError) as refused:
                self.open()
            first.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        self.assertTrue(refused.exception.passing)
        self.assertIn("another collector is running", str(refused.exception))
        self.assertIn(str(self.folder / "state"), str(refused.exception))
        wait_until(lambda: self.open().load() == Progress())

    def test_a_damaged_file_is_named_and_not_called_busy(self) -> None:
        self.open().close()
        (self.folder / "state" / "collector.db").write_bytes(b"this is no database" * 1000)
        with self.assertRaises(StateError) as damaged:
            self.open()
        self.assertFalse(damaged.exception.passing)
        self.assertIn("collector.db", str(damaged.exception))
        self.assertIn("delete it", str(damaged.exception))

    def test_a_file_that_lacks_its_end_is_damaged_and_no_first_start(self) -> None:
        position = self.open()
        position.begin(SAVED)
        position.close()
        file = self.folder / "state" / "collector.db"
        whole = file.read_bytes()
        for length in (*range(4_000, len(whole), 1_500), len(whole) - 1_000):
            for filling in (b"", bytes(len(whole) - length)):
                with self.subTest(length, zeros=len(filling)):
                    file.write_bytes(whole[:length] + filling)
                    self.assertRaises(StateError, self.open)
        file.write_bytes(whole)
        self.assertEqual(self.open().load(), SAVED)

    def test_a_row_that_nobody_wrote_is_a_clear_error(self) -> None:
        position = self.open()
        position.begin(SAVED)
        position.close()
        with sqlite3.connect(self.folder / "state" / "collector.db") as database:
            database.execute("UPDATE progress SET marks = 'rubbish'")
        database.close()
        with self.assertRaises(StateError):
            self.open().load()

    def test_a_file_in_place_of_the_folder_is_a_clear_error(self) -> None:
        (self.folder / "state").write_text("")
        with self.assertRaises(StateError):
            self.open()

    def test_a_full_disk_leaves_the_last_position_and_is_got_over(self) -> None:
        position = self.open()
        position.begin(SAVED)
        database = position._database
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to a full disk
        large = replace(SAVED, pending=",".join(map(str, range(1, 100_000, 2))))
        with self.assertRaises(StateError) as full:
            position.begin(large)
        self.assertTrue(full.exception.passing)
        self.assertEqual(position.load(), SAVED)
        database.execute("PRAGMA max_page_count = 1000000")
        position.begin(large)
        self.assertEqual(position.load(), large)
