"""Large blocks are given back to the system, whatever was freed before."""

import ctypes
import os
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Frees a block of 16 MB, from which glibc learns to keep smaller ones; prints how many blocks more it has from the
# system directly, which go back to it, once there is one of 1 MB.
_PROGRAM = """
import ctypes, sys
from mailer.heap import give_back_large_blocks
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "others")] + [
        ("rest", ctypes.c_size_t * 16)]
ask = ctypes.CDLL(None).mallinfo2
ask.restype = Info
if sys.argv[1] == "with":
    give_back_large_blocks()
large = bytes(16 << 20)
del large
before = ask().hblks
block = bytes(1 << 20)
print(ask().hblks - before)
"""


@unittest.skipUnless(sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2"), "needs glibc 2.33 or later")
class Heap(unittest.TestCase):
    def test_a_large_block_is_the_systems(self) -> None:
        self.assertEqual((self.from_the_system("without"), self.from_the_system("with")), (0, 1))

    def from_the_system(self, how: str) -> int:
        command = [sys.executable, "-c", _PROGRAM, how]
        env = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_", "LD_"))}
        return int(subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    unittest.main()
