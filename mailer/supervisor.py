"""Notifications for a service manager that asks for them: systemd's protocol, sd_notify(3).

Without NOTIFY_SOCKET in the environment, `notify` does nothing. Called by `desk` and `mailroom`.
"""

import logging
import os
import socket

_PATIENCE = 1.0  # seconds, for a manager that does not listen

_log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Tell the service manager a state such as READY=1, WATCHDOG=1 or STOPPING=1; raises nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(_PATIENCE)
            # A leading @ stands for the NUL byte of Linux's abstract name space.
            manager.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
    except OSError as failure:
        _log.warning("the service manager cannot be told %s: %s", state, failure)
