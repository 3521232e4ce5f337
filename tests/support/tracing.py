"""What a process asks of the system, as `strace` tells it: for tests of what comes before what.

strace needs no root, only leave to trace one's own children; where that is missing, the test is skipped and says so.
"""

import re
import shutil
import subprocess
import unittest
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
# Counted from their beginning, as the other side may have it by then; all other calls only once they have ended.
_OUTGOING = ("write(", "pwrite64(", "sendto(")
_FAILED = re.compile(r"= -1 E[A-Z]+ \(.*\)$")


def strace(test: unittest.TestCase, trace: Path, calls: str) -> list[str]:
    """What to put in front of a command whose system calls are to be traced; the command stays our own child."""
    program = shutil.which("strace")
    if not program:
        test.skipTest("needs strace")
    options = [program, "-D", "-f", "-qq", "-yy", "-s", "1000000"]
    if subprocess.run([*options, "-o", "/dev/null", "true"], capture_output=True, timeout=60).returncode:
        test.skipTest("needs leave to trace processes (ptrace)")
    return [*options, "-o", str(trace), "-e", f"trace={calls}"]


def calls(trace: Path) -> Iterator[str]:
    """The calls that succeeded, `name(arguments) = result`, in the order in which they took effect."""
    begun: dict[str, str] = {}
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _LINE.fullmatch(line)
        if not found:
            continue
        thread, text = found.groups()
        if text.endswith(" <unfinished ...>"):
            begun[thread] = text.removesuffix(" <unfinished ...>")
            if text.startswith(_OUTGOING):
                yield text
        elif resumed := _RESUMED.fullmatch(text):
            text = begun.pop(thread, "") + resumed[1]
            if not text.startswith(_OUTGOING) and not _FAILED.search(text):
                yield text
        elif not _FAILED.search(text):
            yield text


def events(calls: Iterable[str], kinds: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The calls that match a pattern: each with its kind, and several of a kind in a row as one."""
    last, texts = "", ""
    for text in calls:
        kind = next((kind for kind, pattern in kinds.items() if re.match(pattern, text)), "")
        if kind and kind == last:
            texts += "\n" + text
        elif kind:
            if last:
                yield last, texts
            last, texts = kind, text
    if last:
        yield last, texts
