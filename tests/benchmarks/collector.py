"""A mailbox of mixed mail on a local Dovecot read into records, and a pass over a mailbox in which nothing is new."""

import functools
import importlib.util
import itertools
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mailer import launch, tls
from mailer.collect import Collector
from mailer.config import collector_settings
from mailer.imap import Mailbox
from mailer.journal import Journal, keep
from mailer.position import Position
from tests.benchmarks import measure, processes
from tests.benchmarks.mails import Store, mails
from tests.real.workplace import environment
from tests.support.realservers import PASSWORD, Dovecot, program

LOOP = "plain loop"
_EARLY = 100  # records, the time to which is measured
_WATCH = 0.01  # seconds between looks at a process

# The command that reads the mailbox of a user into a folder.
_Command = Callable[[Path, str], list[str | Path]]


def _records(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*_request.log"))


class _Reader:
    """A contestant. Those that are slow get a share of the mailbox."""

    def __init__(self, command: _Command, share: float = 1.0, count: Callable[[Path], int] = _records) -> None:
        self.command, self.share, self.count = command, share, count


def run(quick: bool) -> None:
    """Measure and print."""
    count, rounds, unchanged = (200, 1, 2_000) if quick else (10_000, 3, 100_000)
    print("\n== collector: mixed mail on a local Dovecot, 3 % of it with attachments of 200 KB, as a process each")
    if not program("dovecot") or os.name != "posix" or os.getuid() != 0 or os.environ.get("MAILER_REAL") == "no":
        print("   cannot be measured here: Dovecot is not installed, or this is not root, who has to start it")
        return
    with Dovecot() as dovecot:
        store = Store(dovecot, mails(count))
        readers, missing = _readers(dovecot.imap_port)
        print(f"   {count:,} mails, {rounds} rounds, in turns; records are the lines of the logs")
        if missing:
            print(f"   not installed: {', '.join(missing)}")
        numbers = itertools.count()
        read = functools.partial(_read, dovecot, store, count, numbers)
        results = measure.in_turns(
            {name: functools.partial(read, reader) for name, reader in readers.items()}, rounds
        )
        measure.show("new mail", results, base=LOOP)
        _passes(dovecot, store, unchanged, 20 if quick else 200)


def _read(
    dovecot: Dovecot, store: Store, count: int, numbers: "itertools.count[int]", reader: _Reader
) -> measure.Figures:
    """A fresh mailbox, read once."""
    mine = max(1, round(count * reader.share))
    address = f"helpdesk{next(numbers)}@example.com"
    store.fill(address, mine)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = list(map(str, reader.command(folder, address)))
        with (folder / "said").open("wb") as said:
            begun = time.monotonic()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder,
                                       env=environment() | {"PYTHONPATH": _modules(), "HOME": name})
            early, peak = _watch(process, folder, begun)
            took = time.monotonic() - begun
        got = reader.count(folder)
        if process.returncode or got != mine:
            text = (folder / "said").read_text(errors="replace")
            raise RuntimeError(f"{command} got {got} of {mine} mails, ended with {process.returncode}:\n{text[-2000:]}")
    store.empty(address)
    return {"mails/s": mine / took, "mails": mine, f"first {_EARLY} after s": early, "peak MB": peak}


def _modules() -> str:
    return os.pathsep.join([str(processes.REPOSITORY), os.environ.get("PYTHONPATH", "")])


def _watch(process: "subprocess.Popen[bytes]", folder: Path, begun: float) -> tuple[float, float]:
    """Until the process has ended: when it had written its first records, and the most memory that it held."""
    early = peak = math.nan
    while process.poll() is None:
        held = processes.peak_memory(process.pid)
        peak = peak if math.isnan(held) else held
        if math.isnan(early) and _records(folder) >= _EARLY:
            early = time.monotonic() - begun
        time.sleep(_WATCH)
    return early, peak


def _readers(port: int) -> tuple[dict[str, _Reader], list[str]]:
    """All that can be run here, and the names of those that cannot."""

    def loop(script: str) -> _Command:
        def command(folder: Path, user: str) -> list[str | Path]:
            logs = [folder / "success_request.log", folder / "error_request.log"]
            return [sys.executable, processes.PEERS / script, str(port), user, PASSWORD, *logs]

        return command

    readers = {LOOP: _Reader(loop("loop.py"))}
    missing = []
    if importlib.util.find_spec("imap_tools"):
        readers["imap_tools"] = _Reader(loop("tools_loop.py"))
    else:
        missing.append("imap_tools")
    for name, reader in (
        ("mbsync", _Reader(functools.partial(_mbsync, port), 1.0, _files)),
        ("fetchmail", _Reader(functools.partial(_fetchmail, port), 0.2, _sent)),
        ("getmail", _Reader(functools.partial(_getmail, port), 0.1, _files)),
    ):
        if shutil.which(name):
            readers[f"{name} (downloads only)"] = reader
        else:
            missing.append(name)
    readers["Mailer"] = _Reader(functools.partial(_mailer, port))
    return readers, missing


