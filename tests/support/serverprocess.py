"""`server.py` as a process of its own, with its settings in a temporary folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
ADMIN = "helpdesk@example.com"


def environment() -> dict[str, str]:
    """The environment without any setting of ours."""
    return {key: value for key, value in os.environ.items() if key in ("PATH", "SYSTEMROOT", "TMPDIR", "HOME", "LANG")}


class ServerProcess:
    """A running server: `with ServerProcess(SMTP_PORT=..., RATE_PER_CLIENT="off") as server: ... server.port`.

    Its state is in `folder`; a folder that is given is used again and left alone.
    """

    def __init__(self, *flags: str, folder: Path | None = None, **settings: object) -> None:
        self._own = None if folder else Path(tempfile.mkdtemp(prefix="mailer-server-"))
        self.folder = folder or self._own or Path()
        defaults = {
            "EMAIL_LOGIN": ADMIN, "EMAIL_PASSWORD": "sandbox", "SMTP_HOST": "127.0.0.1",
            "STATE_DIR": self.folder / "state", "RATE_PER_CLIENT": "off", "RATE_PER_RECIPIENT": "off",
        }  # fmt: skip
        env = self.folder / "settings.env"
        env.write_text("".join(f"{key}='{value}'\n" for key, value in {**defaults, **settings}.items() if value != ""))
        env.chmod(0o600)
        self.command = [sys.executable, str(ROOT / "server.py"), "--env", str(env), *flags]
        self.lines: list[str] = []  # of stderr
        self.port = 0

    def run(self) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        try:
            return subprocess.run(
                self.command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=60
            )
        finally:
            self._clean_up()

    def __enter__(self) -> "ServerProcess":
        self.process = subprocess.Popen(
            [*self.command, "--port", "0"], cwd=self.folder, env=environment(), text=True, stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: self.port or self.process.poll() is not None, 30)
        assert self.port, self.log
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        assert self.process.stderr
        self.process.stderr.close()
        self._clean_up()

    @property
    def log(self) -> str:
        """What it has logged until now."""
        return "\n".join(self.lines)

    def terminate(self) -> None:
        """Tell it to end."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 10.0) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if found := re.search(r"listening on .*:(\d+)$", self.lines[-1]):
                self.port = int(found[1])

    def _clean_up(self) -> None:
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)
