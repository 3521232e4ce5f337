"""The logs: whole lines, durable or not there at all, found again after a crash and a rotation."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from mailer.errors import StateError
from mailer.journal import Journal, keep, log_file
from mailer.progress import Mark

ROOT = Path(__file__).resolve().parent.parent


def line(uid: int, text: str = "words", uidvalidity: int = 1) -> bytes:
    """A record as it stands in a log."""
    record = {"text": text, "message_id": f"<{uid}@x>", "uidvalidity": uidvalidity, "uid": uid}
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


class JournalCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-journal-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "success.log"
        self.journal = Journal(self.path)

    def uids(self, since: Mark) -> list[int]:
        """What a new start finds behind a mark."""
        return [found.uid for found in Journal(self.path).recover(since)]

    def text(self) -> bytes:
        return self.path.read_bytes()


class Appending(JournalCase):
    def test_lines_are_added_to_what_is_there(self) -> None:
        self.path.write_bytes(line(1))
        self.journal.append(line(2) + line(3))
        self.journal.append(line(4, "привет"))
        self.assertEqual(self.text(), line(1) + line(2) + line(3) + line(4, "привет"))

    def test_it_is_on_disk_before_append_returns(self) -> None:
        synced: list[bytes] = []

        def fsync(file: int) -> None:
            synced.append(b"folder" if Path(f"/proc/self/fd/{file}").is_dir() else self.path.read_bytes())

        journal = Journal(self.path, fsync=fsync)
        journal.append(line(1))
        self.assertEqual(synced[0], line(1))
        if Path("/proc/self/fd").is_dir():
            self.assertEqual(synced[1:], [b"folder"], "the name of a new file is made durable too")

    def test_a_failing_disk_leaves_the_log_as_it_was(self) -> None:
        self.path.write_bytes(line(1))

        def failing(_file: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with self.assertRaises(StateError) as failure:
            Journal(self.path, fsync=failing).append(line(2))
        self.assertIn("Input/output error", str(failure.exception))
        self.assertIn(str(self.path), str(failure.exception))
        self.assertEqual(self.text(), line(1))

    def test_only_what_a_freed_disk_mends_is_called_passing(self) -> None:
        for number, passing in ((errno.ENOSPC, True), (errno.EMFILE, True), (errno.EROFS, False)):
            failing = mock.Mock(side_effect=OSError(number, os.strerror(number)))
            with self.subTest(number), self.assertRaises(StateError) as failure:
                Journal(self.path, fsync=failing).append(line(1))
            self.assertEqual(failure.exception.passing, passing)

    def test_a_log_that_is_a_link_is_looked_for_where_it_leads_to(self) -> None:
        place = self.path.parent / "place"
        place.mkdir()
        link = self.path.parent / "link.log"
        link.symlink_to(place / "real.log")
        journal = Journal(link)
        journal.append(line(1))
        mark = journal.mark
        journal.append(line(2))
        (place / "real.log").rename(place / "real.log.1")
        self.assertEqual([found.uid for found in Journal(link).recover(mark)], [2])
        journal.append(line(3))
        self.assertEqual((place / "real.log").read_bytes(), line(3))

    def test_a_folder_that_cannot_be_listed_is_no_empty_one(self) -> None:
        self.journal.append(line(1))
        mark = self.journal.mark
        self.journal.append(line(2))
        for number, words in ((errno.EMFILE, "Too many open files"), (errno.EIO, "Input/output error")):
            failing = mock.patch("pathlib.Path.iterdir", side_effect=OSError(number, words))
            with self.subTest(words), failing, self.assertRaises(StateError):
                list(Journal(self.path).recover(mark))
        forbidden = mock.patch("pathlib.Path.iterdir", side_effect=PermissionError)
        with forbidden, self.assertLogs("mailer.journal", "WARNING"):
            self.assertEqual([found.uid for found in Journal(self.path).recover(mark)], [2])

    @unittest.skipUnless(hasattr(os, "fork"), "needs a limit on file sizes")
    def test_a_full_disk_leaves_the_log_as_it_was_and_is_got_over(self) -> None:
        self.journal.append(line(1) * 10)
        before = self.text()
        code = f"""