def _mailer(port: int, folder: Path, user: str) -> list[str | Path]:
    settings = _settings(port, folder, user)
    env_file = folder / ".env"
    env_file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
    env_file.chmod(0o600)
    return [sys.executable, processes.REPOSITORY / "collector.py", "--env", env_file, "--once"]


def _settings(port: int, folder: Path, user: str) -> dict[str, str]:
    return {
        "EMAIL_LOGIN": user, "EMAIL_PASSWORD": PASSWORD, "IMAP_HOST": "127.0.0.1", "IMAP_PORT": str(port),
        "PERIOD_CHECK": "1", "STATE_DIR": str(folder / "state"),
        "SUCCESS_LOG": str(folder / "success_request.log"), "ERROR_LOG": str(folder / "error_request.log"),
    }


def _mbsync(port: int, folder: Path, user: str) -> list[str | Path]:
    (folder / "mail").mkdir()
    (folder / "mbsyncrc").write_text(
        f"IMAPStore far\nHost 127.0.0.1\nPort {port}\nUser {user}\nPass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\n\n"
        f"MaildirStore near\nInbox {folder}/mail\n\nChannel all\nFar :far:\nNear :near:\nSync Pull\n"
        f"SyncState {folder}/state\n", encoding="utf-8",
    )
    return ["mbsync", "-c", folder / "mbsyncrc", "all"]


def _fetchmail(port: int, folder: Path, user: str) -> list[str | Path]:
    control = folder / "fetchmailrc"
    control.write_text(
        f'poll 127.0.0.1 protocol IMAP service {port} user "{user}" password "{PASSWORD}" fetchall keep'
        f' sslproto "" bsmtp "{folder}/mail"\n', encoding="utf-8",
    )
    control.chmod(0o600)
    return ["fetchmail", "--silent", "-f", control, "--pidfile", folder / "pid"]


def _files(folder: Path) -> int:
    """The mails in a maildir."""
    return len(list(folder.glob("mail/*/*")))


def _sent(folder: Path) -> int:
    """The mails in a batch of SMTP commands."""
    return (b"\n" + (folder / "mail").read_bytes()).count(b"\nMAIL FROM:")


def _getmail(port: int, folder: Path, user: str) -> list[str | Path]:
    folder.chmod(0o711)
    for part in ("new", "cur", "tmp"):
        (folder / "mail" / part).mkdir(parents=True)
    for path in (folder / "mail", *(folder / "mail").iterdir()):
        shutil.chown(path, "nobody", "nogroup")  # it writes no mail as root
    (folder / "getmailrc").write_text(
        f"[retriever]\ntype = SimpleIMAPRetriever\nserver = 127.0.0.1\nport = {port}\nusername = {user}\n"
        f"password = {PASSWORD}\n\n[destination]\ntype = Maildir\npath = {folder}/mail/\nuser = nobody\n\n"
        "[options]\nverbose = 0\n", encoding="utf-8",
    )
    return ["getmail", "--getmaildir", folder, "--rcfile", folder / "getmailrc"]


def _passes(dovecot: Dovecot, store: Store, count: int, rounds: int) -> None:
    """What a pass costs in which nothing is new, in a large and in a small mailbox."""
    results: dict[str, Sequence[measure.Figures]] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in (count, 100):
            user = f"unchanged{size}@example.com"
            store.fill(user, size, seen=True)
            results[f"Mailer, {size:,} mails"] = _pass_times(_settings(dovecot.imap_port, Path(name), user), rounds)
    measure.show("a pass without new mail", results)


def _pass_times(values: dict[str, str], rounds: int) -> list[measure.Figures]:
    settings = collector_settings(values, Path())
    context = tls.client_context(None)
    mailbox = Mailbox(settings.imap, launch.login(settings.account, None), settings.folder, context=context,
                      timeout=settings.timeout)
    position = Position(settings.state_dir, settings.account.login)
    collector = Collector(mailbox, Journal(settings.success_log), Journal(settings.error_log), position,
                          keep=lambda name, raw: keep(settings.state_dir / name, raw))
    times = []
    try:
        for _ in range(rounds + 1):
            begun = time.perf_counter()
            if collector.run_pass() != (0, 0):
                raise RuntimeError("something was new in a mailbox in which nothing is")
            times.append(1000 * (time.perf_counter() - begun))
    finally:
        mailbox.close()
        position.close()
    return [{"ms": each} for each in times[1:]]  # the first one connects
