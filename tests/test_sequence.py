"""Ticket numbers: none twice, whatever is killed, whoever shares the folder, and however the folder breaks."""

import contextlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from mailer import sequence
from mailer.errors import StateError
from mailer.sequence import Sequence
from tests.support.tracing import calls, events, strace
from tests.support.waiting import wait_until

KILLS = 30 if os.environ.get("MAILER_LONG") else 3
ROOT = Path(__file__).resolve().parent.parent
# Takes numbers without end, and says each as soon as it has it.
_TAKER = """
import sys, pathlib
from mailer.sequence import Sequence
numbers = Sequence(pathlib.Path(sys.argv[1]), start=10000, step=1, offset=0)
for _ in range(int(sys.argv[2])):
    print(numbers.next(), flush=True)
"""


def _open(folder: Path, start: int = 10_000, step: int = 1, offset: int = 0) -> Sequence:
    return Sequence(folder, start=start, step=step, offset=offset)


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-sequence-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.database = self.folder / "tickets.db"

    def take(self, count: int, **options: int) -> list[int]:
        numbers = _open(self.folder, **options)
        taken = [numbers.next() for _ in range(count)]
        numbers.close()
        return taken

    def reserved(self) -> int:
        """What is on disk: numbers below this are given away."""
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            (below,) = database.execute("SELECT below FROM reserved").fetchone()
        return int(below)


class Numbers(Folder):
    def test_they_begin_at_the_start_and_go_up_by_one(self) -> None:
        self.assertEqual(self.take(2500), list(range(10_000, 12_500)))

    def test_the_folder_is_made_for_its_owner_alone(self) -> None:
        _open(self.folder / "a" / "b").next()
        if os.name == "posix":
            self.assertEqual((self.folder / "a" / "b").stat().st_mode & 0o777, 0o700)

    def test_what_is_left_of_a_block_is_given_back(self) -> None:
        self.assertEqual([*self.take(3), *self.take(0), *self.take(5), *self.take(1)], list(range(10_000, 10_009)))

    def test_closing_twice_and_going_on_after_it_repeats_nothing(self) -> None:
        numbers, other = _open(self.folder), _open(self.folder)
        taken = [numbers.next()]
        numbers.close()
        numbers.close()
        taken += [other.next(), numbers.next(), other.next(), numbers.next()]
        numbers.close()
        taken += [other.next() for _ in range(30)]
        self.assertEqual(len(set(taken)), len(taken))

    def test_nothing_is_given_back_that_another_has_reserved_beyond(self) -> None:
        one, two = _open(self.folder), _open(self.folder)
        taken = [one.next(), two.next()]
        one.close()
        taken += [two.next() for _ in range(20)] + self.take(20)
        two.close()
        taken += self.take(20)
        self.assertEqual(len(set(taken)), len(taken))

    def test_without_closing_a_gap_and_no_repetition(self) -> None:
        taken = [_open(self.folder).next() for _ in range(5)]
        self.assertEqual(taken, [10_000, 10_010, 10_020, 10_030, 10_040])

    def test_an_older_file_put_in_place_makes_a_running_server_repeat_nothing(self) -> None:
        for step in (1, 3):
            with self.subTest(step=step):
                numbers = _open(self.folder, step=step)
                taken = [numbers.next() for _ in range(5)]
                backup = self.database.read_bytes()
                taken += [numbers.next() for _ in range(200)]
                with self.assertLogs("mailer.sequence", "WARNING") as logged:
                    for _ in range(2):
                        self.database.write_bytes(backup)
                        taken += [numbers.next() for _ in range(200)]
                numbers.close()
                taken += [_open(self.folder, step=step).next()]
                self.assertEqual(len(set(taken)), len(taken))
                self.assertEqual({number % step for number in taken}, {0 if step == 1 else taken[0] % step})
                self.assertEqual(len(logged.output), 1)
                self.assertIn("older copy", logged.output[0])

    def test_a_higher_start_is_followed_and_a_lower_one_is_not(self) -> None:
        self.assertEqual(self.take(2), [10_000, 10_001])
        self.assertEqual(self.take(2, start=50_000), [50_000, 50_001])
        self.assertEqual(self.take(2, start=1), [50_002, 50_003])

    def test_residues(self) -> None:
        table = (
            (10_000, 3, 0, [10_002, 10_005, 10_008]),
            (10_000, 3, 1, [10_000, 10_003, 10_006]),
            (10_000, 3, 2, [10_001, 10_004, 10_007]),
            (1, 2, 0, [2, 4, 6]),
            (1, 2, 1, [1, 3, 5]),
            (7, 1_000_000, 999_999, [999_999, 1_999_999, 2_999_999]),
        )
        for start, step, offset, expected in table:
            with self.subTest(start=start, step=step, offset=offset):
                folder = self.folder / f"{start}-{step}-{offset}"
                numbers = _open(folder, start, step, offset)
                self.assertEqual([numbers.next() for _ in range(3)], expected)
                again = _open(folder, start, step, offset)
                taken = [again.next() for _ in range(25)] + [numbers.next() for _ in range(25)]
                self.assertEqual({number % step for number in taken}, {offset % step})
                self.assertEqual(len({*taken, *expected}), 53)

    def test_a_change_of_step_on_the_same_folder_repeats_nothing(self) -> None:
        taken = [*self.take(7), *self.take(7, step=3, offset=1), *self.take(7, step=5, offset=0), *self.take(7)]
        self.assertEqual(len(set(taken)), 28)
        self.assertEqual(taken, sorted(taken))

    def test_servers_with_their_own_residues_never_meet(self) -> None:
        servers = [_open(self.folder / str(offset), 10_000, 4, offset) for offset in range(4)]
        taken = [server.next() for server in servers for _ in range(500)]
        self.assertEqual(len(set(taken)), 2000)

    def test_the_last_number_of_18_digits_is_the_last(self) -> None:
        numbers = _open(self.folder, start=10**18 - 15)
        self.assertEqual(numbers.next(), 10**18 - 15)
        for _ in range(9):
            last = numbers.next()
        self.assertLess(last, 10**18)
        self.assertRaises(StateError, numbers.next)


