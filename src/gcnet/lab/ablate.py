"""A study from its data to its report: every run a process, so that a failed or killed run costs itself only.

A finished run is never made again; the same command goes on where it was stopped.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from gcnet.console import progress_bar
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.load import load_splits
from gcnet.data.loader import iterations_per_epoch
from gcnet.engine.loggers import read_metrics
from gcnet.engine.task import DETECTION
from gcnet.engine.train import train
from gcnet.errors import GCNetError
from gcnet.files import write_json
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.lab.report import Cell, write_report
from gcnet.lab.study import Run, Study, find_grid, read_recipe
from gcnet.models.complexity import count_complexity
from gcnet.models.detector import Detector
from gcnet.models.spec import ModelSpec
from gcnet.ops.images import fit_size, padded_size
from gcnet.weights.create import load_backbone

TRAIN_IMAGES, VALID_IMAGES = 800, 100  # of context shapes
POLL = 0.5  # seconds between looks at the processes
# What training imports only when it needs it: 4 s of CPU time for every run, or once for all.
IMPORTED_LATE = ("torch._dynamo", "torch.utils.tensorboard", "torchvision")


def ablate(study: Study, *, start: Callable[[Run], BaseProcess] | None = None) -> None:
    """Makes what runs of the study are missing, then its table and plot in `study.out`.

    Raises:
        GCNetError: the folder belongs to another study, the data cannot be used, a cell cannot be built, or
            runs failed (the report on the others is written).
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    if study.report_only:
        study = study.as_recorded()
    specs = study.specs()
    for cell, spec in specs.items():
        _check_buildable(cell, spec)
    failed: list[tuple[Run, str]] = []
    if not study.report_only:
        study.claim_folder()
        failed = _make_missing(study, start or start_process)
    if len(failed) == study.seeds * len(specs):
        raise _failure(study, failed)
    size = shown_size(load_data(study.data_folder)["valid"], study)
    cells = [_collect(study, cell, spec, size) for cell, spec in specs.items()]
    if not any(cell.scores for cell in cells):
        raise GCNetError(f"{study.out} has no finished run of this ablation to report on")
    title = f"{study.grid}: {find_grid(study.grid).question} ({study.model})"
    write_report(study.out, study.grid, cells, title=title, study=study.shared())
    if failed:
        raise _failure(study, failed)


def _check_buildable(cell: str, spec: ModelSpec) -> None:
    try:
        count_complexity(spec, (64, 64))
    except ValueError as error:
        raise GCNetError(f"cell {cell} cannot be built from {spec.name}: {error}") from None


def _make_missing(study: Study, start: Callable[[Run], BaseProcess]) -> list[tuple[Run, str]]:
    if study.data is None:
        write_context_shapes(study.data_folder, train=TRAIN_IMAGES, valid=VALID_IMAGES)
    train_set = load_data(study.data_folder)["train"]
    runs = study.runs()
    for run in runs:
        study.write_run(run)
    iterations = study.recipe.epochs * iterations_per_epoch(train_set, study.recipe.batch_size)
    cells = len(runs) // study.seeds
    amount = f"{cells} cells x {study.seeds} seeds, {iterations} iterations each"
    print(f"{study.grid}: {amount}, in {study.out}", flush=True)
    try:
        return make_runs(runs, start, jobs=study.jobs)
    except KeyboardInterrupt:
        print("stopped; the same command goes on, with --report it shows what is there", flush=True)
        raise


def _failure(study: Study, failed: Sequence[tuple[Run, str]]) -> GCNetError:
    run, reason = failed[0]
    count = f"{len(failed)} of {len(study.runs())} runs failed"
    return GCNetError(f"{count}, such as {run.label}: {reason}; the same command tries them again")


def _collect(study: Study, cell: str, spec: ModelSpec, size: tuple[int, int]) -> Cell:
    """A cell with whatever runs have a result; FLOPs are counted for an image of `size`."""
    paths = study.cell_folder(spec).glob("seed-*/result.json")
    paths = sorted(paths, key=lambda path: int(path.parent.name.removeprefix("seed-")))
    complexity = count_complexity(spec, size)
    scores = tuple(json.loads(path.read_text()) for path in paths)
    return Cell(cell, complexity.parameters, complexity.total_flops, scores)


def shown_size(dataset: DataSet[ImageRecord], study: Study) -> tuple[int, int]:
    """(height, width) of the first image as the model sees it: resized and padded."""
    if not dataset.records:
        raise GCNetError(f"{dataset.source} lists no images, and there is nothing to compare on")
    first = dataset.records[0]
    limits = study.recipe.image_size or study.specs()["none"].image_size
    return padded_size(fit_size((first.height, first.width), limits))


def load_data(data: Path) -> dict[str, DataSet[ImageRecord]]:
    """The splits of a data set. Raises GCNetError if "train" or "valid" is not among them."""
    splits = load_splits(data)
    if missing := {"train", "valid"} - splits.keys():
        raise GCNetError(f"{data} has no {' and no '.join(sorted(missing))} split, which an ablation needs")
    return splits


# Processes --------------------------------------------------------------------------------------------