import resource, signal
from pathlib import Path
from mailer.errors import StateError
from mailer.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path({str(self.path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 100}, resource.RLIM_INFINITY))
try:
    journal.append({line(2)!r} * 50)  # the first 100 bytes of it find room
except StateError as failure:
    print(failure)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(Path({str(self.path)!r}).stat().st_size)
journal.append({line(2)!r} * 50)
"""
        ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        self.assertIn("File too large", ended.stdout)
        self.assertIn(f"\n{len(before)}\n", ended.stdout)
        self.assertEqual(self.text(), before + line(2) * 50)

    @unittest.skipUnless(Path("/dev/full").exists(), "needs /dev/full")
    def test_no_room_at_all_is_an_error(self) -> None:
        self.path.symlink_to("/dev/full")
        with self.assertRaises(StateError) as failure:
            self.journal.append(line(1))
        self.assertIn("No space left", str(failure.exception))

    def test_a_folder_or_a_missing_folder_in_its_place_is_an_error(self) -> None:
        self.path.mkdir()
        for path in (self.path, self.folder / "missing" / "x.log"):
            with self.subTest(path.name), self.assertRaises(StateError):
                Journal(path).append(line(1))

    def test_rotation_by_rename_needs_no_signal(self) -> None:
        self.journal.append(line(1))
        self.path.rename(self.folder / "success.log.1")
        self.journal.append(line(2))
        self.assertEqual(self.text(), line(2))
        self.assertEqual((self.folder / "success.log.1").read_bytes(), line(1))

    def test_what_a_failed_truncation_left_is_cut_off_by_the_next_append(self) -> None:
        self.path.write_bytes(line(1) + line(2)[:20])
        self.journal.append(line(3))
        self.assertEqual(self.text(), line(1) + line(3))


class Recovering(JournalCase):
    def test_only_what_was_written_after_the_mark_is_told(self) -> None:
        self.journal.append(line(1) + line(2))
        mark = self.journal.mark
        self.journal.append(line(3) + line(4, uidvalidity=2))
        found = [tuple(each) for each in Journal(self.path).recover(mark)]
        self.assertEqual(found, [(1, 3, "<3@x>"), (2, 4, "<4@x>")])

    def test_a_torn_last_line_is_cut_off_wherever_it_is_torn(self) -> None:
        whole = line(3, "п" * 50)
        for cut in range(len(whole)):
            self.path.write_bytes(line(1))
            journal = Journal(self.path)
            self.assertEqual([found.uid for found in journal.recover(Mark())], [1])
            mark = journal.mark
            self.path.write_bytes(line(1) + line(2) + whole[:cut])
            complete = cut == len(whole) - 1  # all but its end: it only gets that
            with self.subTest(cut=cut):
                self.assertEqual(self.uids(mark), [2, 3] if complete else [2])
                self.assertEqual(self.path.read_bytes(), line(1) + line(2) + (whole if complete else b""))

    def test_a_torn_line_of_many_blocks_is_cut_off(self) -> None:
        self.path.write_bytes(line(1) + line(2, "x" * 1_000_000)[:-10])
        self.assertEqual(self.uids(Mark()), [1])
        self.assertEqual(self.text(), line(1))

    def test_zeros_that_a_power_cut_left_are_cut_off_with_what_follows(self) -> None:
        self.journal.append(line(1))
        mark = self.journal.mark
        with self.path.open("ab") as file:
            file.write(line(2) + b"\0" * 4096 + line(3) + line(4))
        self.assertEqual(self.uids(mark), [2])
        self.assertEqual(self.text(), line(1) + line(2))

    def test_zeros_in_a_log_that_nobody_has_a_mark_in_cost_no_records(self) -> None:
        self.journal.append(line(1))
        mark = self.journal.mark
        copy = self.folder / "copy"
        copy.write_bytes(line(1) + b"\0" * 100 + b"\n" + line(2))  # restored: another file, the same name
        copy.replace(self.path)
        self.assertEqual(self.uids(mark), [1, 2])
        self.assertIn(line(2), self.text())

    def test_a_log_that_was_renamed_is_found_by_what_it_is(self) -> None:
        self.journal.append(line(1))
        mark = self.journal.mark
        self.journal.append(line(2))
        self.path.rename(self.folder / "success.log-20260101")
        self.assertEqual(self.uids(mark), [2])
        self.journal.append(line(3))
        self.assertEqual(sorted(self.uids(mark)), [2, 3])

    def test_a_log_that_was_renamed_twice_is_found(self) -> None:
        self.journal.append(line(1))
        mark = self.journal.mark
        self.path.rename(self.folder / "success.log.2")
        self.journal.append(line(2))
        self.path.rename(self.folder / "success.log.1")
        self.journal.append(line(3))
        self.assertEqual(sorted(self.uids(mark)), [2, 3])

    def test_what_somebody_else_writes_beside_the_log_is_read_and_never_changed(self) -> None:
        self.journal.append(line(1))
        mark = self.journal.mark
        torn = {"log.1": line(2) + line(3)[:-4], "log.old": line(4)[:-1], "log.gz": b"\x1f\x8b\n", "log.txt": b"note"}
        for name, content in torn.items():
            (self.folder / f"success.{name}").write_bytes(content)
        for since, found in ((mark, [2, 4]), (Mark(), [1, 2, 4])):
            self.assertEqual(sorted(self.uids(since)), found)
            for name, content in torn.items():
                self.assertEqual((self.folder / f"success.{name}").read_bytes(), content, name)

    def test_siblings_that_cannot_be_read_are_left_out_and_said_once(self) -> None:
        self.journal.append(line(1))
        mark = self.journal.mark
        self.path.rename(self.folder / "success.log.1")
        self.journal.append(line(2))
        copy = self.folder / "success.log.bak"
        copy.write_bytes(line(3))
        readable = os.access
        with mock.patch("os.access", lambda path, mode: path != copy and readable(path, mode)):
            with self.assertLogs("mailer.journal", "WARNING") as log:
                for _ in range(3):
                    self.assertEqual([found.uid for found in self.journal.recover(mark)], [2])
        self.assertEqual(len(log.output), 1)
        self.assertIn(str(copy), log.output[0])

    def test_a_rotated_log_is_not_opened_for_writing_unless_it_is_torn(self) -> None:
        self.journal.append(line(1))
        mark = self.journal.mark
        self.journal.append(line(2))
        self.path.rename(self.folder / "success.log.1")
        with mock.patch("os.open", wraps=os.open) as opened:
            self.assertEqual(self.uids(mark), [2])
        self.assertEqual({call.args[0] for call in opened.call_args_list}, {self.path})

    def test_the_log_of_the_mark_is_mended_under_its_new_name(self) -> None:
        self.journal.append(line(1))
        mark = self.journal.mark
        renamed = self.folder / "success.log.1"
        self.path.rename(renamed)
        renamed.write_bytes(line(1) + line(2)[:-4])
        self.assertEqual(self.uids(mark), [])
        self.assertEqual(renamed.read_bytes(), line(1))

    def test_older_siblings_are_not_read_and_archives_never_changed(self) -> None:
        old, archive = self.folder / "success.log.9", self.folder / "success.log.8.gz"
        old.write_bytes(line(9))
        os.utime(old, (1, 1))
        archive.write_bytes(b"\x1f\x8b no end of line")
        self.journal.append(line(1))
        mark = self.journal.mark
        self.journal.append(line(2))
        self.assertEqual(self.uids(mark), [2])
        self.assertEqual(archive.read_bytes(), b"\x1f\x8b no end of line")

    def test_a_log_emptied_in_place_is_read_from_its_start(self) -> None:
        self.journal.append(line(1) * 5)
        mark = self.journal.mark
        os.truncate(self.path, 0)
        self.journal.append(line(2))
        self.assertEqual(self.uids(mark), [2])

    def test_without_a_mark_everything_is_read_and_only_a_torn_end_changed(self) -> None:
        (self.folder / "success.log.1").write_bytes(line(1))
        numbers = f'{{"uid": 1e400, "uidvalidity": 7}}\n{{"uid": {"9" * 5_000}, "uidvalidity": 7}}\n'
        others = f"[]\n{'[' * 100_000}\n{numbers}".encode()
        self.path.write_bytes(b"a note by hand\n" + line(2) + b"\n" + others + line(3) + b'{"tor')
        self.assertEqual(sorted(self.uids(Mark())), [1, 2, 3])
        self.assertEqual(self.text(), b"a note by hand\n" + line(2) + b"\n" + others + line(3))

    def test_a_note_without_a_line_end_gets_one(self) -> None:
        for note in (b"seen until here", b"-- ann", b"[1"):
            self.path.write_bytes(line(1) + note)
            with self.subTest(note):
                self.assertEqual(self.uids(Mark()), [1])
                self.journal.append(line(2))
                self.assertEqual(self.text(), line(1) + note + b"\n" + line(2))

    def test_the_tail_of_a_large_log_is_found_without_reading_the_log(self) -> None:
        with self.path.open("w") as file:
            file.truncate(10 * 1024**3)  # sparse: takes no room, but reading it would take long
            file.seek(0, os.SEEK_END)
            file.write("\n")
        self.journal.append(line(1))
        mark = self.journal.mark
        self.journal.append(line(2))
        self.assertEqual(self.uids(mark), [2])

    @unittest.skipUnless(sys.platform == "linux", "needs a limit on memory")
    def test_a_gigabyte_without_a_line_takes_neither_its_time_nor_its_memory(self) -> None:
        self.journal.append(line(1))
        mark = self.journal.mark
        for name, since in ((self.path.name, mark), ("success.log.1", mark), ("success.log.2", Mark())):
            with (self.folder / name).open("ab") as file:
                file.truncate(2**30)  # sparse: takes no room
            code = f"""
