"""The systemd units in the README, as systemd itself reads them."""

import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.real.workplace import REPOSITORY
from tests.support.realservers import requires

UNIT = re.compile(r"`/etc/systemd/system/([\w.-]+)`.*?```ini\n(\[Unit\].*?)```", re.DOTALL)


@requires("systemd-analyze", root=False)
class UnitsTest(unittest.TestCase):
    def test_systemd_finds_nothing_to_complain_about(self) -> None:
        units = UNIT.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
        self.assertIn("mailer-server.service", [name for name, _ in units])
        self.assertIn("mailer-collector.service", [name for name, _ in units])
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name, unit in units:
            with self.subTest(name):
                self.assertIn("ExecStart=/opt/mailer/.venv/bin/python /opt/mailer/", unit)
                here = unit.replace("/opt/mailer/.venv/bin/python /opt/mailer/", f"{sys.executable} {REPOSITORY}/")
                (folder / name).write_text(here, encoding="utf-8")
                done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(folder / name)],
                                      capture_output=True, text=True, check=False)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
