"""Freed memory, given back to the system.

Called by `mailroom`: the collector holds a few blocks of megabytes for each large mail.
"""

from contextlib import suppress

_M_MMAP_THRESHOLD = -3  # a number of glibc's malloc.h
_LARGE = 262_144  # bytes; far above the windows of most mails


def give_back_large_blocks() -> None:
    """Have glibc give back each large block as soon as it is freed; with another C library nothing changes.

    By itself glibc keeps blocks up to the size of the largest one freed so far, for later ones. As mails differ, these
    fit badly, and the process grows by megabytes, more or less by chance.
    """
    with suppress(ImportError, OSError, TypeError, AttributeError):  # no ctypes; Windows; musl and macOS
        import ctypes

        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
