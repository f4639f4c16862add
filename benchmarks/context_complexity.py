"""Time and memory of context blocks as the map grows: a table, JSON and a log-log plot with fitted slopes.

    python benchmarks/context_complexity.py --out runs/context-complexity

Measured are the forward pass without gradients and the training step (forward and backward), one thread on a
CPU. Time is CPU time of the process, the least of several runs, since other jobs may share the machine; on
CUDA it is wall time between synchronisations. Memory is the peak of what PyTorch allocates during the pass,
next to the input and the weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from gcnet.context import GlobalContext, NonLocal, SimplifiedNonLocal

SIDES = [16, 24, 32, 48, 64, 96, 128, 192, 256]
PASSES = ("forward", "training step")
SLOPE_POINTS = 4  # the largest maps: on small ones the calls themselves dominate
# Colours of the Okabe-Ito set, with a marker each: told apart also in print and by colour-blind readers.
STYLES = {
    "GC": ("#009E73", "o"),
    "SNL": ("#56B4E9", "v"),
    "NL, dot product": ("#E69F00", "s"),
    "NL": ("#0072B2", "D"),
    "NL, naive": ("#D55E00", "X"),
}


class NaiveNonLocal(NonLocal):
    """The non-local block as papers draw it: with the matrix of all pairs."""

    def forward(self, x: Tensor) -> Tensor:
        weights = self.attention(x, torch.arange(math.prod(x.shape[2:]), device=x.device)).flatten(2)
        context = weights @ self.pool.value(x.flatten(2).transpose(1, 2))
        return x + self.add(context.transpose(1, 2).reshape(len(x), -1, *x.shape[2:]))


BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "GC": GlobalContext,
    "SNL": SimplifiedNonLocal,
    "NL, dot product": partial(NonLocal, mode="dot_product"),
    "NL": NonLocal,
    "NL, naive": NaiveNonLocal,
}


def run_once(block: nn.Module, x: Tensor, step: bool) -> None:
    """One pass; nothing of it is kept."""
    with torch.set_grad_enabled(step):
        y = block(x)
        if step:
            torch.autograd.grad(y.sum(), [x, *block.parameters()])


def clock(device: torch.device) -> float:
    """Seconds: wall time on CUDA, CPU time of this process elsewhere."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def cost(run: Callable[[], None], device: torch.device) -> tuple[float, int]:
    """The seconds that `run` takes, the least of several runs, and the bytes that it holds at most.

    The first run is watched for memory; if it took more than a second, watching it cost next to nothing, and
    it is not repeated.
    """
    start = clock(device)
    peak = peak_bytes(run, device)
    watched = clock(device) - start
    if watched > 1.0:
        return watched, peak
    best, begun = math.inf, clock(device)
    for _ in range(20):
        start = clock(device)
        run()
        best = min(best, clock(device) - start)
        if start - begun > 2.0:
            break
    return best, peak


def peak_bytes(run: Callable[[], None], device: torch.device) -> int:
    """The most that PyTorch held at once of what it allocated during `run`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events: list[Any] = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def fits(name: str, positions: int, step: bool, options: argparse.Namespace) -> bool:
    """Whether a pass keeps to the limits of memory (naive form) and patience (training step of NL)."""
    if name == "NL, naive":  # scores and weights, and in training a gradient
        return 4 * positions**2 * (3 if step else 2) <= options.memory_limit * 1e9
    return name != "NL" or not step or positions <= options.largest_step**2


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each block, map and pass that keeps to the limits."""
    device, rows = torch.device(options.device), []
    sizes = [(side, side) for side in options.sides] + [tuple(size) for size in options.sizes]
    for name in options.blocks:
        block = BLOCKS[name](options.channels).to(device)
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.05)
        # The first use of an operator, and of the profiler, takes seconds.
        first = torch.randn(1, options.channels, 8, 8, device=device).requires_grad_()
        cost(partial(run_once, block, first, True), device)
        for size, kind in itertools.product(sizes, PASSES):
            positions, step = math.prod(size), kind == PASSES[1]
            if not fits(name, positions, step, options):
                continue
            x = torch.randn(1, options.channels, *size, device=device).requires_grad_()
            taken, peak = cost(partial(run_once, block, x, step), device)
            row = {"block": name, "size": list(size), "positions": positions, "pass": kind}
            rows.append(row | {"seconds": taken, "memory_bytes": peak})
            print(f"{name:16} {size[0]:4} x {size[1]:<4} {kind:14}", end="")
            print(f" {taken:10.4f} s {peak / 1e6:10.2f} MB", flush=True)
    return rows


def series(rows: list[dict[str, Any]], name: str, kind: str, of: str) -> tuple[list[int], list[float]]:
    """Positions and values of one curve, in rising order."""
    found = sorted((r["positions"], r[of]) for r in rows if r["block"] == name and r["pass"] == kind)
    return [p for p, _ in found], [v for _, v in found]


