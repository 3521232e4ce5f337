"""What the figures depend on: the machine, the interpreter, and the programs that take part."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.realservers import program

# Program, and the arguments that make it say its version.
_PROGRAMS = {
    "postconf": ["-d", "-h", "mail_version"],
    "dovecot": ["--version"],
    "gcc": ["-dumpfullversion"],
    "go": ["version"],
    "node": ["--version"],
    "mbsync": ["--version"],
    "fetchmail": ["--version"],
    "getmail": ["--version"],
}
_VERSION = re.compile(r"\d+(?:\.\d+)+")


def facts() -> str:
    """A few lines about the machine."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    lines = [
        f"machine:   {_processor()}, {os.cpu_count()} cores, {_memory()}{load}",
        f"system:    {platform.system()} {platform.release()}, Python {platform.python_version()}"
        f" ({platform.python_implementation()}), {sys.executable and Path(sys.executable).name}",
        f"programs:  {', '.join(f'{name} {version(name)}' for name in _PROGRAMS if program(name)) or 'none'}",
    ]
    missing = [name for name in _PROGRAMS if not program(name)]
    return "\n".join([*lines, *([f"missing:   {', '.join(missing)}"] if missing else [])])


def version(name: str) -> str:
    """A program's version, as far as it says one."""
    try:
        said = subprocess.run(
            [program(name) or name, *_PROGRAMS[name]], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    found = _VERSION.search(said.stdout + said.stderr)
    return found[0] if found else "?"


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GB"
    except (AttributeError, ValueError, OSError):
        return "memory unknown"
