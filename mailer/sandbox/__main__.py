"""Mailer with a mailbox of its own on this computer: to try everything without an account. No mail leaves it."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from mailer import environment, launch
from mailer.errors import ConfigError, ExitCode
from mailer.sandbox.child import Child
from mailer.sandbox.mail import MailServer
from mailer.sandbox.screen import Screen

ADMINISTRATOR = "helpdesk@example.com"
PASSWORD = "sandbox"  # noqa: S105 - it guards nothing
SERVER_PORT = 50007  # where client.py connects to by default
_START_SECONDS = 20.0
_LOOK_SECONDS = 0.1
_LOGS = {"success": "success_request.log", "error": "error_request.log"}


def main(argv: list[str]) -> int:
    """Run the command; return its exit code."""
    parser = launch.Parser("python -m mailer.sandbox", description=__doc__, epilog="example: python -m mailer.sandbox")
    parser.add_argument("--mail-only", action="store_true", help="run the mail server alone, and show its settings")
    parser.add_argument("--smtp-port", type=port, default=0, metavar="P", help="(default: any free one)")
    parser.add_argument("--imap-port", type=port, default=0, metavar="P", help="(default: any free one)")
    parser.add_argument("--server-port", type=port, default=SERVER_PORT, metavar="P", help=f"(default: {SERVER_PORT})")
    flags = parser.parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")

    def run() -> int:
        stop = launch.stop_on_signals()
        screen = Screen(stop.set)
        with ExitStack() as ends:
            mail = _mail_server(flags.smtp_port, flags.imap_port, screen)
            ends.callback(mail.stop)
            if flags.mail_only:
                return _run_mail_only(mail, screen, stop)
            return _run_everything(mail, flags.server_port, screen, stop, ends)

    return launch.guard(run)


def port(text: str) -> int:
    """A port number; argparse puts the name of this function into its error message."""
    number = int(text)
    if not 0 <= number <= 65_535:
        raise ValueError
    return number


def _mail_server(smtp_port: int, imap_port: int, screen: Screen) -> MailServer:
    mail = MailServer(
        smtp_port=smtp_port, imap_port=imap_port, password=PASSWORD, on_delivery=screen.mail, require_login=True,
        uidvalidity=int(time.time()),  # a new one each time, as the mail is new: a collector may know the last one
    )  # fmt: skip
    try:
        mail.start()
    except OSError as failure:
        why = os.strerror(failure.errno or 0)  # the failure's own text repeats the address
        raise ConfigError(f"--smtp-port {smtp_port}, --imap-port {imap_port}: cannot listen ({why})") from failure
    return mail


def _settings(mail: MailServer) -> list[str]:
    return [
        f"EMAIL_LOGIN={ADMINISTRATOR}",
        f"EMAIL_PASSWORD={PASSWORD}",
        f"IMAP_HOST={mail.host}",
        f"IMAP_PORT={mail.imap_port}",
        f"SMTP_HOST={mail.host}",
        f"SMTP_PORT={mail.smtp_port}",
        "PERIOD_CHECK=1",
    ]


def _run_mail_only(mail: MailServer, screen: Screen, stop: launch.Stop) -> int:
    screen.say(
        screen.bold("Mailer's mail server, in memory: no mail leaves this computer."),
        "",
        "Settings for .env (any address logs in with this password):",
        "",
        *("  " + line for line in _settings(mail)),
        "",
        "Ctrl-C ends it, and its mail is gone.",
        "",
    )
    stop.wait()
    screen.say("", "The mail server has ended.")
    return ExitCode.DONE


def _run_everything(mail: MailServer, port: int, screen: Screen, stop: launch.Stop, ends: ExitStack) -> int:
    folder = Path(tempfile.mkdtemp(prefix="mailer-sandbox-"))
    ends.callback(screen.say, f"The sandbox has ended, and {folder} is removed.")
    ends.callback(shutil.rmtree, folder, ignore_errors=True)
    env = folder / ".env"
    env.touch(mode=0o600)
    places = {"SUCCESS_LOG": _LOGS["success"], "ERROR_LOG": _LOGS["error"], "STATE_DIR": "state"}
    own = [f"SERVER_PORT={port}", *(f"{key}={_value(folder / name)}" for key, name in places.items())]
    env.write_text("\n".join([*_settings(mail), *own, ""]), encoding="utf-8")
    children = []
    for script in ("server.py", "collector.py"):
        child = Child(script, env, screen.trouble)
        ends.callback(child.stop)
        children.append(child)
    server = children[0]
    if not server.wait_until_listening(_START_SECONDS):
        return _failed(server, screen)
    _introduce(mail, server.port or port, folder, screen)
    failed = _watch(children, folder, screen, stop)
    if failed is not None:
        return _failed(failed, screen)
    screen.say("", "Ending …")
    return ExitCode.DONE


def _value(path: Path) -> str:
    """A path quoted for the settings file: the name of a temporary folder may have a blank in it."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _word(path: Path) -> str:
    """A path quoted for a command line."""
    return subprocess.list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))


def _introduce(mail: MailServer, port: int, folder: Path, screen: Screen) -> None:
    client = "python client.py"
    if os.path.lexists(environment.BASE / ".env"):
        client += f" --env {_word(folder / '.env')}"  # the person's own settings name another server
    if port != SERVER_PORT:
        client += f" --port {port}"
    screen.say(
        screen.bold("Mailer with a mailbox of its own: no mail leaves this computer."),
        "",
        f"  server.py      {mail.host}:{port}",
        "  collector.py   looks for new mail every second",
        f"  mail server    SMTP {mail.host}:{mail.smtp_port}, IMAP {mail.host}:{mail.imap_port}",
        f"                 any address logs in, with the password {PASSWORD}",
        f"  logs           {folder}",
        f"                 to read them: python collector.py --env {_word(folder / '.env')} --show",
        "",
        f"Next, in another terminal:  {screen.bold(client)}",
        "Each mail and each record is shown here. Ctrl-C ends it all.",
        "",
    )


def _watch(children: list[Child], folder: Path, screen: Screen, stop: launch.Stop) -> Child | None:
    """Show records until told to stop, or until a child ends by itself; return that child."""
    positions = dict.fromkeys(_LOGS, 0)
    while not stop.wait(_LOOK_SECONDS):
        for name, file in _LOGS.items():
            positions[name] = _show_records(name, folder / file, positions[name], screen)
        for child in children:
            if child.ended() is not None:
                return child
    return None


def _show_records(name: str, path: Path, position: int, screen: Screen) -> int:
    """Show the records of a log from this position on; return the position after them."""
    try:
        with path.open("rb") as log:
            log.seek(position)
            lines = log.read().splitlines(keepends=True)
    except FileNotFoundError:
        return position
    for line in lines:
        if line.endswith(b"\n"):  # a line that is still being written is shown later
            screen.record(name, line.decode())
            position += len(line)
    return position


def _failed(child: Child, screen: Screen) -> int:
    code = child.ended()
    if code is None:
        screen.say(f"{child.script} does not come up.")
        return ExitCode.UNAVAILABLE
    screen.say("", f"{child.script} has ended, with exit code {code}.")
    if child.script == "server.py" and child.port is None:
        screen.say("Where its port is taken, --server-port 0 takes any free one.")
    return code if code > 0 else ExitCode.UNAVAILABLE  # it was killed (below 0), or ended unasked (0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
