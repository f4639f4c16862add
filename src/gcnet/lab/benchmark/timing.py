"""Times that can be compared: taken in turn, in one process, quoted as ratios of medians.

A machine that is shared or throttles changes its speed within minutes. What is measured in turn sees the
same changes.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

Run = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of each repetition, in the order they were taken."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median

    def ratio(self, other: Times) -> float:
        """Ratio of medians; below 1 this is the faster."""
        return self.median / other.median


def time_in_turn(
    runs: Mapping[str, Run],
    *,
    repeats: int,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Times]:
    """Times each run once, then each once more, and so on. `warmup` rounds are not counted."""
    device = torch.device(device)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-warmup, repeats):
        for name, run in runs.items():
            _synchronise(device)
            began = time.perf_counter()
            run()
            _synchronise(device)
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - began)
            progress()
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(
    dtype: torch.dtype, device: torch.device | str, *, size: int = 2048, repeats: int = 8
) -> float:
    """The best rate of a square matrix product [FLOP/s]: what no dense layer can beat by much."""
    a = torch.randn(size, size, device=device).to(dtype)
    times = time_in_turn({"mm": lambda: a @ a}, repeats=repeats, warmup=2, device=device)["mm"]
    return 2 * size**3 / min(times.seconds)


def copy_rate(device: torch.device | str, *, megabytes: int = 256, repeats: int = 8) -> float:
    """The best rate of reading and writing memory [bytes/s, both counted]."""
    source = torch.zeros(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    times = time_in_turn({"copy": lambda: target.copy_(source)}, repeats=repeats, warmup=2, device=device)[
        "copy"
    ]
    return 2 * megabytes * 2**20 / min(times.seconds)


def describe_machine(device: torch.device | str) -> dict[str, str | int]:
    """What the figures were taken on."""
    device = torch.device(device)
    found: dict[str, str | int] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    found |= {name: metadata.version(name) for name in ("torch", "torchvision")}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    if hasattr(os, "getloadavg"):
        found["load before"] = f"{os.getloadavg()[0]:.1f}"
    return found


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
