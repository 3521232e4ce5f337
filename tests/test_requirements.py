"""Where Python is too old or python-dotenv is missing, every command says so in a sentence."""

import ast
import os
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = ("client.py", "server.py", "collector.py", "-m mailer.sandbox")


class RequirementsTest(unittest.TestCase):
    def ends_with(self, sentence: str, *python: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        done = subprocess.run(
            [sys.executable, *python], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=30,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (78, "", 1), done.stderr)
        self.assertIn(sentence, done.stderr)

    def test_without_python_dotenv(self) -> None:
        for command in COMMANDS:
            with self.subTest(command):
                self.ends_with("python-dotenv is missing", "-S", *command.split())  # -S: without what was installed

    def test_with_an_older_python(self) -> None:
        for command in COMMANDS:
            *module, name = command.split()
            run = f"run_module({name!r}" if module else f"run_path({name!r}"
            program = f"import runpy, sys; sys.version_info = (3, 8, 20); runpy.{run}, run_name='__main__')"
            with self.subTest(command):
                self.ends_with("needs Python 3.11 or later; this is 3.8", "-c", program)

    def test_older_pythons_can_read_what_runs_before_it_is_said(self) -> None:
        for path in (*ROOT.glob("*.py"), ROOT / "mailer/__init__.py"):
            with self.subTest(path.name):
                ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


if __name__ == "__main__":
    unittest.main()
