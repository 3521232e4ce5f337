"""Freed memory goes back to the system."""

import platform
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Frees a block of 16 MB, from which glibc learns to keep smaller ones, and then many of 1 MB between small ones that
# stay; prints how many MB the process has more than at the beginning.
_PROGRAM = """
import re, sys
from pathlib import Path
from mailer.heap import give_back_large_blocks
def held():
    return int(re.search("VmRSS:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) // 1024
if sys.argv[1] == "with":
    give_back_large_blocks()
before = held()
bytearray(16 << 20)
blocks = [(bytearray(b"x") * (1 << 20), bytes(1000)) for _ in range(64)]
small = [rest for _, rest in blocks]
del blocks
print(held() - before)
"""


@unittest.skipUnless(platform.libc_ver()[0] == "glibc", "only glibc keeps them, and is told not to")
class Heap(unittest.TestCase):
    def test_large_blocks_are_given_back_when_they_are_freed(self) -> None:
        self.assertLess(self.grown_by("with"), 8)
        self.assertGreater(self.grown_by("without"), 32, "this is what it is for")

    def grown_by(self, how: str) -> int:
        command = [sys.executable, "-c", _PROGRAM, how]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    unittest.main()
