"""Mailer against real mail servers; tests.support.realservers says when these run, are skipped, or must run."""

import os
import unittest
from pathlib import Path


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None) -> unittest.TestSuite:
    """All modules of this folder; none with MAILER_REAL=no, for a run of everything else."""
    if os.environ.get("MAILER_REAL") != "no":
        tests.addTests(loader.discover(str(Path(__file__).parent), pattern=pattern or "test*.py"))
    return tests
