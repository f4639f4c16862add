"""Progress of a run: a bar on a terminal, a line every 30 seconds in a log file."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from datetime import timedelta

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

try:
    import resource
except ImportError:  # Windows
    resource = None

SMOOTH = 20  # iterations that losses and times are averaged over
LINE_EVERY = 30.0  # seconds between the lines of a log


class ProgressLine:
    """Shows iteration, smoothed losses, learning rate, time left and memory."""

    def __init__(
        self, total: int, start: int, iterations_per_epoch: int, console: Console | None = None
    ) -> None:
        self.total = total
        self.iterations_per_epoch = iterations_per_epoch
        self._console = console or Console(stderr=True)
        self._losses: deque[dict[str, float]] = deque(maxlen=SMOOTH)
        self._seconds: deque[float] = deque(maxlen=SMOOTH)
        self._ended = time.monotonic()
        self._printed = -LINE_EVERY
        self._iteration = start
        self._bar: Progress | None = None

    def update(self, iteration: int, losses: Mapping[str, float], lr: float, device: torch.device) -> None:
        """Call after each iteration."""
        now = time.monotonic()
        self._seconds.append(now - self._ended)
        self._ended = now
        self._losses.append(dict(losses))
        self._iteration = iteration
        text = self._text(lr, device)
        if self._console.is_terminal:
            self._show(text)
        elif now - self._printed >= LINE_EVERY or iteration == self.total:
            self._printed = now
            print(f"iteration {iteration}/{self.total} {text}", flush=True)

    def pause(self) -> None:
        """Hides the bar while others print; the time until `resume` or the next update does not count."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def resume(self) -> None:
        """Starts timing iterations again."""
        self._ended = time.monotonic()

    def _show(self, text: str) -> None:
        if self._bar is None:
            columns = (MofNCompleteColumn(), BarColumn(bar_width=12), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=self._console, transient=True, refresh_per_second=4)
            self._bar.add_task(text, total=self.total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=self._iteration, description=text)

    def _text(self, lr: float, device: torch.device) -> str:
        seconds = sum(self._seconds) / len(self._seconds)
        losses = " ".join(
            f"{name.removeprefix('loss_')} {sum(row[name] for row in self._losses) / len(self._losses):.3f}"
            for name in sorted(self._losses[-1], key=lambda name: name != "loss")
        )
        epoch = min(self._iteration // self.iterations_per_epoch + 1, self.total // self.iterations_per_epoch)
        left = timedelta(seconds=round(seconds * (self.total - self._iteration)))
        memory = f"{memory_gb(device):.1f} GB"
        return f"epoch {epoch} | {losses} | lr {lr:.2g} | {seconds:.2f} s/it | left {left} | {memory}"


def memory_gb(device: torch.device) -> float:
    """The largest memory used so far, in GB: the device's, or on a CPU this process's; 0 on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if resource is None:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
