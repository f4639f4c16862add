"""The benchmark script runs both ways of training a residual block."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "block_in_training.py"


def test_rows(tmp_path: Path) -> None:
    out = tmp_path / "figures" / "block.json"
    options = ["mask_rcnn_tiny_gc4", "--backbone", "--batch", "1", "--size", "64", "96", "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *options, "--layers", "light", "plain", "--out", out],
        capture_output=True,
        text=True,
        check=True,
    )
    light, plain = json.loads(out.read_text())["rows"]
    assert light["layers"] == "light"
    assert len(light["step_s"]) == len(plain["step_s"]) == 1
    assert done.stdout.count("mask_rcnn_tiny_gc4") == 2
