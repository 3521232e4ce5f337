"""Each benchmark runs and prints what it found; which figures it finds is not asserted."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

from tests.benchmarks.__main__ import COMPARISONS

REPOSITORY = Path(__file__).parents[1]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *arguments], cwd=REPOSITORY, capture_output=True, text=True,
        encoding="utf-8", timeout=300, check=False, env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


class Benchmarks(unittest.TestCase):
    def test_each_prints_the_machine_and_its_table(self) -> None:
        for name in COMPARISONS:
            with self.subTest(name):
                done = run("--quick", name)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertTrue(done.stdout.startswith("machine:"), done.stdout)
                if "cannot be measured here" not in done.stdout:
                    self.assertRegex(done.stdout, r"(?m)^ *\S.*(\s+[0-9][0-9.,]*){3}")
                if name in ("server", "network"):
                    self.assertRegex(done.stdout, r"(?m)^  Mailer +#+ [0-9]")

    def test_an_unknown_name_is_refused_with_the_known_ones(self) -> None:
        done = run("sever")
        self.assertEqual(done.returncode, 2)
        for name in ("sever", *COMPARISONS):
            self.assertIn(name, done.stderr)


if __name__ == "__main__":
    unittest.main()