class AtTheSameTime(Folder):
    def test_threads_and_sequences_on_one_folder_share_without_a_repetition(self) -> None:
        sequences = [_open(self.folder) for _ in range(3)]
        taken: list[int] = []

        def take(numbers: Sequence) -> None:
            taken.extend(numbers.next() for _ in range(400))

        threads = [threading.Thread(target=take, args=(numbers,)) for numbers in sequences for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(len(taken), 4800)
        self.assertEqual(len(set(taken)), 4800)

    def test_kill_9_at_any_moment_and_two_processes_on_one_folder(self) -> None:
        dice = random.Random(20261122)
        outputs: list[Path] = []
        steady = self.start(outputs, 10**9)
        for _ in range(KILLS):
            victim = self.start(outputs, 10**9)
            output = outputs[-1]
            wait_until(lambda output=output: output.stat().st_size, 30)  # type: ignore[misc]
            time.sleep(dice.random() * 0.1)
            victim.kill()
            victim.wait()
        steady.kill()
        steady.wait()
        taken = [int(line) for output in outputs for line in output.read_text().split("\n")[:-1]]
        self.assertGreater(len(taken), 100 * KILLS)
        self.assertEqual(len(set(taken)), len(taken))
        self.assertGreater(self.take(1)[0], max(taken))

    def start(self, outputs: list[Path], count: int) -> "subprocess.Popen[bytes]":
        output = self.folder / f"output-{len(outputs)}"
        outputs.append(output)
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", _TAKER, str(self.folder), str(count)], stdout=file, cwd=ROOT
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process


class OnDiskFirst(Folder):
    def test_a_number_is_given_only_when_the_end_of_its_block_is_committed(self) -> None:
        numbers = _open(self.folder)
        for _ in range(200):
            self.assertLess(numbers.next(), self.reserved())

    def test_who_waits_for_the_disk_says_so_before(self) -> None:
        calls: list[int] = []

        def on_wait() -> None:
            calls.append(len(taken))

        taken: list[int] = []
        numbers = Sequence(self.folder, start=1, step=1, offset=0, on_wait=on_wait)
        taken.extend(numbers.next() for _ in range(10))
        self.assertEqual(calls, [0])

    def test_the_flushes_come_before_the_number(self) -> None:
        trace = self.folder / "trace"
        command = [*strace(self, trace, "write,fsync,fdatasync,pwrite64,unlink,unlinkat"),
                   sys.executable, "-c", _TAKER, str(self.folder), "11"]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
        kinds = {
            "database written": rf"pwrite64\(\d+<{re.escape(str(self.database))}>",
            "database durable": rf"f(data)?sync\(\d+<{re.escape(str(self.database))}>",
            "journal gone": rf'unlink.*"{re.escape(str(self.database))}-journal"',
            "names durable": rf"f(data)?sync\(\d+<{re.escape(str(self.folder))}>",
            "numbers": r'write\(1<.*"100',
        }
        block = ["names durable", "database written", "database durable", "journal gone", "names durable", "numbers"]
        self.assertEqual([kind for kind, _ in events(calls(trace), kinds)][-2 * len(block) :], 2 * block)


class BrokenFolders(Folder):
    """A clear error that names the file, before any number is given."""

    def assert_unusable(self, words: str = "") -> None:
        with self.assertRaises(StateError) as failure:
            _open(self.folder).next()
        self.assertIn(str(self.database), str(failure.exception))
        self.assertIn(words, str(failure.exception))
        self.assertTrue(str(failure.exception).isprintable())

    def test_damaged(self) -> None:
        self.take(5)
        whole = self.database.read_bytes()
        table = {
            "garbage": random.Random(1).randbytes(8192),
            "text": b"not a database\n" * 100,
            "cut off in the header": whole[:60],
            "cut off after the header": whole[:100],
            "cut off after a page": whole[:4096],
            "zeros in the first page": bytes(4096) + whole[4096:],
            "zeros in the second page": whole[:4096] + bytes(4096),
            "a header alone": whole[:100] + bytes(8092),
            "cut off in the second page": whole[:-1],
            "cut off in its middle": whole[:6000],
            "zeros at the end": whole[:6000] + bytes(2192),
        }
        for name, content in table.items():
            with self.subTest(name):
                self.database.write_bytes(content)
                self.assertRaises(StateError, _open, self.folder)
                self.assert_unusable()

    def test_an_empty_file_is_no_first_start(self) -> None:
        self.take(5)
        self.database.write_bytes(b"")
        self.assert_unusable("TICKET_START")
        with self.assertRaises(StateError):
            sequence.check(self.folder)

    def test_a_first_start_that_is_killed_or_fails_leaves_no_empty_file(self) -> None:
        reached = mock.Mock(side_effect=KeyboardInterrupt)
        for place in ("sqlite3.connect", "pathlib.Path.hardlink_to"):
            with self.subTest(place), mock.patch(place, reached), self.assertRaises(KeyboardInterrupt):
                _open(self.folder)
            self.assertEqual(list(self.folder.iterdir()), [])
        self.assertEqual(self.take(1), [10_000])

    def test_where_a_file_cannot_have_two_names_it_is_made_in_place(self) -> None:
        with mock.patch("pathlib.Path.hardlink_to", side_effect=PermissionError):
            self.assertEqual(self.take(1), [10_000])
        self.assertEqual(list(self.folder.iterdir()), [self.database])

    def test_servers_that_start_for_the_first_time_at_once_share(self) -> None:
        go = threading.Barrier(8)

        def take(_: int) -> int:
            go.wait(10)
            return _open(self.folder).next()

        with ThreadPoolExecutor(8) as threads:
            self.assertEqual(len(set(threads.map(take, range(8)))), 8)
        self.assertEqual(list(self.folder.iterdir()), [self.database])

    def test_a_database_of_something_else(self) -> None:
        for statement in ("CREATE TABLE reserved (other TEXT)", "CREATE VIEW reserved AS SELECT 1 AS below"):
            with self.subTest(statement):
                self.database.unlink(missing_ok=True)
                with contextlib.closing(sqlite3.connect(self.database)) as database, database:
                    database.execute(statement)
                self.assert_unusable()

    def test_a_number_that_is_none(self) -> None:
        for value in ("text", b"bytes", 1.5):
            with self.subTest(value):
                self.take(1)
                with contextlib.closing(sqlite3.connect(self.database)) as database, database:
                    database.execute("UPDATE reserved SET below = ?", (value,))
                self.assert_unusable("damaged")
                self.database.unlink()

    def test_single_bytes_changed_anywhere_give_numbers_or_the_error(self) -> None:
        self.take(5)
        whole = self.database.read_bytes()
        dice = random.Random(2)
        used = [place for place, byte in enumerate(whole) if byte]
        self.enterContext(mock.patch.object(sequence, "_log"))  # it is warned of numbers that are too low
        for _ in range(150):
            changed = bytearray(whole)
            changed[dice.choice(used)] = dice.randrange(256)
            self.database.write_bytes(changed)
            with contextlib.suppress(StateError):
                self.assertIs(type(_open(self.folder).next()), int)

    def test_a_folder_in_the_place_of_the_file(self) -> None:
        self.database.mkdir()
        self.assert_unusable()

    def test_a_file_in_the_place_of_the_folder(self) -> None:
        self.folder.rmdir()
        self.folder.write_text("")
        self.addCleanup(self.folder.unlink, missing_ok=True)
        self.assert_unusable()

    @unittest.skipUnless(Path("/dev/full").exists(), "needs /dev/full")
    def test_a_device_in_the_place_of_the_file(self) -> None:
        self.database.symlink_to("/dev/full")
        self.assert_unusable()

    @unittest.skipUnless(Path("/proc/self").exists(), "needs /proc")
    def test_a_folder_that_cannot_be_made(self) -> None:
        self.folder = Path("/proc/no-such-folder")
        self.database = self.folder / "tickets.db"
        self.assert_unusable()

    @unittest.skipIf(not hasattr(os, "geteuid") or os.geteuid() == 0, "root may write anywhere")
    def test_read_only(self) -> None:
        self.take(1)
        for mode, path in ((0o500, self.folder), (0o400, self.database)):
            old = path.stat().st_mode
            path.chmod(mode)
            try:
                self.assert_unusable()
            finally:
                path.chmod(old)
        self.assertEqual(self.take(1), [10_001])

    def test_held_by_another_process_for_too_long(self) -> None:
        self.take(1)
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with mock.patch.object(sequence, "_LOCK_WAIT", 0.05):
                self.assert_unusable("locked")
                with self.assertRaises(StateError) as caught:
                    _open(self.folder)
                self.assertTrue(caught.exception.passing)
        self.assertEqual(self.take(1), [10_001])

    def test_all_who_waited_behind_a_lock_of_others_hear_of_it_together(self) -> None:
        numbers = _open(self.folder)
        blocker = sqlite3.connect(self.database, isolation_level=None)
        self.addCleanup(blocker.close)
        blocker.execute("BEGIN IMMEDIATE")
        together = threading.Barrier(8)

        def ask() -> float:
            together.wait(10)
            began = time.monotonic()
            self.assertRaisesRegex(StateError, "locked", numbers.next)
            return time.monotonic() - began

        with mock.patch.object(sequence, "_LOCK_WAIT", 1.0), ThreadPoolExecutor(8) as pool:
            waits = [future.result() for future in [pool.submit(ask) for _ in range(8)]]
        self.assertLess(max(waits), 1.9)
        blocker.execute("ROLLBACK")
        self.assertEqual(numbers.next(), 10_000)

    def test_a_disk_that_fills_up_and_is_freed_again(self) -> None:
        resource = self.resource()
        script = _TAKER + f"""
import {resource}, signal
from mailer.errors import StateError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
whole = {resource}.getrlimit({resource}.RLIMIT_FSIZE)
for limit in (0, 100, 600, 4200):
    {resource}.setrlimit({resource}.RLIMIT_FSIZE, (limit, whole[1]))
    try:
        while True:
            print(numbers.next(), flush=True)
    except StateError as failure:
        print(failure, file=sys.stderr)
    {resource}.setrlimit({resource}.RLIMIT_FSIZE, whole)
    print(numbers.next(), flush=True)
"""
        command = [sys.executable, "-c", script, str(self.folder), "3"]
        process = subprocess.run(command, capture_output=True, cwd=ROOT, text=True, timeout=60)
        words = process.stderr.splitlines()
        self.assertEqual(process.returncode, 0, words)
        self.assertEqual(len(words), 4)
        self.assertTrue(all(str(self.database) in line for line in words), words)
        taken = [int(line) for line in process.stdout.splitlines()]
        self.assertEqual(len(set(taken)), len(taken))
        self.assertGreater(len(taken), 100)

    def resource(self) -> str:
        try:
            import resource
        except ImportError:
            self.skipTest("needs limits on the size of files")
        return resource.__name__

    def test_a_real_disk_that_is_full(self) -> None:
        if not hasattr(os, "geteuid") or os.geteuid() or not shutil.which("mount"):
            self.skipTest("needs root, to mount a small disk")
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "mailer-test", str(self.folder)]
        if subprocess.run(mount, capture_output=True).returncode:
            self.skipTest("may not mount a small disk here")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.folder)], check=True)
        first = self.take(3)
        filler = self.folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))
        self.assert_unusable()
        filler.unlink()
        self.assertEqual(self.take(1), [first[-1] + 1])
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True, capture_output=True)
        self.assert_unusable("readonly")


