"""One run of an ablation: trains a model and writes down what it scored."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from gcnet.data.coco import CocoDataset, load_splits
from gcnet.engine.runfolder import read_metrics
from gcnet.engine.task import DETECTION
from gcnet.engine.train import train
from gcnet.errors import GCNetError
from gcnet.files import write_json
from gcnet.lab.ablation.study import read_run
from gcnet.models.build import build_detector
from gcnet.weights.imagenet import load_imagenet


def load_data(data: Path) -> dict[str, CocoDataset]:
    """The splits of a data set. Raises GCNetError if "train" or "valid" is not among them."""
    splits = load_splits(data)
    if missing := {"train", "valid"} - splits.keys():
        raise GCNetError(f"{data} has no {' and no '.join(sorted(missing))} split, which an ablation needs")
    return splits


def train_run(folder: Path) -> None:
    """Makes the run that `folder`/run.json describes, or goes on with it, and writes `result.json`.

    Raises:
        GCNetError: as `gcnet.engine.train.train`; the data set has no validation split.
        KeyboardInterrupt: the state is in `folder`/train/last.ckpt.
    """
    spec, recipe, data, imagenet = read_run(folder)
    splits = load_data(data)
    torch.manual_seed(recipe.seed)
    detector = build_detector(replace(spec, class_names=splits["train"].class_names))
    if imagenet:
        load_imagenet(detector.backbone, spec.backbone)
    out = folder / "train"
    resume = (out / "last.ckpt").exists()
    if not resume and out.exists():  # interrupted before the first checkpoint: nothing to keep
        shutil.rmtree(out)
    done = train(detector, splits["train"], splits["valid"], recipe, out, resume=resume, data=str(data))
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


def work(folder: Path, stop: Connection, threads: int) -> None:
    """The whole life of a process that makes one run; it ends with the exit codes of the command line.

    What it prints goes to `folder`/log.txt. It stops in good order when the other end of `stop` is closed,
    also by the death of the process that holds it, and takes no notice of the terminal's Ctrl-C.
    """
    if hasattr(os, "setsid"):
        os.setsid()
    # Or the loader's own processes would be started like this one, and import everything anew.
    multiprocessing.set_start_method(None, force=True)
    threading.Thread(target=_interrupt_when_closed, args=(stop,), daemon=True).start()
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


def _interrupt_when_closed(stop: Connection) -> None:
    try:
        stop.recv()
    except (EOFError, OSError):
        main = threading.main_thread().ident
        if hasattr(signal, "pthread_kill") and main is not None:
            signal.pthread_kill(main, signal.SIGINT)  # wakes it, too, if it waits for something
        else:
            signal.raise_signal(signal.SIGINT)
