"""`gcnet benchmark`: the speed of models on this machine, compared with each other and with torchvision's.

A shared or throttled machine changes its speed within minutes. So all models are timed in turn, in one
process, and compared by ratios of medians.
"""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from gcnet.console import make_table, progress_bar
from gcnet.device import keep_freed_memory
from gcnet.engine.schedule import make_optimizer
from gcnet.files import check_own, prepare_folder, write_json
from gcnet.lab import subjects
from gcnet.models.spec import Precision
from gcnet.recipe import Recipe

Run = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """What to measure: the options of `gcnet benchmark`. `size` is (height, width), multiples of 32."""

    models: Sequence[str]
    against: Literal["torchvision"] | None = None
    device: str = "cpu"
    precision: Sequence[Precision] = ("fp32",)
    size: tuple[int, int] = (800, 1216)
    batch: int = 1
    repeats: int = 7
    train: bool = False
    plain: bool = False
    compile: bool = False
    keep_memory: bool = False


def run_benchmark(options: Options, out: Path) -> dict[str, Any]:
    """Measures, prints a table, and writes `benchmark.json` into `out`."""
    check_own(prepare_folder(out), "benchmark.json", ("machine", "freed memory kept"))
    if options.keep_memory:
        keep_freed_memory()
    title, made = ("training step", training_steps) if options.train else ("inference", inferences)
    runs, notes = made(options)
    for name, note in notes.items():
        if (peak := peak_bytes(runs[name], options.device)) is not None:
            note["peak MB"] = peak // 2**20
    machine = describe_machine(options.device)
    settings = {name: getattr(options, name) for name in ("size", "batch", "repeats")}
    records = _measure(title, runs, notes, options)
    report = {"machine": machine, **settings, "freed memory kept": options.keep_memory, title: records}
    write_json(out / "benchmark.json", report)
    console = Console()
    console.print(_table(title, records))
    console.print(", ".join(f"{name}: {value}" for name, value in machine.items()))
    console.print(f"wrote {out / 'benchmark.json'}")
    return report


# What is timed ----------------------------------------------------------------------------------------

Notes = dict[str, dict[str, Any]]  # beside the times of each run


def inferences(options: Options) -> tuple[dict[str, Run], Notes]:
    """From uint8 pixels to full-size masks: each model in each precision, after torchvision's."""
    batch = subjects.random_batch(options.batch, options.size).to(options.device)
    runs: dict[str, Run] = {}
    if options.against:
        twin = subjects.twin_of(subjects.busy_detector("mask_rcnn_r50")).to(options.device)
        runs[options.against] = subjects.twin_inference(twin, batch)
    for model, precision in product(options.models, options.precision):
        detector = subjects.busy_detector(model).to(options.device)
        if not options.plain:
            detector = detector.optimize(precision=precision, compiled=options.compile)
        name = model if len(options.precision) == 1 else f"{model} {precision}"
        runs[name] = subjects.inference(detector, batch)
    return runs, {name: {"detections": sum(map(len, run()))} for name, run in runs.items()}


def training_steps(options: Options) -> tuple[dict[str, Run], Notes]:
    """Forward, backward and optimizer: each model, after torchvision's."""
    batch = subjects.random_batch(options.batch, options.size).to(options.device)
    targets = [t.to(options.device) for t in subjects.random_targets(options.batch, options.size, 80)]
    losses: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {}
    if options.against:
        twin = subjects.twin_of(subjects.busy_detector("mask_rcnn_r50")).to(options.device)
        losses[options.against] = twin, subjects.twin_loss(twin, batch, targets)
    for model in options.models:
        detector = subjects.busy_detector(model).to(options.device)
        losses[model] = detector, subjects.total_loss(detector, batch, targets)
    notes = {name: {"saved MB": subjects.saved_bytes(total) // 2**20} for name, (_, total) in losses.items()}
    runs = {name: _training_step(model, total) for name, (model, total) in losses.items()}
    for run in runs.values():
        run()  # the optimizer makes its state
    return runs, notes


def _training_step(model: nn.Module, losses: Callable[[], Tensor]) -> Run:
    optimizer = make_optimizer(model, Recipe(lr=1e-5, lr_batch_size=0))

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses().backward()
        optimizer.step()

    return run


# How it is measured -----------------------------------------------------------------------------------


def time_in_turn(
    runs: Mapping[str, Run],
    *,
    repeats: int,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Times each run once, then each once more, and so on: seconds in the order they were taken.

    `warmup` rounds are not counted. `progress` is called after each run.
    """
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-warmup, repeats):
        for name, run in runs.items():
            wait()
            began = time.perf_counter()
            run()
            wait()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - began)
            progress()
    return seconds


def spread(seconds: Sequence[float]) -> float:
    """Half the distance between the quartiles, as a share of the median."""
    if len(seconds) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return (high - low) / 2 / middle


def peak_bytes(run: Run, device: torch.device | str) -> int | None:
    """The most that a run holds above what was held before it, in bytes; None where that cannot be told.

    On a GPU what PyTorch allocates there, on a CPU (Linux alone) what the process has in memory. The second
    call of a run tells more than the first, which also sets up caches.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        with suppress(AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory would hide what the run takes
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _memory("VmRSS")
        run()
        return max(_memory("VmHWM") - before, 0)
    except OSError:
        return None


def _memory(field: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) * 1024


def describe_machine(device: torch.device | str) -> dict[str, str | int]:
    """What the figures were taken on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    found: dict[str, str | int] = {
        "cpu": names[0].strip() if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "torchvision": metadata.version("torchvision"),
    }
    if hasattr(os, "getloadavg"):  # not on Windows
        found["load before"] = f"{os.getloadavg()[0]:.1f}"
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _measure(title: str, runs: Mapping[str, Run], notes: Notes, options: Options) -> Notes:
    """A record for each run; its ratio is to the first run."""
    warmup = 1 if options.device == "cpu" else 3
    with progress_bar(transient=True) as bar:
        task = bar.add_task(title, total=len(runs) * (options.repeats + warmup))
        seconds = time_in_turn(
            runs,
            repeats=options.repeats,
            warmup=warmup,
            device=options.device,
            progress=lambda: bar.advance(task),
        )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    return {
        name: {
            "median_s": median,
            "spread": spread(seconds[name]),
            "ratio": median / first,
            "images_per_s": options.batch / median,
            "seconds": seconds[name],
            **notes.get(name, {}),
        }
        for name, median in medians.items()
    }


def _table(title: str, records: Notes) -> Table:
    """Medians, and their ratios to the first row's."""
    first = next(iter(records.values()))
    shown = [name for name in ("detections", "saved MB", "peak MB") if name in first]
    rows = []
    for name, record in records.items():
        figures = [f"{record['median_s']:.3g}", f"{record['spread']:.0%}", f"{record['ratio']:.3f}"]
        rows.append([name, *figures, f"{record['images_per_s']:.3g}", *(str(record[note]) for note in shown)])
    return make_table(title, ["", "median s", "+-", "ratio", "images/s", *shown], rows)
