"""What is logged: a line each, at once or in a moment, all of it and in order."""

import io
import logging
import os
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

from mailer.diagnostics import _AT_ONCE, _LAST_MOMENT, BatchHandler, _Record
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[1]


class _Stream(io.StringIO):
    """Counts what is written to it."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += bool(text)
        return super().write(text)


def _record(message: object, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    return _Record("mailer", level, "", 0, message, args, None)


class Batches(unittest.TestCase):
    def setUp(self) -> None:
        self.stream = _Stream()
        self.handler = BatchHandler(self.stream)

    def messages(self) -> list[str]:
        return [line.split(" ", 3)[3] for line in self.stream.getvalue().splitlines()]

    def test_a_line_is_written_soon(self) -> None:
        for number in range(10):
            self.handler.handle(_record("line %d", number))
            wait_until(lambda: len(self.messages()) > number)  # noqa: B023 - called before the next one
        self.assertEqual(self.messages(), [f"line {number}" for number in range(10)])

    def test_many_are_written_together_soon_and_in_order(self) -> None:
        for number in range(2000):
            self.handler.handle(_record("line %d", number))
        wait_until(lambda: len(self.messages()) == 2000)
        self.assertEqual(self.messages(), [f"line {number}" for number in range(2000)])
        self.assertLess(self.stream.writes, 500)

    def test_after_a_flush_all_are_written(self) -> None:
        for number in range(100):
            self.handler.handle(_record("line %d", number))
            self.handler.flush()
            self.assertEqual(len(self.messages()), number + 1)

    def test_none_of_many_threads_is_lost(self) -> None:
        def log(thread: int) -> None:
            for number in range(200):
                self.handler.handle(_record("%d of %d", number, thread))

        threads = [threading.Thread(target=log, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        wait_until(lambda: len(self.messages()) == 1600)
        for thread_number in range(8):
            mine = [message for message in self.messages() if message.endswith(f" of {thread_number}")]
            self.assertEqual(mine, [f"{number} of {thread_number}" for number in range(200)])

    def test_each_line_tells_when_it_was_logged_and_not_when_it_was_written(self) -> None:
        records = [_record("x") for _ in range(3 * _AT_ONCE)]
        for record in records:
            record.created, record.msecs = 1_700_000_000 + records.index(record), 7
            self.handler.handle(record)
        self.handler.flush()
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1_700_000_000))
        lines = self.stream.getvalue().splitlines()
        self.assertEqual(lines[0], f"{began},007 INFO x")
        self.assertEqual(len({line[:19] for line in lines}), len(records))

    def test_one_that_makes_no_sense_stops_nothing(self) -> None:
        self.addCleanup(setattr, logging, "raiseExceptions", logging.raiseExceptions)
        logging.raiseExceptions = False
        for number in range(3 * _AT_ONCE):
            self.handler.handle(_record("%d", "no number" if number % 2 else number))
        self.handler.flush()
        self.assertEqual(len(self.messages()), 3 * _AT_ONCE // 2)

    def test_a_stream_that_is_closed_stops_nothing(self) -> None:
        self.stream.close()
        for _ in range(3 * _AT_ONCE):
            self.handler.handle(_record("x"))
        began = time.monotonic()
        self.handler.flush()
        self.assertLess(time.monotonic() - began, _LAST_MOMENT / 2, "nobody is there any more who would write")


class AReaderWhoDoesNotRead(unittest.TestCase):
    def logged(self, writing: int) -> None:
        """Log more than such a file takes; it stops nobody, nor does the end."""
        stream = os.fdopen(writing, "w")
        self.addCleanup(stream.close)
        handler = BatchHandler(stream)
        began = time.monotonic()
        for number in range(30_000):
            handler.handle(_record("line %d", number))
        handler.flush()
        self.assertLess(time.monotonic() - began, 20)

    def check(self, reading: int, end: bytes) -> None:
        """When he reads on, he gets the newest lines."""
        read = b""
        while b"line 29999" + end not in read:
            read += os.read(reading, 65_536)
        lines = [int(line.rpartition(b" ")[2]) for line in read.splitlines()]
        self.assertEqual(lines, sorted(set(lines)))

    def test_of_a_pipe(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.logged(writing)
        self.check(reading, b"\n")

    def test_of_a_pipe_that_somebody_else_does_not_want_to_wait_for(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.set_blocking(writing, False)
        self.logged(writing)
        self.check(reading, b"\n")

    @unittest.skipUnless(hasattr(os, "openpty"), "needs a terminal")
    def test_of_a_terminal(self) -> None:
        reading, writing = os.openpty()
        self.addCleanup(os.close, reading)
        self.logged(writing)
        self.check(reading, b"\r\n")


class TheEnd(unittest.TestCase):
    def test_what_is_left_is_written(self) -> None:
        program = "import logging; from mailer import launch; launch.start_logging(False)\n" \
                  "for number in range(1000): logging.info('line %d', number)"  # fmt: skip
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
        lines = [line.partition(" INFO ")[2] for line in done.stderr.splitlines()]
        self.assertEqual(lines, [f"line {number}" for number in range(1000)])

    def test_a_traceback_is_shown(self) -> None:
        program = "import logging; from mailer import launch; launch.start_logging(False)\n" \
                  "try: 1 / 0\nexcept ArithmeticError: logging.exception('wrong')"  # fmt: skip
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
        self.assertIn(" ERROR wrong\nTraceback", done.stderr)
        self.assertIn("ZeroDivisionError", done.stderr)


if __name__ == "__main__":
    unittest.main()
