"""A ticket over a network of 20 ms a round trip, and over TLS: the naive server beside Mailer."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import load, measure, processes
from tests.benchmarks.server import NAIVE, SESSIONS, mailer, measured, reference
from tests.support.realservers import ADMINISTRATOR, PASSWORD, free_port

ROUND_TRIP = 20  # milliseconds
CLIENTS = 16


def run(quick: bool) -> None:
    """Measure and print."""
    rounds, seconds = (1, 0.3) if quick else (5, 3.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generator = load.Load(folder)
        certificate = _certificate(folder)
        print(f"\n== network: {CLIENTS} clients at once, {SESSIONS} sessions, into a sink of our own in Python")
        print(f"   {generator.how}; {rounds} rounds of {seconds:g} s each, in turns")
        if not certificate:
            print("   not installed: openssl (to make a certificate: no STARTTLS and TLS)")
        for security, round_trip in (("plain", ROUND_TRIP), ("starttls", ROUND_TRIP), ("tls", 0)):
            if certificate or security == "plain":
                _compare(generator, security, round_trip, certificate if security != "plain" else (), rounds, seconds)


def _compare(
    generator: load.Load, security: str, round_trip: int, certificate: tuple[Path, ...], rounds: int, seconds: float
) -> None:
    with contextlib.ExitStack() as started:
        port = started.enter_context(_sink(security, certificate))
        if round_trip:
            port = started.enter_context(_delayed(port, round_trip))
        naive: list[str | Path] = [sys.executable, processes.PEERS / "naive.py", "PORT", str(port)]
        settings: dict[str, object] = {"SMTP_SECURITY": security}
        if certificate:
            naive += ["--security", security, "--ca", certificate[0], "--login", f"{ADMINISTRATOR}:{PASSWORD}"]
            settings["MAIL_CA_FILE"] = certificate[0]
        places = {NAIVE: started.enter_context(reference(*naive))}
        if certificate and not round_trip:
            places["naive, a context each"] = started.enter_context(reference(*naive, "--context-each"))
        places["Mailer"] = started.enter_context(mailer(port, **settings))
        for place in places.values():
            generator.run(place[0], CLIENTS, min(seconds, 0.5))
        contestants = {
            name: measured(generator, *place, CLIENTS, seconds) for name, place in places.items()
        }
        way = f"{round_trip} ms a round trip" if round_trip else "loopback"
        words = {"plain": "plain", "starttls": "STARTTLS with AUTH", "tls": "TLS with AUTH"}[security]
        measure.show(f"{way}, {words}", measure.in_turns(contestants, rounds), base=NAIVE)


@contextlib.contextmanager
def _sink(security: str, certificate: tuple[Path, ...]) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.sink", str(port), security, *map(str, certificate)]
    with processes.running(command, port=port):
        yield port


@contextlib.contextmanager
def _delayed(target: int, milliseconds: int) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.delay", str(port), str(target), str(milliseconds)]
    with processes.running(command, port=port):
        yield port


def _certificate(folder: Path) -> tuple[Path, ...]:
    """A certificate for 127.0.0.1 that is its own authority, and its key; nothing where openssl is missing."""
    openssl = shutil.which("openssl")
    if not openssl:
        return ()
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )
    return certificate, key
