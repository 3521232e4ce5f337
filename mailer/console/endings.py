"""The signals that end the client: Ctrl-C, Ctrl-\\, a request of the system, a terminal that has gone.

The first one raises KeyboardInterrupt wherever the client is, so that a draft is kept, and the person is told whether
the message may have been sent. Called by `console`, `conversation`, `form`, `terminal` and `editor`.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ENDINGS = [getattr(signal, name) for name in ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_KEYS = {signal.SIGINT, getattr(signal, "SIGQUIT", signal.SIGINT)}
# How late an ending may be noticed that comes in the moment before a wait for a key: it does not interrupt that wait.
_LATEST = 0.5  # seconds


def end_once() -> None:
    """Have the first of these signals raise KeyboardInterrupt, and no other: a window that closes may send several."""

    def end(*_: object) -> None:
        end_no_more()
        raise KeyboardInterrupt

    for ending in _ENDINGS:
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as under `nohup`
            signal.signal(ending, end)


@contextmanager
def ending_once() -> Iterator[None]:
    """The same for a while, with the signals as they were before at its end; nothing in a thread that gets none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDINGS}
    end_once()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def endings_noticed() -> Iterator[None]:
    """Interrupt each wait for a key now and then, so that a signal is noticed which came before the wait had begun."""
    if not hasattr(signal, "setitimer") or any(signal.getitimer(signal.ITIMER_REAL)):  # the timer of whoever started us
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    # It ends a `select` all the same, but no write to a terminal that was stopped by Ctrl-S: readline would lose it.
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, _LATEST, _LATEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def end_no_more() -> None:
    """Ignore these signals from here on."""
    for ending in _ENDINGS:
        signal.signal(ending, lambda *_: None)  # SIG_IGN makes Python complain of a pending one


@contextmanager
def endings_noted() -> Iterator[list[int]]:
    """Only note these signals while the person's editor is at work: the list of those that have come.

    Afterwards raises KeyboardInterrupt if one has come, but for those of Ctrl-C and Ctrl-\\, which are keys of editors.
    """
    ended: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: ended.append(number)) for number in _ENDINGS}
    try:
        yield ended
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if ends(ended):
        raise KeyboardInterrupt


def ends(signals: list[int]) -> bool:
    """Whether one of the signals ends the client, and was not a key that an editor has a use for."""
    return bool({*signals} - _KEYS)
