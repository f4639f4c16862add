"""How much memory a run takes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def peak_bytes(run: Callable[[], object], device: torch.device | str) -> int | None:
    """The most that a run holds above what was held before it, in bytes; None where that cannot be told.

    On a GPU what PyTorch allocates there, on a CPU (Linux alone) what the process has in memory. The second
    call of a run tells more than the first, which also sets up caches.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        # Freed memory that the process still has would hide what the run takes.
        with suppress(AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        (_PROCESS / "clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
        run()
        return max(_status("VmHWM") - before, 0)
    except OSError:
        return None


def _status(field: str) -> int:
    line = next(line for line in (_PROCESS / "status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
