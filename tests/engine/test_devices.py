"""Several devices: here two processes on the CPU."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from engine_fakes import fake_recipe
from safetensors.torch import load_file

from gcnet.engine import processes
from gcnet.engine.checkpoint import read_checkpoint
from gcnet.engine.loggers import read_metrics
from gcnet.engine.processes import Place, find_place
from gcnet.errors import GCNetError
from gcnet.launch import find_launch, first_host

SCRIPT = """
import os, signal, sys
from pathlib import Path
from engine_fakes import FakeDetector, run_fake, slow_clock
from gcnet.errors import GCNetError
what = sys.argv[2] if len(sys.argv) > 2 else ""
detector = FakeDetector(nan_at=int(what) if what.isdecimal() else None)
if what == "die" and os.environ.get("LOCAL_RANK") == "1":
    detector.losses = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
options = {"devices": 0 if what == "machines" else 2, "batch_size": 4}
if what == "timed":
    options |= {"time": "30s", "images": 6}
try:
    with slow_clock(tick=0.5 if os.environ.get("LOCAL_RANK") == "1" else 0.6):
        run_fake(Path(sys.argv[1]), detector=detector, **options)
except GCNetError as error:
    sys.exit(f"refused: {error}")
"""


def run_script(
    tmp_path: Path, *arguments: str, launcher: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *(launcher or []), str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"} | {
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SLURM = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODELIST": "gpu[07-08,11]"} | {
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
}


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_devices_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 0)
    assert find_place(fake_recipe(accelerator="auto", devices=0)) == Place(torch.device("cpu"))
    assert find_place(fake_recipe(devices=2)).world == 2
    with pytest.raises(GCNetError, match="0 found"):
        find_place(fake_recipe(accelerator="gpu"))
    with pytest.raises(GCNetError, match=r"batch_size 4 cannot be divided over 2 devices in 4 parts"):
        find_place(fake_recipe(devices=2, batch_size=4, accumulate=4))
    with_gpus(monkeypatch, 2)
    assert find_place(fake_recipe(accelerator="auto", devices=0)) == Place(torch.device("cuda", 0), 2)


@pytest.mark.parametrize("variables", [TORCHRUN, SLURM])
def test_a_launcher_says_which_process_this_is(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # restored in the end
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with_gpus(monkeypatch, 2)
    place = find_place(fake_recipe(accelerator="auto", devices=0, batch_size=4))
    assert place == Place(torch.device("cuda", 1), 4, 3, launched=True)
    assert os.environ["MASTER_ADDR"] == {"3": "node1"}.get(os.environ.get("RANK", ""), "gpu07")


def test_an_environment_that_torchrun_did_not_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(GCNetError, match=r"RANK=1 without WORLD_SIZE, LOCAL_RANK, .*: unset it"):
        find_place(fake_recipe())
    for name, value in (TORCHRUN | {"LOCAL_RANK": "one"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(GCNetError, match="LOCAL_RANK=one"):
        find_place(fake_recipe(devices=0, batch_size=4))
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(GCNetError, match="devices is 1, but 2 processes"):
        find_place(fake_recipe(devices=1, batch_size=4))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("3", "-1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(GCNetError, match=f"RANK={rank} of WORLD_SIZE=2"):
            find_place(fake_recipe(devices=0, batch_size=4))


def test_an_environment_that_slurm_did_not_make(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SLURM | {"SLURM_STEP_NUM_TASKS": "4(x2)"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(GCNetError, match=r"SLURM_STEP_NUM_TASKS=4\(x2\), which is no number"):
        find_place(fake_recipe())


def test_a_batch_script_of_slurm_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the variables of its job, but none of a step: there are no others to wait for."""
    for name, value in (SLURM | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    assert find_launch() is None
    with_gpus(monkeypatch, 2)
    with pytest.raises(GCNetError, match="4 GPUs asked for, 2 found"):
        find_place(fake_recipe(accelerator="gpu", devices=4))


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("gpu7", "gpu7"), ("a-[07,09-12],login", "a-07"), ("x[1-2]y,z", "x1y"), ("one,two", "one")],
)
def test_the_first_host_of_slurm(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["-m", "torch.distributed.run", "--nproc-per-node=2"]])
def test_two_processes_train_one_model(launcher: list[str], tmp_path: Path) -> None:
    done = run_script(tmp_path, str(tmp_path / "run"), launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("predict with it") == 1  # one of the two speaks
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["iteration"] == 9
    assert len(read_metrics(tmp_path / "run" / "metrics.csv")) == 6
    assert all(torch.isfinite(v).all() for v in load_file(tmp_path / "run" / "last.safetensors").values())


@pytest.mark.slow
def test_torchrun_on_two_machines(tmp_path: Path) -> None:
    """Started once on each, here twice on this one: they meet at a port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
    launchers = [[*meet, f"--master-port={port}", f"--node-rank={rank}"] for rank in (0, 1)]
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(
                lambda folder, launcher: run_script(
                    folder, str(tmp_path / "run"), "machines", launcher=launcher
                ),
                folders,
                launchers,
            )
        )
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    assert [one.stdout.count("predict with it") for one in done] == [1, 0]
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["iteration"] == 9


@pytest.mark.slow
def test_srun_needs_no_wrapper(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    common = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": str(os.getpid())}
    tasks = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "run")],
            env=common
            | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NODELIST": "localhost"}
            | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in range(2)
    ]
    assert [task.wait(timeout=240) for task in tasks] == [0, 0]
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["iteration"] == 9


@pytest.mark.slow
def test_all_processes_take_the_schedule_that_the_first_decides(tmp_path: Path) -> None:
    done = run_script(tmp_path, str(tmp_path / "run"), "timed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("s an iteration and ") == 1
    state = read_checkpoint(tmp_path / "run" / "last.ckpt")
    assert state["iteration"] == state["recipe"]["epochs"] * 3


@pytest.mark.slow
def test_kills_leave_no_trace() -> None:
    """Killed runs that are resumed have the weights and metrics of unbroken ones, and no leftovers."""
    script = Path(__file__).parents[1] / "check_kills.py"
    command = [sys.executable, script, "3", "0", "train"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ": 0 half files, 0 lost, 0 other results;" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_nan_on_several_devices_stops_all(tmp_path: Path) -> None:
    done = run_script(tmp_path, str(tmp_path / "run"), "4")
    assert done.returncode == 1
    assert "refused: loss_cls became NaN or infinite at iteration 4" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_that_dies_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen] = []
    monkeypatch.setattr(processes, "_started", started)
    assert processes.find_death(wait=20) is None
    started += [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in "12"]
    assert processes.find_death() is None
    started[1].send_signal(signal.SIGKILL)
    death = str(processes.find_death(wait=20))
    assert "device 3 of 3 was killed (signal 9), as happens when memory runs out" in death
    ended = list(started)
    processes.end_others()
    assert all(process.returncode == -signal.SIGKILL for process in ended)
    assert not started
    started.append(subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]))
    assert "device 2 of 2 failed (exit code 3)" in str(processes.find_death(wait=20))


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run(tmp_path: Path) -> None:
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