import resource
from pathlib import Path
from mailer.journal import Journal
from mailer.progress import Mark
resource.setrlimit(resource.RLIMIT_AS, (2**29, resource.RLIM_INFINITY))
print([found.uid for found in Journal(Path({str(self.path)!r})).recover({since})])
"""
            with self.subTest(name):
                command = [sys.executable, "-c", code]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                self.assertEqual(done.stdout, "[]\n" if since.size else "[1]\n", done.stderr)
            self.assertEqual(self.text(), line(1))
            (self.folder / name).unlink() if name != self.path.name else None

    def test_a_line_too_long_for_a_record_is_passed_over(self) -> None:
        with mock.patch.object(log_file, "_LONGEST_LINE", 1_000), mock.patch.object(log_file, "BLOCK", 100):
            note = line(2, "x" * 5_000)
            self.path.write_bytes(line(1) + note + line(3) + note[:-1])
            self.assertEqual(self.uids(Mark()), [1, 3])
            self.assertEqual(self.text(), line(1) + note + line(3))

    def test_a_log_that_is_not_there_is_made(self) -> None:
        self.assertEqual(self.uids(Mark()), [])
        self.assertEqual(self.text(), b"")


class Keeping(JournalCase):
    def test_bytes_are_kept_whole(self) -> None:
        path = self.folder / "unreadable" / "1-2.eml"
        keep(path, b"\0\xff")
        keep(path, b"\0\xff\n")
        self.assertEqual(path.read_bytes(), b"\0\xff\n")
        self.assertEqual(list(path.parent.iterdir()), [path])

    def test_a_folder_that_cannot_be_made_is_an_error(self) -> None:
        (self.folder / "unreadable").write_text("")
        with self.assertRaises(StateError):
            keep(self.folder / "unreadable" / "1.eml", b"")