def make_runs(
    runs: Sequence[Run], start: Callable[[Run], BaseProcess], *, jobs: int = 1
) -> list[tuple[Run, str]]:
    """Makes the runs that have no result, in order, `jobs` at a time.

    `start` begins a run in a process of its own. Returns the runs that failed, and why.

    Raises:
        KeyboardInterrupt: Ctrl-C; the processes have saved their state and ended.
    """
    waiting = [run for run in runs if run.result is None]
    if len(waiting) < len(runs):
        print(f"{len(runs) - len(waiting)} of {len(runs)} runs are there already", flush=True)
    active: dict[Run, BaseProcess] = {}
    failed: list[tuple[Run, str]] = []
    try:
        with progress_bar(disable=not sys.stderr.isatty(), transient=True) as bar:
            task = bar.add_task("", total=len(runs))
            while left := len(waiting) + len(active):
                while waiting and len(active) < jobs:
                    run = waiting.pop(0)
                    active[run] = start(run)
                text = "; ".join(f"{run.label} {iterations_done(run.folder)}" for run in active)
                bar.update(task, completed=len(runs) - left, description=text)
                time.sleep(POLL)
                ended = [(run, code) for run, job in active.items() if (code := job.exitcode) is not None]
                for run, code in ended:
                    del active[run]
                    left -= 1
                    if reason := _why_failed(run, code):
                        failed.append((run, reason))
                    print(f"{_outcome(run, reason)} ({len(runs) - left} of {len(runs)})", flush=True)
    except BaseException:
        _stop(active.values())
        raise
    return failed


def _why_failed(run: Run, code: int) -> str:
    """Nothing, or the last line of a run's log without our own preamble to errors."""
    if code == 0 and run.result is not None:
        return ""
    lines = []
    with contextlib.suppress(OSError):
        lines = (run.folder / "log.txt").read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("gcnet: error: ") if lines else f"exit code {code}"


def _outcome(run: Run, reason: str) -> str:
    if (result := run.result) is None:
        return f"{run.label}: failed: {reason}; see {run.folder / 'log.txt'}"
    scores = f"box AP {result['box_AP']:.3f}, AP50 {result['box_AP50']:.3f}"
    return f"{run.label}: {scores}; {result['seconds'] / 60:.1f} min"


def _stop(jobs: Collection[BaseProcess]) -> None:
    """Lets the processes save their state and waits for them; a second Ctrl-C kills them."""
    try:
        if jobs:
            print("stopping: each run ends its iteration and is kept (Ctrl-C again: at once)", flush=True)
        for job in jobs:
            job.terminate()
        while any(job.exitcode is None for job in jobs):
            time.sleep(POLL)
    except KeyboardInterrupt:
        for job in jobs:
            job.kill()
        raise


def start_process(run: Run) -> BaseProcess:
    """Begins a run in a process of its own, on OMP_NUM_THREADS threads or one: equal numbers everywhere.

    Processes are forked from a server that has imported everything, which takes longer than some runs do.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *IMPORTED_LATE])
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    process = context.Process(target=_work, args=(run.folder, threads))
    process.start()
    return process


def _work(folder: Path, threads: int) -> None:
    """The whole life of a process that makes one run; it ends with the exit codes of the command line.

    What it prints goes to `folder`/log.txt. SIGTERM and the death of the parent process stop it in good
    order; the terminal's Ctrl-C does not reach it.
    """
    os.setsid()
    # Or the loader's own processes would be started like this one, and import everything anew.
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
    try:
        train_run(folder)
    except KeyboardInterrupt:
        sys.exit(130)
    except (GCNetError, OSError) as error:
        print(f"gcnet: error: {' '.join(str(error).split())}", flush=True)
        sys.exit(2)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


# One run ----------------------------------------------------------------------------------------------


def train_run(folder: Path) -> None:
    """Makes the run that `folder`/run.json describes, or goes on with it, and writes `result.json`.

    Raises:
        GCNetError: as `gcnet.engine.train.train`; the data set has no validation split.
        KeyboardInterrupt: the state is in `folder`/train/last.ckpt.
    """
    values = json.loads((folder / "run.json").read_text())
    spec, recipe = ModelSpec.from_dict(values["spec"]), read_recipe(values["recipe"])
    splits = load_data(Path(values["data"]))
    torch.manual_seed(recipe.seed)
    detector = Detector(replace(spec, class_names=splits["train"].class_names))
    if values["imagenet"]:
        load_backbone(detector.backbone, spec.backbone)
    out = folder / "train"
    done = train(
        detector, splits["train"], splits["valid"], recipe, out, resume="auto", data={"data": values["data"]}
    )
    assert done.metrics is not None  # there is a validation split
    scores = {name: max(value, 0.0) for name, value in DETECTION.scores(done.metrics).items()}
    write_json(folder / "result.json", {"seed": recipe.seed, "seconds": round(done.seconds, 1), **scores})


def iterations_done(folder: Path) -> int:
    """How far the run in `folder` is, as its log says; 0 before the first entry."""
    try:
        rows = read_metrics(folder / "train" / "metrics.csv")
    except (OSError, ValueError):  # in the midst of being written
        return 0
    return int(rows[-1]["iteration"]) if rows else 0
