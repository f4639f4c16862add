"""Several devices: here two processes on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_fakes import fake_recipe
from safetensors.torch import load_file

from gcnet.engine.checkpoint import read_checkpoint
from gcnet.engine.fit import Devices, choose_devices
from gcnet.engine.runfolder import read_metrics
from gcnet.errors import GCNetError

SCRIPT = """
import sys
from pathlib import Path
from engine_fakes import FakeDetector, run_fake
from gcnet.errors import GCNetError
detector = FakeDetector(nan_at=int(sys.argv[2]) if len(sys.argv) > 2 else None)
try:
    run_fake(Path(sys.argv[1]), detector=detector, devices=2, batch_size=4)
except GCNetError as error:
    sys.exit(f"refused: {error}")
"""


def run_script(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def test_devices_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_devices(fake_recipe(accelerator="auto", devices=0)) == Devices("cpu", 1)
    assert choose_devices(fake_recipe(devices=2)).world == 2
    with pytest.raises(GCNetError, match="0 found"):
        choose_devices(fake_recipe(accelerator="gpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_devices(fake_recipe(accelerator="auto", devices=0)) == Devices("gpu", 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert choose_devices(fake_recipe(accelerator="auto", devices=0, batch_size=4)) == Devices("gpu", 2, 2)


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    done = run_script(tmp_path, str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("predict with it") == 1  # one of the two speaks
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["iteration"] == 9
    assert len(read_metrics(tmp_path / "run" / "metrics.csv")) == 6
    assert all(torch.isfinite(v).all() for v in load_file(tmp_path / "run" / "last.safetensors").values())


@pytest.mark.slow
def test_nan_on_several_devices_stops_all(tmp_path: Path) -> None:
    done = run_script(tmp_path, str(tmp_path / "run"), "4")
    assert done.returncode == 1
    assert "refused: loss_cls became NaN or infinite at iteration 4" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_processes_find_the_gradients_of_one() -> None:
    """Of a whole model, also without objects; and synchronised norms with pictures of different sizes."""
    script = Path(__file__).with_name("check_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.stdout == "2 processes agree\n", done.stderr
