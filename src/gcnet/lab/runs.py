"""The runs of a study. Each is a process of its own, so that others continue if one fails.

Finished runs are never repeated; after an interruption the same command continues.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import torch

from gcnet.console import progress_bar
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.detection import why_nothing
from gcnet.data.divide import part_of
from gcnet.data.load import load_splits
from gcnet.engine.stop import ended_by_signals
from gcnet.engine.task import DETECTION
from gcnet.engine.train import train
from gcnet.errors import GCNetError
from gcnet.files import write_json
from gcnet.lab.study import Run, read_recipe
from gcnet.models.detector import Detector
from gcnet.models.spec import ModelSpec
from gcnet.weights.create import load_backbone


def load_data(data: Path) -> dict[str, DataSet[ImageRecord]]:
    """The splits of a data set. Raises GCNetError if train or valid is missing, or "valid" has no objects."""
    splits = load_splits(data)
    if missing := {"train", "valid"} - splits.keys():
        raise GCNetError(f"{data} has no {' and no '.join(sorted(missing))} split, which a study needs")
    records = splits["valid"].records
    if not any(record.objects(masks=False) for record in records):
        source = splits["valid"].source
        raise GCNetError(f"there is nothing to compare on: {source} has {why_nothing(records)}")
    return splits


@ended_by_signals()
def make_runs(
    runs: Sequence[Run], start: Callable[[Run], subprocess.Popen], *, jobs: int = 1
) -> list[tuple[Run, str]]:
    """Trains the runs without a result, `jobs` at a time. Returns those that failed, and why.

    `start` begins a run in a process of its own.

    Raises:
        KeyboardInterrupt, SystemExit: a signal; the processes have saved their state and ended.
    """
    missing = [run for run in runs if run.result is None]
    if len(missing) < len(runs):
        print(f"{len(runs) - len(missing)} of {len(runs)} runs are there already", flush=True)
    active: list[subprocess.Popen] = []
    stopped = False

    def make(run: Run) -> str:
        if stopped:
            return ""
        process = start(run)
        active.append(process)
        if stopped:  # while it was started
            process.terminate()
        return _why_failed(run, process.wait())

    failed: list[tuple[Run, str]] = []
    pool = ThreadPoolExecutor(jobs)
    try:
        made = {pool.submit(make, run): run for run in missing}
        with progress_bar(disable=not sys.stderr.isatty(), transient=True) as bar:
            task = bar.add_task("runs", total=len(runs), completed=len(runs) - len(missing))
            for count, future in enumerate(as_completed(made), len(runs) - len(missing) + 1):
                run, reason = made[future], future.result()
                failed += [(run, reason)] if reason else []
                print(f"{_outcome(run, reason)} ({count} of {len(runs)})", flush=True)
                bar.advance(task)
    except (KeyboardInterrupt, SystemExit) as end:
        stopped = True
        for process in active if isinstance(end, SystemExit) else ():  # Ctrl-C reaches them by itself
            process.terminate()
        print("stopping: each run ends its iteration and is kept (Ctrl-C again: at once)", flush=True)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def failed_runs(failed: Sequence[tuple[Run, str]], total: int) -> GCNetError:
    """The error for runs that failed."""
    run, reason = failed[0]
    count = f"{len(failed)} of {total} runs failed"
    return GCNetError(f"{count}, such as {run.label}: {reason}; the same command tries them again")


def _why_failed(run: Run, code: int) -> str:
    """Empty if the run succeeded, or the last line of its log, without "gcnet: error: "."""
    if code == 0 and run.result is not None:
        return ""
    if code < 0:  # the log ends with whatever was said last
        hint = ", as the system does when the memory is full" if code == -9 else ""
        return f"ended by signal {-code} ({signal.strsignal(-code)}){hint}"
    log = run.folder / "log.txt"
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    lines = [line for line in lines if line.strip()]
    return lines[-1].removeprefix("gcnet: error: ") if lines else f"exit code {code}"


def _outcome(run: Run, reason: str) -> str:
    if (result := run.result) is None:
        return f"{run.label}: failed: {reason}; see {run.folder / 'log.txt'}"
    scores = f"box AP {result['box_AP']:.3f}, AP50 {result['box_AP50']:.3f}"
    return f"{run.label}: {scores}; {result['seconds'] / 60:.1f} min"


def start_process(run: Run) -> subprocess.Popen:
    """Starts a run in a process of its own with OMP_NUM_THREADS threads, by default one.

    What it prints goes to the run's log.txt.
    """
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    with open(run.folder / "log.txt", "ab") as log:
        command = [sys.executable, "-m", __name__, str(run.folder)]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


# One run ----------------------------------------------------------------------------------------------


def train_run(folder: Path) -> None:
    """Trains or continues the run that `folder`/run.json describes; writes `result.json`.

    Raises:
        GCNetError: as `gcnet.engine.train.train`; the data set has no validation split.
        KeyboardInterrupt: the state is in `folder`/train/last.ckpt.
    """
    values = json.loads((folder / "run.json").read_text())
    spec, recipe = ModelSpec.from_dict(values["spec"]), read_recipe(values["recipe"])
    splits = load_data(Path(values["data"]))
    train_set = part_of(splits["train"], values.get("share", 1.0), recipe.seed, recipe.group_by)
    torch.manual_seed(recipe.seed)
    detector = Detector(replace(spec, class_names=splits["train"].class_names))
    if values["imagenet"]:
        load_backbone(detector.backbone, spec.backbone)
    out = folder / "train"
    done = train(
        detector, train_set, splits["valid"], recipe, out, resume="auto", data={"data": values["data"]}
    )
    assert done.metrics is not None  # there is a validation split
    scores = {name: value for name, value in DETECTION.scores(done.metrics).items() if value >= 0}
    write_json(folder / "result.json", {"seed": recipe.seed, "seconds": round(done.seconds, 1), **scores})


if __name__ == "__main__":
    try:
        train_run(Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
    except (GCNetError, OSError) as failure:
        sys.exit(f"gcnet: error: {' '.join(str(failure).split())}")
