"""Where the time of one image goes, and how far each part is from what the processor can do.

    python benchmarks/inference_parts.py mask_rcnn_r50_gc4 --precision fp32 bf16 --threads 2

A part's floor is the arithmetic of its layers at the rate of this processor's matrix product. Parts without
layers have none: sorting, NMS and RoIAlign move memory. Seconds of the wall clock, so leave the machine idle.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from gcnet.device import keep_freed_memory
from gcnet.lab.subjects import busy_detector, random_batch
from gcnet.models.complexity import count_complexity
from gcnet.models.detector import Detector
from gcnet.ops.masks import paste_masks

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Clock:
    """Seconds of each part, without those of the parts that it calls."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._inner: list[float] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, each call of which is added to the part's seconds of this image."""

        def call(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            result = function(*args, **options)
            took = time.perf_counter() - began
            inner = self._inner.pop()
            with suppress(IndexError):  # nobody called this part
                self._inner[-1] += took
            self.seconds[part][-1] += took - inner
            return result

        return call

    def attach(self, part: str, owner: Any, method: str = "forward") -> None:
        """Times a method of an object, which is changed."""
        setattr(owner, method, self.timed(part, getattr(owner, method)))
        self.seconds[part] = []


def clocked(detector: Detector) -> Clock:
    """A clock of the parts of an optimised detector."""
    clock, heads = Clock(), detector.roi_heads
    clock.attach("normalise", detector, "normalise")
    clock.attach("backbone", detector.backbone)
    clock.attach("neck", detector.neck)
    clock.attach("rpn", detector.rpn, "run")
    clock.attach("proposals", detector.rpn, "predict")
    clock.attach("RoIAlign", heads, "pool")
    for head in heads.box_stages:
        clock.attach("box head", head)
    clock.attach("boxes, NMS", heads, "find_boxes")
    for head in heads.mask_stages:
        clock.attach("mask head", head)
    clock.attach("all else", heads, "predict")
    return clock


def measure(options: argparse.Namespace, precision: str) -> dict[str, list[float]]:
    """Seconds of each part, for each repetition."""
    detector = busy_detector(options.model).optimize(precision=precision)
    height, width = options.size
    batch = random_batch(1, (height, width))
    clock = clocked(detector)
    paste = clock.timed("masks drawn", paste_masks)
    for part in ("masks drawn", "all else"):
        clock.seconds[part] = []

    def image() -> None:
        (found,) = detector.predict(batch)
        paste(found.mask_probs, found.boxes, (height, width))

    whole = clock.timed("all else", image)
    for _ in range(options.repeats + 1):
        for values in clock.seconds.values():
            values.append(0.0)
        whole()
    return {part: values[1:] for part, values in clock.seconds.items()}  # the first is to warm up


def product_rate(precision: str, side: int = 2048) -> float:
    """Operations a second of a matrix product, the best of several."""
    a, b = (torch.randn(side, side).to(DTYPES[precision]) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def main() -> None:
    """Measures, and prints a table for each precision."""
    options = parse()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    flops = count_complexity(busy_detector(options.model).spec, options.size).flops
    for precision in options.precision:
        rate = product_rate(precision)
        seconds = {part: statistics.median(values) for part, values in measure(options, precision).items()}
        print(
            f"{options.model}, {precision}, {options.threads} threads: {rate / 1e9:.0f} GFLOP/s in a product"
        )
        for part, took in seconds.items():
            floor = flops.get(part, 0) / rate
            ratio = f"{floor:8.3f} {took / floor:6.2f}" if floor else ""
            print(f"{part:14} {took:8.3f} s {ratio}")
        whole, floor = sum(seconds.values()), sum(flops.values()) / rate
        print(f"{'sum':14} {whole:8.3f} s {floor:8.3f} {whole / floor:6.2f}\n")


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="mask_rcnn_r50_gc4", help="a row (mask_rcnn_r50_gc4)")
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=["fp32"], help="(fp32)")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1216), help="height, width (800 1216)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(all cores)")
    parser.add_argument("--repeats", type=int, default=5, help="(5)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
