"""One ticket (two recipients, 700 bytes, one connection) end to end, at 1, 16 and 64 clients at once."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import load, measure, processes
from tests.benchmarks.processes import PEERS
from tests.real.workplace import Workplace
from tests.support.realservers import free_port, program

NAIVE = "naive"
SESSIONS = 16

Contestants = dict[str, tuple[int, int]]  # name: port, process


def run(quick: bool) -> None:
    """Measure and print."""
    clients, rounds, seconds = ((16,), 1, 0.2) if quick else ((1, 16, 64), 7, 2.0)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as started:
        folder = Path(name)
        generator = load.Load(folder)
        smtp_port, sink = started.enter_context(_sink())
        contestants, missing = _contestants(started, folder, smtp_port)
        print(f"\n== server: a ticket to two recipients, {load.MESSAGE_SIZE} bytes, one connection each, into {sink}")
        print(f"   {generator.how}; {rounds} rounds of {seconds:g} s each, in turns")
        if missing:
            print(f"   not installed: {', '.join(missing)}")
        for count in clients:
            for port, _ in contestants.values():
                generator.run(port, count, min(seconds, 0.3))  # sessions open, threads running
            results = measure.in_turns(
                {name: measured(generator, *place, count, seconds) for name, place in contestants.items()}, rounds
            )
            measure.show(f"{count} client{'s' if count > 1 else ''} at once", results, base=NAIVE)


def measured(generator: load.Load, port: int, pid: int, clients: int, seconds: float) -> measure.Measure:
    def measured() -> measure.Figures:
        figures = generator.run(port, clients, seconds)
        return {**figures, "peak MB": processes.peak_memory(pid)}

    return measured


@contextlib.contextmanager
def _sink() -> Iterator[tuple[int, str]]:
    port = free_port()
    sink = program("smtp-sink")
    if sink:
        user = ["-u", "nobody"] if os.name == "posix" and os.getuid() == 0 else []  # it refuses to stay root
        command = [sink, *user, "-m", "2000", "-t", "3600", f"127.0.0.1:{port}", "1024"]
        name = "Postfix's smtp-sink"
    else:
        command = [sys.executable, "-m", "tests.benchmarks.sink", str(port)]
        name = "a sink of our own in Python (smtp-sink is not installed)"
    with processes.running(command, port=port):
        yield port, name


@contextlib.contextmanager
def mailer(smtp_port: int, **settings: object) -> Iterator[tuple[int, int]]:
    """server.py as its users start it, without rate limits; its port and its process."""
    workplace = Workplace(SMTP_PORT=smtp_port, SMTP_SESSIONS=SESSIONS, **settings)
    try:
        with workplace.serving() as script:
            yield workplace.server_port, script.process.pid
    finally:
        workplace.close()


@contextlib.contextmanager
def reference(*command: str | Path, environment: dict[str, str] | None = None) -> Iterator[tuple[int, int]]:
    """Another server; `PORT` in its command is where it is to listen."""
    port = free_port()
    words = [str(port) if word == "PORT" else word for word in command]
    with processes.running(words, port=port, environment=environment) as process:
        yield port, process.pid


def _contestants(
    started: contextlib.ExitStack, folder: Path, smtp_port: int
) -> tuple[Contestants, list[str]]:
    """All that can be started here, and the names of those that cannot."""
    naive: list[str | Path] = [sys.executable, PEERS / "naive.py", "PORT", str(smtp_port)]
    places: Contestants = {
        NAIVE: started.enter_context(reference(*naive)),
        "naive, pool of sessions": started.enter_context(reference(*naive, "--pool", str(SESSIONS))),
    }
    missing = []
    for name, needs, command, environment in (
        ("Node.js, Nodemailer's pool", "node with nodemailer", *_node()),
        ("Go, net/smtp, pool", "go", _go(folder), {}),
    ):
        if command:
            words = (*command, "PORT", str(smtp_port), str(SESSIONS))
            places[name] = started.enter_context(reference(*words, environment=environment))
        else:
            missing.append(needs)
    places["Mailer"] = started.enter_context(mailer(smtp_port))
    limit = processes.compiled(PEERS / "pipelined.c", folder)
    if limit:
        words = (limit, "PORT", str(smtp_port), str(SESSIONS))
        places["C, pipelined (the limit)"] = started.enter_context(reference(*words))
    else:
        missing.append("a C compiler")
    return places, missing


def _node() -> tuple[list[str | Path] | None, dict[str, str]]:
    """Node.js, and where it finds Nodemailer: NODE_PATH, or npm's folder for global packages."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node:
        return None, {}
    folders = [os.environ.get("NODE_PATH", "")]
    if npm:
        folders.append(subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=False).stdout.strip())
    environment = {"NODE_PATH": os.pathsep.join(filter(None, folders))}
    found = subprocess.run(
        [node, "-e", "require('nodemailer')"], env={**os.environ, **environment}, capture_output=True, check=False
    )
    return ([node, PEERS / "pooled.js"] if found.returncode == 0 else None), environment


def _go(folder: Path) -> list[str | Path] | None:
    go = shutil.which("go")
    if not go:
        return None
    made = folder / "pooled-go"
    subprocess.run(
        [go, "build", "-o", str(made), str(PEERS / "pooled.go")], check=True,
        env={**os.environ, "GO111MODULE": "off", "GOFLAGS": ""},
    )
    return [made]
