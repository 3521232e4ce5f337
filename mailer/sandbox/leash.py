"""Runs a script so that it ends with the process that started it: `python -m mailer.sandbox.leash SCRIPT [FLAG ...]`.

Standard input is the leash: a pipe that nobody writes to. When its other end is closed, because the sandbox ends or
has been killed, the script is told to end as SIGTERM or Ctrl-C would. This works on every operating system.
"""

import _thread
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

GRACE = 12.0  # seconds for a clean end: the server gives the requests that it has begun ten seconds


def main() -> None:
    """Run the script under its own name."""
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(script).parent)
    threading.Thread(target=_watch, daemon=True).start()
    runpy.run_path(script, run_name="__main__")


def _watch() -> None:
    while os.read(0, 1024):
        pass
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGINT)  # on Windows SIGTERM would end the process at once
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    main()
