"""Mailer: a helpdesk out of a mailbox. The scripts `client.py`, `server.py` and `collector.py` are its commands."""

import importlib.util
import sys

# Told in a sentence, before any other module fails with a traceback. Older Pythons must be able to read this file.
_TROUBLE = ""
if sys.version_info < (3, 11):  # noqa: UP036 - that is what it is for
    _TROUBLE = "Mailer needs Python 3.11 or later; this is {}.{}.".format(*sys.version_info)
elif importlib.util.find_spec("dotenv") is None:
    _TROUBLE = f"python-dotenv is missing; this installs it:  {sys.executable} -m pip install -r requirements.txt"
if _TROUBLE:
    sys.stderr.write(_TROUBLE + "\n")
    raise SystemExit(78)  # ExitCode.CONFIG
