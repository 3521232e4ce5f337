"""Reading mail: Mailer's reader beside the standard library's parser, over all mails and by kind of mail.

The parser's contestants get the same fields and the body; they turn no HTML into text, guess no charset and name no
attachments.
"""

import email
import email.policy
import time
from collections.abc import Callable

from mailer.reading import read
from tests.benchmarks import measure
from tests.benchmarks.mails import mails

FIELDS = ("Subject", "From", "Date", "Message-ID")


def with_mailer(raw: bytes) -> object:
    return read(raw)


def with_default_policy(raw: bytes) -> object:
    """What everybody writes."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    body = message.get_body(("plain", "html"))
    return [str(message[name]) for name in FIELDS], body.get_content() if body else ""


def with_compat32(raw: bytes) -> object:
    """The older policy, and the first text part decoded by hand."""
    message = email.message_from_bytes(raw)
    for part in message.walk():
        if part.get_content_maintype() == "text":
            data = part.get_payload(decode=True)
            assert isinstance(data, bytes)
            return [message[name] for name in FIELDS], data.decode(part.get_content_charset() or "utf-8", "replace")
    return [message[name] for name in FIELDS], ""


CONTESTANTS: dict[str, Callable[[bytes], object]] = {
    "Mailer": with_mailer,
    "compat32": with_compat32,
    "policy.default": with_default_policy,
}


def kind(raw: bytes) -> str:
    if len(raw) > 100_000:
        return "200 KB attached"
    for mark, name in ((b"multipart/report", "bounce"), (b"text/html", "HTML"), (b": base64", "base64")):
        if mark in raw:
            return name
    return "quoted-printable" if b"quoted-printable" in raw else "as it is"


def timed(reader: Callable[[bytes], object], raws: list[bytes]) -> measure.Figures:
    begin = time.perf_counter()
    for raw in raws:
        reader(raw)
    seconds = time.perf_counter() - begin
    return {"mails/s": len(raws) / seconds, "µs a mail": 1_000_000 * seconds / len(raws)}


def run(quick: bool) -> None:
    """Print how many mails a second each reads, and where Mailer's time goes."""
    raws = mails(100 if quick else 1000)
    rounds = 1 if quick else 5
    contestants = {name: lambda reader=reader: timed(reader, raws) for name, reader in CONTESTANTS.items()}
    measure.show("Reading mail", measure.in_turns(contestants, rounds), base="policy.default")
    kinds: dict[str, list[bytes]] = {}
    for raw in raws:
        kinds.setdefault(kind(raw), []).append(raw)
    print(f"\n  {'kind':18}{'mails':>6}" + "".join(f"{name:>16}" for name in CONTESTANTS) + f"{'share of time':>16}")
    fastest = {
        (name, of): min(timed(reader, some)["µs a mail"] for _ in range(rounds))
        for name, reader in CONTESTANTS.items()
        for of, some in kinds.items()
    }
    whole = sum(fastest["Mailer", of] * len(some) for of, some in kinds.items())
    for of, some in sorted(kinds.items()):
        times = "".join(f"{fastest[name, of]:>13,.0f} µs" for name in CONTESTANTS)
        print(f"  {of:18}{len(some):>6}{times}{100 * fastest['Mailer', of] * len(some) / whole:>15.0f}%")


if __name__ == "__main__":
    run(quick=False)
