"""Makes the state folder, `STATE_DIR`, before anything is kept in it: durably, and for its owner alone.

Whatever this process makes from then on is for its owner alone, too. A folder that others can write to is warned of,
as they could have tickets numbered twice and mail logged twice. Called by `desk` and `mailroom`.
"""

import contextlib
import logging
import os
import stat
from pathlib import Path

from mailer.disk import make_names_durable, may_pass
from mailer.errors import StateError

_log = logging.getLogger(__name__)


def prepare(folder: Path) -> None:
    """Make the folder unless it exists, and make all later files private (umask 077); raises StateError."""
    os.umask(0o077)
    try:
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as failure:
        raise StateError(
            f"STATE_DIR: {folder} cannot be used ({failure.strerror or failure})", passing=may_pass(failure, folder)
        ) from failure
    for place in made or [folder]:  # one that exists may have been made just before a kill
        with contextlib.suppress(OSError):  # a parent that cannot be read, like systemd's, was not made here
            make_names_durable(place.parent)
    if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
        _log.warning("%s can be written to by others: chmod go-w %s", folder, folder)
