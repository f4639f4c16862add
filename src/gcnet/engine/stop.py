"""Signals that end a run in good order: Ctrl-C (SIGINT), SIGTERM and SIGHUP."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
AGAIN = 1.0  # seconds; a launcher repeats a signal that the terminal has sent to all processes already


class Stop:
    """A context in which the first signal only sets `number`: the loop ends after its iteration.

    A second one ends the run at once, as does any signal inside `at_once`. Only the main thread receives
    signals.
    """

    def __init__(self, *, speaks: bool) -> None:
        self.number = 0
        self._speaks = speaks
        self._process = os.getpid()
        self._came = 0.0
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            wanted = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup
            self._before = {number: signal.signal(number, self._handle) for number in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A context in which a signal ends the run immediately; nothing is lost there."""
        if self.number:
            end_by(self.number)
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _handle(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a loader's worker, which inherits this; its parent decides
            return
        now = time.monotonic()
        if self._at_once or (self.number and now - self._came > AGAIN):
            end_by(number)
        if number == getattr(signal, "SIGHUP", None):
            _leave_terminal()
        first, self.number, self._came = not self.number, number, now
        if first and self._speaks:
            with contextlib.suppress(OSError):  # whoever read it was interrupted as well
                print("stopping after this iteration (Ctrl-C again: at once)", file=sys.stderr, flush=True)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """A context in which SIGTERM and SIGHUP end a command as Ctrl-C does: what it writes is made whole.

    Whoever handles SIGTERM inside gets SIGHUP too. A signal that is ignored or handled before stays so.
    """
    process, came = os.getpid(), 0

    def end(number: int, frame: Any) -> None:
        nonlocal came
        if os.getpid() != process:  # as in `Stop`
            return
        if number != signal.SIGTERM:
            _leave_terminal()
        if callable(other := signal.getsignal(signal.SIGTERM)) and other is not end:
            other(number, frame)
            return
        came = number
        for one in ours:
            signal.signal(one, signal.SIG_IGN)  # a shell repeats what the terminal has sent already
        end_by(number)

    main = threading.current_thread() is threading.main_thread()
    ours = [number for number in SIGNALS[1:] if main and signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    except Exception:
        if came:  # in an import, which caught the end and failed at what it lacks
            end_by(came)
        raise
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _leave_terminal() -> None:
    """Redirects output if the terminal is gone; an error in printing would end the run too early."""
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def end_by(number: int) -> NoReturn:
    """Ends the run as the signal `number` does: KeyboardInterrupt, or SystemExit with 128 + `number`."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
