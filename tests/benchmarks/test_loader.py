"""The benchmark script of the loader runs, and says what it found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "loader.py"


def test_rates_of_workers() -> None:
    options = ["--pictures", "4", "--images", "4", "--workers", "1"]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, check=True)
    cost, rate = done.stdout.splitlines()
    assert "ms of CPU" in cost
    assert rate.startswith("1 workers: ")
    assert "if that takes less than" in rate