def slope(positions: list[int], values: list[float]) -> float:
    """The exponent of the power law through the largest maps, by least squares in logarithms."""
    x = torch.tensor(positions[-SLOPE_POINTS:]).double().log()
    y = torch.tensor(values[-SLOPE_POINTS:]).double().log()
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x @ x))


def fit(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A slope for each curve with enough points."""
    curves = [(n, k, of) for n in BLOCKS for k in PASSES for of in ("seconds", "memory_bytes")]
    return [
        {"block": name, "pass": kind, "of": of, "slope": slope(*series(rows, name, kind, of))}
        for name, kind, of in curves
        if len(series(rows, name, kind, of)[0]) >= 2
    ]


def table(rows: list[dict[str, Any]], slopes: list[dict[str, Any]]) -> str:
    """Markdown: maps from a quarter of the largest side on, and the slopes."""
    slope_of = {(s["block"], s["pass"], s["of"]): s["slope"] for s in slopes}
    lines = ["| block | pass | map | time, s | memory, MB | slope of time | slope of memory |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    largest = max(row["positions"] for row in rows)
    for row in sorted(
        rows, key=lambda r: (list(BLOCKS).index(r["block"]), PASSES.index(r["pass"]), r["positions"])
    ):
        if row["positions"] < largest / 16:
            continue
        key = (row["block"], row["pass"])
        last = row["positions"] == max(series(rows, *key, "seconds")[0])
        fitted = [f"{slope_of[(*key, of)]:.2f}" if last else "" for of in ("seconds", "memory_bytes")]
        cells = [
            *key,
            "{} x {}".format(*row["size"]),
            f"{row['seconds']:.3g}",
            f"{row['memory_bytes'] / 1e6:.3g}",
        ]
        lines.append("| " + " | ".join(cells + fitted) + " |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], slopes: list[dict[str, Any]], channels: int, file: Path) -> None:
    """Time and memory against positions, one row of panels for each pass."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 8), sharex=True, layout="constrained")
    slope_of = {(s["block"], s["pass"], s["of"]): s["slope"] for s in slopes}
    for panels, kind in zip(axes, PASSES, strict=True):
        for axis, of, unit, scale in zip(
            panels, ("seconds", "memory_bytes"), ("time, s", "peak memory, MB"), (1, 1e-6), strict=True
        ):
            for name, (colour, marker) in STYLES.items():
                positions, values = series(rows, name, kind, of)
                label = f"{name}: slope {slope_of.get((name, kind, of), math.nan):.2f}"
                values = [value * scale for value in values]
                axis.loglog(positions, values, color=colour, marker=marker, markersize=5, label=label)
            sides = [16, 32, 64, 128, 256]
            axis.set_xticks([side**2 for side in sides], [f"{side}²" for side in sides])
            axis.minorticks_off()
            axis.set_ylabel(unit)
            axis.set_title(kind)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8, loc="upper left")
    for axis in axes[1]:
        axis.set_xlabel("positions of the map")
    figure.suptitle(f"Context blocks on a map of {channels} channels")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def keep_pages(device: str) -> None:
    """Starts this script again with a C library that keeps freed memory.

    It would hand every tensor above 32 MB back to the system, and fetching its pages anew takes several times
    as long as a pass over them: a jump in the curves between 128 x 128 and 192 x 192.
    """
    if device == "cpu" and sys.platform == "linux" and "MALLOC_MMAP_MAX_" not in os.environ:
        kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**36)}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | kept)


def main() -> None:
    """Measures, and writes OUT.json and OUT.png."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/context-complexity"), help="without suffix")
    parser.add_argument("--channels", type=int, default=256, help="256: of c2 in a ResNet-50")
    parser.add_argument("--blocks", nargs="+", choices=list(BLOCKS), default=list(BLOCKS))
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of square maps")
    parser.add_argument(
        "--size",
        dest="sizes",
        type=int,
        nargs=2,
        action="append",
        default=[],
        help="a further map: height width",
    )
    parser.add_argument("--memory-limit", type=float, default=6.0, help="GB for the naive form")
    parser.add_argument(
        "--largest-step", type=int, default=128, help="side of the largest map to train NL on"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--note", default="", help="kept in the JSON: what else ran on the machine")
    options = parser.parse_args()
    keep_pages(options.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = measure(options)
    slopes = fit(rows)
    machine = (
        torch.cuda.get_device_name()
        if options.device == "cuda"
        else platform.processor() or platform.machine()
    )
    about = {
        "torch": torch.__version__,
        "machine": machine,
        "channels": options.channels,
        "note": options.note,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    written = json.dumps({"about": about, "slopes": slopes, "rows": rows}, indent=1)
    options.out.with_suffix(".json").write_text(written + "\n")
    plot(rows, slopes, options.channels, options.out.with_suffix(".png"))
    print(table(rows, slopes))
    print(f"wrote {options.out}.json and {options.out}.png")


if __name__ == "__main__":
    main()
