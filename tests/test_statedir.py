"""The state folder: made for its owner alone, and complained of when others can write to it."""

import os
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path

from mailer import disk, statedir
from mailer.errors import StateError
from mailer.journal import Journal, keep
from mailer.position import Position
from mailer.sequence import Sequence


@unittest.skipUnless(os.name == "posix", "needs permission bits")
class StateFolder(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-statedir-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.addCleanup(os.umask, os.umask(0))

    def test_it_is_its_owners_alone_and_so_is_what_is_made_in_it(self) -> None:
        state = self.folder / "new" / "state"
        with self.assertNoLogs("mailer.statedir"):
            statedir.prepare(state)
            statedir.prepare(state)
        (state / "file").touch()
        modes = [path.stat().st_mode & 0o777 for path in (state.parent, state, state / "file")]
        self.assertEqual(modes, [0o700, 0o700, 0o600])

    def test_others_who_can_write_to_it_are_warned_of_and_nothing_is_changed(self) -> None:
        for mode, warned in ((0o770, True), (0o702, True), (0o777, True), (0o755, False), (0o700, False)):
            with self.subTest(oct(mode)):
                self.folder.chmod(mode)
                with self.assertLogs() as log:
                    statedir.prepare(self.folder)
                    statedir._log.info("end")
                self.assertEqual(len(log.output), 1 + warned)
                self.assertEqual(f"chmod go-w {self.folder}" in log.output[0], warned)
                self.assertEqual(self.folder.stat().st_mode & 0o777, mode)

    def test_a_database_that_is_none_is_told_and_left_alone(self) -> None:
        database = self.folder / "tickets.db"
        disk.check_database(database, "; advice")
        self.assertFalse(database.exists())
        for content in (b"", b"SQLite format 3\0 and so on"):
            database.write_bytes(content)
            disk.check_database(database, "; advice")
            self.assertEqual(database.read_bytes(), content)
        database.write_bytes(b"trash")
        for path in (database, self.folder):
            with self.assertRaises(StateError) as wrong:
                disk.check_database(path, "; advice")
            self.assertIn(str(path), str(wrong.exception))

    def test_a_folder_that_cannot_be_made_is_named(self) -> None:
        (self.folder / "file").touch()
        for path in (self.folder / "file", self.folder / "file" / "x", self.folder / ("x" * 300)):
            with self.subTest(path.name[:9]), self.assertRaises(StateError) as failure:
                statedir.prepare(path)
            self.assertIn(f"STATE_DIR: {path} ", str(failure.exception))
            self.assertFalse(failure.exception.passing)

    def test_a_disk_without_room_for_one_more_file_is_said_to_pass(self) -> None:
        if os.geteuid() or not shutil.which("mount"):
            self.skipTest("needs root, to mount a small disk")
        mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=4", "mailer-test", str(self.folder)]
        if subprocess.run(mount, capture_output=True).returncode:
            self.skipTest("may not mount a small disk here")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.folder)], check=True)
        state = self.folder / "state"
        state.mkdir()
        for number in range(2):
            (self.folder / str(number)).touch()
        cases: dict[str, Callable[[], object]] = {
            "folder": lambda: statedir.prepare(state / "new"),
            "position": lambda: Position(state, "mailbox").close(),
            "sequence": lambda: Sequence(state, start=1, step=1, offset=0).close(),
            "log": lambda: Journal(state / "log").append(b"{}\n"),
            "mail": lambda: keep(state / "mail", b""),
        }
        for what, make in cases.items():
            with self.subTest(what):
                with self.assertRaises(StateError) as full:
                    make()
                self.assertTrue(full.exception.passing, str(full.exception))
        for number in range(2):
            (self.folder / str(number)).unlink()
        cases["log"]()


if __name__ == "__main__":
    unittest.main()
