"""Several devices: here two processes on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_fakes import fake_recipe
from safetensors.torch import load_file

from gcnet.engine.checkpoint import read_checkpoint
from gcnet.engine.fit import Devices, choose_devices
from gcnet.engine.helpers import Helpers
from gcnet.engine.runfolder import read_metrics
from gcnet.errors import GCNetError

SCRIPT = """
import os, signal, sys
from pathlib import Path
from engine_fakes import FakeDetector, run_fake
from gcnet.errors import GCNetError
what = sys.argv[2] if len(sys.argv) > 2 else ""
detector = FakeDetector(nan_at=int(what) if what.isdecimal() else None)
if what == "die" and os.environ.get("LOCAL_RANK") == "1":
    detector.losses = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
try:
    run_fake(Path(sys.argv[1]), detector=detector, devices=2, batch_size=4)
except GCNetError as error:
    sys.exit(f"refused: {error}")
"""


def run_script(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
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


def test_a_helper_that_dies_is_told_of() -> None:
    helpers = Helpers()
    assert helpers.death() is None
    helpers._processes = [
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in "12"
    ]
    assert helpers.death() is None
    helpers._processes[1].send_signal(signal.SIGKILL)
    assert "device 3 of 3 was killed (signal 9), as happens when memory runs out" in str(
        helpers.death(wait=20)
    )
    helpers.end()
    assert all(process.returncode == -signal.SIGKILL for process in helpers._processes)
    failing = Helpers()
    failing._processes = [subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])]
    assert "device 2 of 2 failed (exit code 3)" in str(failing.death(wait=20))


@pytest.mark.slow
def test_a_helper_that_dies_ends_the_run(tmp_path: Path) -> None:
    done = run_script(tmp_path, str(tmp_path / "run"), "die")
    assert done.returncode in (1, 2)  # by the main thread, or by the one that watches
    assert "the process of device 2 of 2 was killed (signal 9)" in done.stderr, done.stderr
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
