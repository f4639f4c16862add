"""Windows and macOS, as far as they can be seen from here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("other_system.py")
RESULTS = ("run/last.safetensors", "scores/metrics.json", "found/results.json", "yolo/data.yaml")
RESULTS += ("page.html", "seen/sheet.jpg", "speed/benchmark.json")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_commands_run_without_what_only_unix_has(tmp_path: Path, workers: int) -> None:
    command = [sys.executable, SCRIPT, tmp_path, str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert [name for name in RESULTS if not (tmp_path / name).is_file()] == []