class GivingBack(unittest.TestCase):
    def test_a_folder_that_is_gone_at_the_end_makes_a_gap_and_no_error(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "state"
            sequence = _open(folder)
            sequence.next()
            shutil.rmtree(folder)
            sequence.close()
            self.assertFalse(folder.exists())

    def test_it_does_not_wait_for_a_lock_of_others(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            sequence = _open(Path(name))
            sequence.next()
            with contextlib.closing(sqlite3.connect(Path(name) / "tickets.db", isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                began = time.monotonic()
                sequence.close()
                self.assertLess(time.monotonic() - began, 3)


class Waiting(unittest.TestCase):
    def test_who_waits_for_another_that_reserves_says_so_first(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            waits: list[int] = []
            tell = lambda: waits.append(threading.get_ident())  # noqa: E731 - it is one
            sequence = Sequence(Path(name), start=1, step=1, offset=0, on_wait=tell)
            with contextlib.closing(sqlite3.connect(Path(name) / "tickets.db", isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                with ThreadPoolExecutor(4) as threads:
                    numbers = [threads.submit(sequence.next) for _ in range(4)]
                    wait_until(lambda: len(set(waits)) == 4)
                    other.execute("ROLLBACK")
            self.assertEqual(sorted(number.result() for number in numbers), [1, 2, 3, 4])
