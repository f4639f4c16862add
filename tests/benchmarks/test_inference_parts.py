"""The benchmark script times every part of an image once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "inference_parts.py"


def test_parts_make_up_the_sum() -> None:
    options = ["mask_rcnn_tiny_gc4", "--size", "64", "96", "--repeats", "1", "--threads", "1"]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, check=True)
    title, *parts, whole = done.stdout.strip().splitlines()
    assert title.startswith("mask_rcnn_tiny_gc4, fp32, 1 threads: ")
    seconds = {line[:14].strip(): line[14:].split() for line in parts}
    assert {"backbone", "neck", "rpn", "RoIAlign", "box head", "mask head", "masks drawn"} <= set(seconds)
    total = sum(float(numbers[0]) for numbers in seconds.values())
    assert float(whole[14:].split()[0]) == pytest.approx(total, abs=0.01)
    assert [part for part, numbers in seconds.items() if len(numbers) == 4] == [
        "backbone",
        "neck",
        "rpn",
        "box head",
        "mask head",
    ]  # only layers have a floor
