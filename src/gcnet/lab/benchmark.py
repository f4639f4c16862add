"""`gcnet benchmark`: how fast models are on this machine, beside each other and beside torchvision's.

A machine that is shared or throttles changes its speed within minutes. So everything is timed in turn, in one
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
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from gcnet.console import progress_bar
from gcnet.device import keep_freed_memory
from gcnet.engine.schedule import make_optimizer
from gcnet.files import prepare_folder, write_json
from gcnet.lab.subjects import (
    busy_detector,
    inference,
    random_batch,
    random_targets,
    saved_bytes,
    total_loss,
    twin_inference,
    twin_loss,
    twin_of,
)
from gcnet.models.detector import Detector
from gcnet.models.spec import Precision
from gcnet.recipe import Recipe
from gcnet.types import Detections

Run = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """What to measure. `size` is (height, width), multiples of 32."""

    rows: Sequence[str]
    torchvision: bool = False
    device: str = "cpu"
    precisions: Sequence[Precision] = ("fp32",)
    size: tuple[int, int] = (800, 1216)
    batch: int = 1
    repeats: int = 7
    train: bool = False
    parts: bool = False
    optimized: bool = True
    compiled: bool = False
    keep_memory: bool = False


def run_benchmark(options: Options, out: Path) -> dict[str, Any]:
    """Measures, prints tables, and writes `benchmark.json` into `out`."""
    prepare_folder(out)
    if options.keep_memory:
        keep_freed_memory()
    console = Console()
    report: dict[str, Any] = {
        "machine": describe_machine(options.device),
        "size": list(options.size),
        "batch": options.batch,
        "repeats": options.repeats,
        "freed memory kept": options.keep_memory,
    }
    made = {"training step": training_steps} if options.train else {"inference": inferences}
    if options.parts:
        made["parts"] = parts_of_inference
    for title, make in made.items():
        runs, notes = make(options)
        for name in notes:
            if (peak := peak_bytes(runs[name], options.device)) is not None:
                notes[name]["peak MB"] = peak // 2**20
        report[title] = _measure(title, runs, notes, options)
        console.print(_table(title, report[title]))
        write_json(out / "benchmark.json", report)
    console.print(", ".join(f"{name}: {value}" for name, value in report["machine"].items()))
    console.print(f"wrote {out / 'benchmark.json'}")
    return report


# What is timed ----------------------------------------------------------------------------------------

Notes = dict[str, dict[str, Any]]  # beside the times of each run


def inferences(options: Options) -> tuple[dict[str, Run], Notes]:
    """From uint8 pixels to full-size masks: each row in each precision, after torchvision's."""
    batch = random_batch(options.batch, options.size).to(options.device)
    runs: dict[str, Run] = {}
    if options.torchvision:
        twin = twin_of(busy_detector("mask_rcnn_r50")).to(options.device)
        runs["torchvision"] = twin_inference(twin, batch)
    for row in options.rows:
        for precision in options.precisions:
            name = row if len(options.precisions) == 1 else f"{row} {precision}"
            runs[name] = inference(_ready(row, precision, options), batch)
    counts = {name: sum(map(len, run())) for name, run in runs.items()}
    return runs, {name: {"detections": count} for name, count in counts.items()}


def training_steps(options: Options) -> tuple[dict[str, Run], Notes]:
    """Forward, backward and optimiser: each row, after torchvision's."""
    batch = random_batch(options.batch, options.size).to(options.device)
    targets = [t.to(options.device) for t in random_targets(options.batch, options.size, 80)]
    losses: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {}
    if options.torchvision:
        twin = twin_of(busy_detector("mask_rcnn_r50")).to(options.device)
        losses["torchvision"] = twin, twin_loss(twin, batch, targets)
    for row in options.rows:
        detector = busy_detector(row).to(options.device)
        losses[row] = detector, total_loss(detector, batch, targets)
    notes = {name: {"saved MB": saved_bytes(total) // 2**20} for name, (_, total) in losses.items()}
    runs = {name: _training_step(model, total) for name, (model, total) in losses.items()}
    for run in runs.values():
        run()  # the optimiser makes its state
    return runs, notes


@torch.no_grad()
def parts_of_inference(options: Options) -> tuple[dict[str, Run], Notes]:
    """The parts of the first row's inference, each on what the part before it gives."""
    detector = _ready(options.rows[0], options.precisions[0], options)
    batch = random_batch(options.batch, options.size).to(options.device)
    pixels = detector.normalise(batch)
    maps = detector.backbone(pixels)
    levels = detector.neck(maps)
    proposals = detector.rpn.predict(levels, batch, static=detector.static)
    found = detector.predict(batch)
    parts: dict[str, Run] = {
        "normalise": lambda: detector.normalise(batch),
        "backbone": lambda: detector.backbone(pixels),
        "neck": lambda: detector.neck(maps),
        "RPN": lambda: detector.rpn.predict(levels, batch, static=detector.static),
        "heads": lambda: detector.roi_heads.predict(levels, proposals, batch, 0.05, static=detector.static),
        "mask pasting": lambda: [_pasted(detections) for detections in found],
    }
    return {name: torch.no_grad()(run) for name, run in parts.items()}, {}


def _ready(row: str, precision: Precision, options: Options) -> Detector:
    detector = busy_detector(row).to(options.device)
    if not options.optimized:
        return detector
    return detector.optimize(precision=precision, compiled=options.compiled)


def _pasted(detections: Detections) -> Tensor:
    """Full-size masks, drawn again: those of the same `Detections` are kept."""
    return detections.to("cpu").masks


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
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _measure(title: str, runs: Mapping[str, Run], notes: Notes, options: Options) -> Notes:
    """A record for each run; its ratio is to the first run, its share of the sum of all."""
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
    first, whole = next(iter(medians.values())), sum(medians.values())
    return {
        name: {
            "median_s": median,
            "spread": spread(seconds[name]),
            "ratio": median / first,
            "share": median / whole,
            "images_per_s": options.batch / median,
            "seconds": seconds[name],
            **notes.get(name, {}),
        }
        for name, median in medians.items()
    }


def _table(title: str, records: Notes) -> Table:
    """Medians beside the first row; for parts, beside the sum."""
    compared = "share" if title == "parts" else "ratio"
    first = next(iter(records.values()))
    shown = [name for name in ("detections", "saved MB", "peak MB") if name in first]
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for heading in ("median s", "+-", compared, "images/s", *shown):
        table.add_column(heading, justify="right")
    for name, record in records.items():
        figures = [f"{record['median_s']:.3g}", f"{record['spread']:.0%}", f"{record[compared]:.3f}"]
        figures += [f"{record['images_per_s']:.3g}", *(str(record[note]) for note in shown)]
        table.add_row(name, *figures)
    return table
