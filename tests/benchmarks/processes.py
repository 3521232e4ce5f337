"""Processes that take part: started, waited for until they listen, measured, and ended."""

import contextlib
import math
import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.benchmarks import machine
from tests.support.waiting import wait_until

HERE = Path(__file__).parent
PEERS = HERE / "peers"
REPOSITORY = HERE.parents[1]
_HIGH_WATER = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], *, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process inside the block, ready when it listens on `port`; killed at the end."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
        )
        try:
            if port is not None:
                wait_until(lambda: process.poll() is not None or listens(port), 30)
            if process.poll() is not None:
                said.seek(0)
                raise RuntimeError(f"{command[0]} ended:\n{said.read().decode(errors='replace')}")
            yield process
        finally:
            process.kill()
            process.wait()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def peak_memory(pid: int) -> float:
    """The most memory that a process has held so far, in MB; NaN where the system does not tell."""
    with contextlib.suppress(OSError):
        found = _HIGH_WATER.search(Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
        if found:
            return int(found[1]) / 1024
    return math.nan


def compiled(source: Path, folder: Path) -> Path | None:
    """A C program out of its source; None where there is no compiler."""
    compiler = machine.compiler()
    if compiler is None:
        return None
    made = folder / source.stem
    subprocess.run([compiler, "-O2", "-o", str(made), str(source), "-lpthread"], check=True)
    return made
