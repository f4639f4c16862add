"""What a context block costs in training: time of a step, and what is kept for the backward pass.

    python benchmarks/block_in_training.py mask_rcnn_r50 mask_rcnn_r50_gc4
    python benchmarks/block_in_training.py mask_rcnn_r50 mask_rcnn_r50_gc4 --layers light plain --backbone

`light` is how residual blocks train (`gcnet.models.light`), `plain` layer by layer. Steps are taken in turn;
quoted are medians and their ratio to the first line. Time is CPU time of one thread, since other jobs may
share the machine; on CUDA it is wall time between synchronisations.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.lab.subjects import busy_detector, random_batch, random_targets, saved_bytes, total_loss
from gcnet.models import light

CAN_RUN = {"light": light.can_run, "plain": lambda block, x: False}


def losses_of(row: str, options: argparse.Namespace) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A model in training, and a run from pixels to what is minimised."""
    detector = busy_detector(row).to(options.device)
    if options.channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    batch = random_batch(options.batch, tuple(options.size)).to(options.device)
    if options.backbone:
        backbone, pixels = detector.backbone.train(), detector.normalise(batch)
        if options.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return backbone, lambda: torch.stack([m.square().mean() for m in backbone(pixels)]).sum()
    targets = random_targets(options.batch, tuple(options.size), detector.spec.num_classes)
    return detector, total_loss(detector, batch, [t.to(options.device) for t in targets])


def clock(device: str) -> float:
    """Seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def step(model: nn.Module, losses: Callable[[], Tensor], options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a forward and a backward pass."""
    model.zero_grad(set_to_none=True)
    began = clock(options.device)
    with torch.autocast(options.device, torch.bfloat16, enabled=options.bf16):
        loss = losses()
    middle = clock(options.device)
    loss.backward()
    return middle - began, clock(options.device) - middle


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each model and way of running its blocks."""
    models = {row: losses_of(row, options) for row in options.rows}
    cases = list(itertools.product(options.rows, options.layers))
    rows, seconds = [], {case: [] for case in cases}
    for row, layers in cases:
        light.can_run = CAN_RUN[layers]
        rows.append({"model": row, "layers": layers, "saved_bytes": saved_bytes(models[row][1])})
    for repeat, case in itertools.product(range(-1, options.repeats), cases):
        light.can_run = CAN_RUN[case[1]]
        taken = step(*models[case[0]], options)
        if repeat >= 0:
            seconds[case].append(taken)
    for row, taken in zip(rows, seconds.values(), strict=True):
        forward, backward = zip(*taken, strict=True) if taken else ([], [])
        row |= {"forward_s": forward, "backward_s": backward, "step_s": [sum(t) for t in taken]}
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A line for each row, with ratios to the first."""
    for row in rows:
        line = f"{row['model']:28} {row['layers']:6} kept {row['saved_bytes'] / 2**20:7.0f} MB"
        line += f" ({row['saved_bytes'] / rows[0]['saved_bytes']:.3f})"
        for kind in ("forward_s", "backward_s", "step_s"):
            if row[kind]:
                median = statistics.median(row[kind])
                line += f"  {kind[:-2]} {median:.3f} s ({median / statistics.median(rows[0][kind]):.3f})"
        print(line)


def main() -> None:
    """Measures, prints, and writes OUT."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", default=["mask_rcnn_r50", "mask_rcnn_r50_gc4"], metavar="MODEL")
    parser.add_argument("--layers", nargs="+", choices=list(CAN_RUN), default=["light"])
    parser.add_argument("--backbone", action="store_true", help="the backbone alone")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1216], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="0: only what is kept")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="under autocast")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(options)
    show(rows)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
