"""The load: so many clients at once, each with one connection a ticket. In C where there is a compiler.

`python load.py PORT CLIENTS SECONDS FRAME-FILE ID-OFFSET NUMBER-OFFSET` is what stands in for load.c where there is
none: a process for each four clients. It takes several times as much of the processor away from the servers.
"""

import json
import math
import multiprocessing
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import measure, processes

_TEXT = (
    "Good morning,\nthe printer on the third floor has been printing every page twice since yesterday, and the second "
    "copy comes out pale. We have changed the toner and switched it off and on again. "
)
MESSAGE_SIZE = 700


class Load:
    """The generator, ready to run; `how` says what it is."""

    def __init__(self, folder: Path) -> None:
        program = processes.compiled(processes.HERE / "load.c", folder)
        self.how = "the load comes from a program in C" if program else "the load comes from Python (no C compiler)"
        self._command: list[str | Path] = [program] if program else [sys.executable, "-m", "tests.benchmarks.load"]
        self._frame = folder / "frame"
        message = (_TEXT * 10)[:MESSAGE_SIZE]
        body = json.dumps({"id": 16 * "0", "email": "person000000@example.net", "message": message}).encode()
        frame = len(body).to_bytes(4, "big") + body
        self._frame.write_bytes(frame)
        self._offsets = frame.index(16 * b"0"), frame.index(b"person") + len("person")

    def run(self, port: int, clients: int, seconds: float) -> measure.Figures:
        """Ask the server on `port`; a lost or refused request is an error of the measurement."""
        done = subprocess.run(
            list(map(str, [*self._command, port, clients, seconds, self._frame, *self._offsets])),
            capture_output=True, text=True, check=True, cwd=processes.REPOSITORY,
        )
        answered, errors, took, p50, p99, _ = map(float, done.stdout.split())
        if errors:
            raise RuntimeError(f"{errors:.0f} of {errors + answered:.0f} requests were not answered OK")
        return {"tickets/s": answered / took, "p50 ms": p50, "p99 ms": p99}


def _ask(port: int, frame: bytearray) -> bool:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(frame)
        reply = b""
        while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "big"):
            piece = connection.recv(4096)
            if not piece:
                return False
            reply += piece
    return b'"OK"' in reply


def _client(port: int, frame: bytearray, offsets: Sequence[int], until: float, results: list[float]) -> None:
    at_id, at_number = offsets
    while (begun := time.monotonic()) < until:
        frame[at_id : at_id + 16] = secrets.token_hex(8).encode()
        frame[at_number : at_number + 6] = b"%06d" % secrets.randbelow(1_000_000)
        try:
            ok = _ask(port, frame)
        except OSError:
            ok = False
        results.append((time.monotonic() - begun) * 1000 if ok else math.nan)


def _clients(arguments: tuple[int, int, float, bytes, Sequence[int]]) -> list[float]:
    port, count, until, frame, offsets = arguments
    results: list[float] = []
    threads = [
        threading.Thread(target=_client, args=(port, bytearray(frame), offsets, until, results)) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def main(arguments: Sequence[str]) -> int:
    port, clients, seconds = int(arguments[0]), int(arguments[1]), float(arguments[2])
    frame = Path(arguments[3]).read_bytes()
    offsets = int(arguments[4]), int(arguments[5])
    count = min(clients, 4 * (os.cpu_count() or 1))
    shares = [clients // count + (index < clients % count) for index in range(count)]
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        pool.map(abs, range(4 * count))  # all are up before the clock runs
        begun = time.monotonic()
        work = [(port, share, begun + seconds, frame, offsets) for share in shares]
        results = sorted(latency for part in pool.map(_clients, work, 1) for latency in part)
        took = time.monotonic() - begun
    good = sorted(latency for latency in results if not math.isnan(latency))
    p50, p99, longest = (good[min(len(good) - 1, int(len(good) * part))] if good else 0.0 for part in (0.5, 0.99, 1.0))
    print(len(good), len(results) - len(good), f"{took:.6f} {p50:.4f} {p99:.4f} {longest:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
