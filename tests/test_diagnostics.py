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

from mailer.diagnostics import _SINGLY, BatchHandler, _Record
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

    def test_a_few_lines_are_written_at_once(self) -> None:
        for number in range(_SINGLY):
            self.handler.handle(_record("line %d", number))
            self.assertEqual(self.messages()[-1], f"line {number}")

    def test_many_are_written_together_soon_and_in_order(self) -> None:
        for number in range(2000):
            self.handler.handle(_record("line %d", number))
        wait_until(lambda: len(self.messages()) == 2000)
        self.assertEqual(self.messages(), [f"line {number}" for number in range(2000)])
        self.assertLess(self.stream.writes, 500)

    def test_none_of_many_threads_is_lost(self) -> None:
        def log(thread: int) -> None:
            for number in range(500):
                self.handler.handle(_record("%d of %d", number, thread))

        threads = [threading.Thread(target=log, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        wait_until(lambda: len(self.messages()) == 4000)
        for thread_number in range(8):
            mine = [message for message in self.messages() if message.endswith(f" of {thread_number}")]
            self.assertEqual(mine, [f"{number} of {thread_number}" for number in range(500)])

    def test_a_warning_is_written_at_once_with_all_before_it(self) -> None:
        for number in range(3 * _SINGLY):
            self.handler.handle(_record("line %d", number))
        self.handler.handle(_record("look", level=logging.WARNING))
        self.assertEqual(len(self.messages()), 3 * _SINGLY + 1)
        self.assertEqual(self.messages()[-1], "look")

    def test_each_line_tells_when_it_was_logged_and_not_when_it_was_written(self) -> None:
        records = [_record("x") for _ in range(3 * _SINGLY)]
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
        for number in range(3 * _SINGLY):
            self.handler.handle(_record("%d", "no number" if number % 2 else number))
        self.handler.handle(_record("last", level=logging.ERROR))
        self.assertEqual(len(self.messages()), 3 * _SINGLY // 2 + 1)

    def test_a_stream_that_is_closed_stops_nothing(self) -> None:
        self.stream.close()
        for _ in range(3 * _SINGLY):
            self.handler.handle(_record("x"))
        self.handler.flush()


@unittest.skipIf(os.name == "nt", "there nobody can know whether a pipe takes more")
class AReaderWhoDoesNotRead(unittest.TestCase):
    def test_stops_nobody_and_gets_the_newest_lines_when_it_reads_on(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        stream = os.fdopen(writing, "w")
        handler = BatchHandler(stream)
        began = time.monotonic()
        for number in range(30_000):
            handler.handle(_record("line %d", number))
        self.assertLess(time.monotonic() - began, 20)
        closing = threading.Thread(target=handler.close)
        closing.start()
        closing.join(10)
        self.assertFalse(closing.is_alive())
        read = b""
        while b"line 29999\n" not in read:
            read += os.read(reading, 65_536)
        lines = [int(line.rpartition(b" ")[2]) for line in read.splitlines()]
        self.assertEqual(lines, sorted(set(lines)))
        stream.close()


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
