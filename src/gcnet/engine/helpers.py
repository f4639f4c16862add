"""The processes that Lightning starts for a machine's other devices: none may hold up a run or outlive it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gcnet.errors import GCNetError

POLL = 1.0  # seconds between looks at the processes
GRACE = 10.0  # seconds in which the main thread may notice by itself that one of them is gone


class Helpers(Callback):
    """Ends the run with a line when a helper dies, and the helpers when the run fails.

    A process that lost another may wait for it forever, in the midst of a computation on a GPU: only a thread
    can end it then. Lightning's own watch kills this process without a word. A helper ends with its parent.
    """

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen] = []
        self._over = threading.Event()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        started: list[Any] = getattr(trainer.strategy.launcher, "procs", [])
        self._processes = list(started)
        started.clear()  # Lightning's watch looks at this list
        if self._processes:
            threading.Thread(target=self._watch, daemon=True).start()
        elif trainer.local_rank > 0:
            threading.Thread(target=self._watch_parent, args=(os.getppid(),), daemon=True).start()

    def death(self, *, wait: float = 0.0) -> GCNetError | None:
        """What to tell of a helper that failed, or None; one may be about to, for `wait` seconds."""
        until = time.monotonic() + wait
        while True:
            for number, process in enumerate(self._processes, start=2):
                if code := process.poll():
                    how = f"was killed (signal {-code})" if code < 0 else f"failed (exit code {code})"
                    return GCNetError(
                        f"the process of device {number} of {len(self._processes) + 1} {how}"
                        f"{', as happens when memory runs out' if code == -9 else ''}; "
                        "go on from the last checkpoint with --resume"
                    )
            if time.monotonic() >= until:
                return None
            time.sleep(0.1)

    def over(self) -> None:
        """The run has ended well, or has said why not: deaths no longer matter."""
        self._over.set()

    def end(self) -> None:
        """Ends the helpers, which would wait for this process forever."""
        self.over()
        for process in self._processes:
            process.kill()
            process.wait()

    def _watch(self) -> None:
        while not self._over.wait(POLL):
            if (death := self.death()) and not self._over.wait(GRACE):
                print(f"gcnet: error: {death}", file=sys.stderr, flush=True)
                for process in self._processes:
                    process.kill()
                os._exit(2)

    def _watch_parent(self, parent: int) -> None:
        while not self._over.wait(POLL):
            if os.getppid() != parent:
                os._exit(2)
