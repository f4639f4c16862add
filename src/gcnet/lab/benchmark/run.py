"""`gcnet benchmark`: what is compared, in which order, and the table and JSON that come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gcnet.files import prepare_folder, write_json
from gcnet.lab.benchmark import subjects, torchvision_peer
from gcnet.lab.benchmark.memory import peak_bytes
from gcnet.lab.benchmark.timing import Run, Times, copy_rate, describe_machine, matmul_rate, time_in_turn
from gcnet.memory import keep_freed_memory
from gcnet.models.complexity import count_complexity
from gcnet.models.detector import Detector
from gcnet.models.spec import Precision
from gcnet.recipe import Recipe
from gcnet.weights.catalog import find_detector

TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Options:
    """What to measure. `size` is (height, width), multiples of 32; without `against`, rows alone."""

    rows: Sequence[str]
    against: str = ""
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
    """Measures, prints a table, and writes `benchmark.json` into `out`."""
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
    for key, make, wanted in (
        ("inference", _inference_runs, not options.train),
        ("training step", _training_runs, options.train),
        ("parts", _part_runs, options.parts),
    ):
        if wanted:
            runs, notes = make(options)
            times = _time(key, runs, options)
            report[key] = {name: _record(times, name, notes, options.batch) for name in times}
            console.print(_table(key, times, notes, options.batch))
            write_json(out / "benchmark.json", report)
    if not options.train:
        report["floor"] = _floor(options)
        console.print(_floor_line(report["floor"]))
    write_json(out / "benchmark.json", report)
    console.print(", ".join(f"{name}: {value}" for name, value in report["machine"].items()))
    console.print(f"wrote {out / 'benchmark.json'}")
    return report


Notes = dict[str, dict[str, Any]]  # beside the times of each run


def _inference_runs(options: Options) -> tuple[dict[str, Run], Notes]:
    batch = subjects.random_batch(options.batch, options.size).to(options.device)
    runs: dict[str, Run] = {}
    notes: Notes = {}
    if options.against == TORCHVISION:
        twin = torchvision_peer.torchvision_twin(subjects.busy_detector("mask_rcnn_r50")).to(options.device)
        runs[TORCHVISION] = torchvision_peer.inference(twin, batch)
        found = runs[TORCHVISION]()
        notes[TORCHVISION] = {"detections": sum(len(f["scores"]) for f in found)}  # type: ignore[attr-defined]
    for row in options.rows:
        for precision in options.precisions:
            detector = _ready(row, precision, options)
            name = row if len(options.precisions) == 1 else f"{row} {precision}"
            run = subjects.inference(detector, batch)
            runs[name], notes[name] = run, {"detections": sum(len(found) for found in run())}
    return runs, _with_memory(runs, notes, options)


def _training_runs(options: Options) -> tuple[dict[str, Run], Notes]:
    batch = subjects.random_batch(options.batch, options.size).to(options.device)
    targets = [t.to(options.device) for t in subjects.random_targets(options.batch, options.size, 80)]
    recipe = Recipe(batch_size=options.batch, lr=1e-5)
    runs: dict[str, Run] = {}
    notes: Notes = {}
    if options.against == TORCHVISION:
        twin = torchvision_peer.torchvision_twin(subjects.busy_detector("mask_rcnn_r50")).to(options.device)
        losses = torchvision_peer.losses(twin, batch, targets)
        notes[TORCHVISION] = {"saved MB": subjects.saved_bytes(losses) // 2**20}
        runs[TORCHVISION] = subjects.training_step(twin, losses, recipe)
    for row in options.rows:
        detector = subjects.busy_detector(row).to(options.device)
        losses = subjects.total_loss(detector, batch, targets)
        notes[row] = {"saved MB": subjects.saved_bytes(losses) // 2**20}
        runs[row] = subjects.training_step(detector, losses, recipe)
    for run in runs.values():
        run()  # the optimiser makes its state
    return runs, _with_memory(runs, notes, options)


def _with_memory(runs: dict[str, Run], notes: Notes, options: Options) -> Notes:
    peaks = {name: peak_bytes(run, options.device) for name, run in runs.items()}
    known = {name: {"peak MB": peak // 2**20} for name, peak in peaks.items() if peak is not None}
    return {name: notes[name] | known.get(name, {}) for name in notes}


def _part_runs(options: Options) -> tuple[dict[str, Run], Notes]:
    batch = subjects.random_batch(options.batch, options.size).to(options.device)
    return subjects.parts_of_inference(_ready(options.rows[0], options.precisions[0], options), batch), {}


def _ready(row: str, precision: Precision, options: Options) -> Detector:
    detector = subjects.busy_detector(row).to(options.device)
    return (
        detector.optimize(precision=precision, compiled=options.compiled) if options.optimized else detector
    )


def _time(title: str, runs: dict[str, Run], options: Options) -> dict[str, Times]:
    warmup = 1 if options.device == "cpu" else 3
    with Progress(transient=True) as progress:
        task = progress.add_task(title, total=len(runs) * (options.repeats + warmup))
        return time_in_turn(
            runs,
            repeats=options.repeats,
            warmup=warmup,
            device=options.device,
            progress=lambda: progress.advance(task),
        )


def _floor(options: Options) -> dict[str, float]:
    """The time that the counted operations take at the rate of a large matrix product."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    rate = matmul_rate(dtypes[options.precisions[0]], options.device)
    flops = count_complexity(find_detector(options.rows[0]).spec, options.size).total_flops * options.batch
    return {
        "GFLOPs": flops / 1e9,
        "GFLOP/s": rate / 1e9,
        "copy GB/s": copy_rate(options.device) / 1e9,
        "seconds": flops / rate,
    }


def _floor_line(floor: dict[str, float]) -> str:
    return (
        f"floor: {floor['GFLOPs']:.0f} GFLOPs at {floor['GFLOP/s']:.0f} GFLOP/s of a matrix product = "
        f"{floor['seconds']:.3g} s (memory copies at {floor['copy GB/s']:.0f} GB/s)"
    )


def _record(times: dict[str, Times], name: str, notes: Notes, batch: int) -> dict[str, Any]:
    first = next(iter(times.values()))
    return {
        "median_s": times[name].median,
        "spread": times[name].spread,
        "ratio": times[name].ratio(first),
        "images_per_s": batch / times[name].median,
        "seconds": list(times[name].seconds),
        **notes.get(name, {}),
    }


def _table(title: str, times: dict[str, Times], notes: Notes, batch: int) -> Table:
    """Medians beside the first row, which is the yardstick; for parts, beside the sum."""
    table = Table(title=title)
    columns = list(next(iter(notes.values()), {}))
    for heading in ("", "median s", "+-", "share" if title == "parts" else "ratio", "images/s", *columns):
        table.add_column(heading, justify="left" if heading == "" else "right")
    first = next(iter(times.values())).median
    yardstick = sum(t.median for t in times.values()) if title == "parts" else first
    for name, values in times.items():
        extra = [str(notes.get(name, {}).get(column, "")) for column in columns]
        share, rate = values.median / yardstick, f"{batch / values.median:.3g}"
        table.add_row(name, f"{values.median:.3g}", f"{values.spread:.0%}", f"{share:.3f}", rate, *extra)
    return table
