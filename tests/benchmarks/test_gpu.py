"""The command that brings a GPU's figures home runs to its end: there is no second try for a typo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
RIGHT = ["environment", "training_step", "sync_batch_norm", "precisions"]
FAST = ["from_pixels", "end_to_end", "where_time_waits", "other_ways", "compiled"]
TRAINS = ["training_speed", "context_shapes", "loader_speed"]
HEAVY = ["golden_detections", "beside_torchvision", "all_rows"]


def dry_run(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_dry_run_measures_draws_and_goes_on(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "--steps", *RIGHT, *FAST, *TRAINS)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert set(report) == {*RIGHT, *FAST, *TRAINS}
    assert report["training_step"]["losses, largest relative difference"] < 1e-4
    assert report["precisions"]["mask_rcnn_tiny_gc4 fp32"]["not found"] == 0
    assert report["from_pixels"]["fp32, 1"]["blocks cost"] > 0
    assert (tmp_path / "gpu.png").stat().st_size > 5_000

    again = dry_run(tmp_path, "--minutes", "0")  # nothing is measured twice, and what takes too long is left
    assert [line.split(":")[0] for line in again.stdout.splitlines()] == HEAVY


@pytest.mark.slow
def test_dry_run_of_what_needs_large_models(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "--steps", *HEAVY)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert set(report) == set(HEAVY)
    assert [record["problems"] for record in report["golden_detections"].values()] == [0]
