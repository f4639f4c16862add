"""The benchmark script runs, and its measure sees what it should: one matrix of all pairs, or none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "context_complexity.py"


def test_rows_slopes_and_picture(tmp_path: Path) -> None:
    out = tmp_path / "figures" / "cost"
    options = ["--channels", "16", "--sides", "8", "16", "32", "--out", str(out), "--memory-limit", "0.01"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *options, "--size", "4", "6"], capture_output=True, text=True, check=True
    )
    found = json.loads(out.with_suffix(".json").read_text())
    memory = {
        (row["block"], tuple(row["size"])): row["memory_bytes"]
        for row in found["rows"]
        if row["pass"] == "forward"
    }
    assert ("GC", (4, 6)) in memory
    assert memory["GC", (32, 32)] == pytest.approx(4 * 16 * 32**2, rel=0.2)  # the result, and a little
    assert memory["NL, naive", (32, 32)] >= 4 * 32**4
    assert memory["NL", (32, 32)] < 4 * 32**4 / 4
    # The training step of the naive form would need 12.6 MB: above the limit.
    steps = {(r["block"], tuple(r["size"])) for r in found["rows"] if r["pass"] == "training step"}
    assert ("NL, naive", (16, 16)) in steps
    assert ("NL, naive", (32, 32)) not in steps
    slopes = {
        s["block"]: s["slope"] for s in found["slopes"] if (s["pass"], s["of"]) == ("forward", "memory_bytes")
    }
    assert slopes["GC"] < 1.1 < slopes["NL, naive"]
    assert "| NL, naive | forward | 32 x 32 |" in done.stdout
    assert out.with_suffix(".png").stat().st_size > 10_000
