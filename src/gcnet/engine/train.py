"""The training loop, from a recipe to a folder with models, metrics and curves. Read it from top to bottom.

Each process of a run (one for each device) runs it; the first one also writes files, prints, and scores.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import nn

from gcnet.data.dataset import DataSet
from gcnet.data.detection import describe_left_out
from gcnet.data.divide import write_split
from gcnet.engine.batch_size import settle_batch_size, smallest
from gcnet.engine.begin import Losses, begin_run, prepared
from gcnet.engine.budget import TimeLimit, fit_schedule
from gcnet.engine.checkpoint import decided_before, read_checkpoint
from gcnet.engine.frozen import describe_frozen
from gcnet.engine.live import LivePage
from gcnet.engine.loggers import RunLog, check_loggers
from gcnet.engine.processes import agree, find_place, joined
from gcnet.engine.progress import ProgressLine, memory_gb
from gcnet.engine.run import Model, NotFiniteError, Run, take_step, update_average
from gcnet.engine.runfolder import SPLIT_FILE, claimed, draw_curves, recorded, write_recipe, write_versions
from gcnet.engine.stop import Stop, end_by
from gcnet.engine.task import task_of
from gcnet.engine.validation import validate
from gcnet.errors import GCNetError
from gcnet.evaluation.classify import ClassMetrics
from gcnet.evaluation.coco_ap import Metrics
from gcnet.evaluation.evaluate import check_classes
from gcnet.evaluation.table import print_metrics
from gcnet.files import disk_errors, goes_on
from gcnet.models.detector import Detector
from gcnet.recipe import Recipe
from gcnet.weights.files import check_describable, save_model

LOG_EVERY = 10  # iterations in a row of metrics.csv


@dataclass(frozen=True)
class TrainResult:
    """The result of a training. `metrics` and `best` are None if there are no validation images."""

    metrics: Metrics | ClassMetrics | None
    best: Path | None
    last: Path
    seconds: float


def train(
    model: Model,
    train_set: DataSet,
    valid_set: DataSet | None,
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool | Literal["auto"] = False,
    data: Mapping[str, str] | None = None,
    weights: str | None = None,
    began: float | None = None,
) -> TrainResult:
    """Trains `model` in place, and writes all results to `out`.

    These files are written:

    - `last.safetensors`, and `best.safetensors` by mask AP (box AP without outlines) or top-1: models for
      `gcnet predict`. Their provenance says what they were trained on, and has that of `model` under
      `fine_tuned_from`;
    - `last.ckpt` to resume from, and `live.html` to watch the run;
    - `metrics.json` and `results.json` of the last validation;
    - `metrics.csv`, `tensorboard/` and `curves.png`;
    - `recipe.yaml` to repeat the run, `versions.json`, and `split.json` if the data was divided.

    Args:
        model: a detector, or a classifier.
        train_set, valid_set: a detector's data sets, or a classifier's image folders.
        recipe: for a classifier a `ClassificationRecipe`.
        out: the run folder.
        resume: continue from `last.ckpt` exactly as without the interruption; "auto" begins if there is none.
        data, weights: the options for data and weights, to be noted in `recipe.yaml`.
        began: from when a recipe's `time` counts, by `time.monotonic`; by default from now.

    Raises:
        GCNetError: `out` cannot be written to, holds another run, or has none to resume; a loss became NaN
            or infinite; the devices asked for do not exist; the disk had no room for the final model; the
            model has inserted blocks that its spec does not describe.
        KeyboardInterrupt: Ctrl-C; the state is in `last.ckpt`.
        SystemExit: SIGTERM, with code 143; the state is in `last.ckpt`.
    """
    began = time.monotonic() if began is None else began
    out, task, place = Path(out), task_of(model.spec, valid_set), find_place(recipe)
    check_loggers(recipe.loggers)
    check_describable(model)
    resume = goes_on(out, resume)
    for dataset in (train_set, *([valid_set] if valid_set is not None else [])):
        check_classes(model.spec.class_names, dataset.class_names)
    with claimed(out, resume=resume) if place.leads else contextlib.nullcontext():
        state = read_checkpoint(out / "last.ckpt") if resume else None
        if state is not None:
            recipe = decided_before(recipe, state["recipe"])
        tries_sizes = recipe.batch_size == "auto"
        if tries_sizes:
            recipe = replace(recipe, batch_size=smallest(place, recipe))
        if recipe.image_size is not None:
            spec = replace(model.spec, image_size=recipe.image_size)
            model.spec = spec  # pyright: ignore[reportAttributeAccessIssue] (it is of the same kind)
        if recipe.max_detections is not None and isinstance(model, Detector):
            model.limit_detections(recipe.max_detections)
        run = begin_run(model, task, train_set, recipe, out, place, state, data)
        with joined(place), Stop(speaks=place.leads) as stop, prepared(run, state) as losses_of:
            if tries_sizes:
                settle_batch_size(run, Losses(model), train_set, stop)
            limit = None
            if recipe.time:
                limit = fit_schedule(run, losses_of, train_set, valid_set, stop, began)
            if place.leads:
                if not resume:  # first of all, so that a run can always be resumed
                    with disk_errors(out / "last.ckpt"):
                        run.write_checkpoint()
                weights = (recorded(out, "weights") if resume else None) or weights
                write_recipe(out, run.recipe, spec=model.spec, data=data or {}, weights=weights)
                if valid_set is not None and valid_set.source == train_set.source:
                    write_split(out / SPLIT_FILE, train_set, valid_set)
                write_versions(out)
                _announce(run, train_set)
            metrics = _loop(run, losses_of, train_set, valid_set, stop, limit)
        if not place.leads:
            return TrainResult(None, None, out / "last.safetensors", time.monotonic() - began)
        return _finish(run, metrics, time.monotonic() - began)


def _loop(
    run: Run,
    losses_of: nn.Module,
    train_set: DataSet,
    valid_set: DataSet | None,
    stop: Stop,
    limit: TimeLimit | None,
) -> Metrics | ClassMetrics | None:
    """Trains to the end; returns the metrics of the last validation.

    Whatever ends it between two iterations, the state is saved. Raises KeyboardInterrupt or SystemExit after
    a signal; in other processes than the first, SystemExit(0).
    """
    task, recipe, place = run.task, run.recipe, run.place
    scores = (*task.score_names, "valid_loss") if recipe.validation_loss else task.score_names
    log = RunLog(run.out, run.iteration, recipe, scores=scores) if place.leads else None
    if log is not None:
        log.add(LivePage(run, log.metrics, (task.best_by, *scores)))
    line = ProgressLine(run.total, run.iteration, run.per_epoch)
    batches = iter(run.loader(train_set, recipe, run.iteration))
    metrics, scored = None, False
    try:
        while True:
            if valid_set is not None and run.validation_is_due:
                if not agree(place, log is not None and log.metrics.validated(run.iteration)):
                    metrics, scored = validate(run, valid_set, log, line, stop), True
                patient = log is None or log.metrics.since_best(task.best_by) < (recipe.patience or math.inf)
                if not agree(place, patient):
                    if place.leads:
                        print(f"no better {task.best_by} in {recipe.patience} validations: ended early")
                    break
            if limit is not None and run.validation_is_due and limit.keep(run):
                line.total = run.total
            if run.iteration >= run.total:
                break
            started = time.monotonic()
            images, targets = next(batches)
            run.stepping = True
            losses, grad_norm, signal = take_step(run, losses_of, images, targets, stop)
            run.iteration += 1
            if run.average is not None:
                update_average(run.average, run.model, run.recipe.ema, run.iteration)
            run.stepping = False
            if log is not None:
                _log(run, log, losses, grad_norm, time.monotonic() - started)
                line.update(run.iteration, losses, run.optimizer.param_groups[-1]["lr"], place.device)
                run.save_if_due(now=signal or run.iteration == run.total)
            if signal:
                end_by(signal)
        if place.leads and run.saved != run.iteration:  # it ended early, or the disk was full for a while
            run.save()
        if valid_set is not None and not scored:  # it was complete, and is asked for its metrics
            metrics = validate(run, valid_set, log, line, stop)
    except BaseException as error:
        _save_and_explain(run, error)
        raise
    finally:
        batches = None  # or the loader's processes would live as long as the traceback
        line.pause()
        if log is not None:
            log.close()
            with contextlib.suppress(OSError):
                draw_curves(log.metrics.path, run.out / "curves.png", scores)
    return metrics


def _save_and_explain(run: Run, error: BaseException) -> None:
    """Saves the state before `error` ends the run; raises another error where that says more to the user."""
    leads = run.place.leads
    if isinstance(error, NotFiniteError):
        if leads:
            raise GCNetError(
                f"{error}; training stopped, the last good state is kept in {run.out / 'last.ckpt'}: "
                "try a lower lr, a longer warm-up or clip_norm, and look at these images"
            ) from None
        raise SystemExit(0) from None  # the first process says why
    if leads and not run.stepping and run.saved != run.iteration:
        run.save()
    resume = f"gcnet train --config {run.out / 'recipe.yaml'} --resume"
    if isinstance(error, GCNetError) and leads:  # an image that is gone, a reader that was killed
        raise GCNetError(f"{error}; then go on after iteration {max(run.saved, 0)}: {resume}") from error
    if isinstance(error, KeyboardInterrupt | SystemExit):
        if not leads:
            raise SystemExit(0) from None
        print(f"stopped; go on after iteration {max(run.saved, 0)} with: {resume}", flush=True)


def _log(run: Run, log: RunLog, losses: dict[str, float], grad_norm: float, seconds: float) -> None:
    """Adds an iteration's numbers to the row of metrics.csv, and writes it when it is complete."""
    for name, value in {**losses, "grad_norm": grad_norm, "seconds": seconds}.items():
        total = run.sums.setdefault(name, [0.0, 0.0])
        if math.isfinite(value):  # the gradient of a step that fp16 skips is not
            total[0] += value
            total[1] += 1
    if run.iteration % run.per_epoch % LOG_EVERY == 0:
        means = {name: value / count if count else math.nan for name, (value, count) in run.sums.items()}
        epoch, lr = run.iteration / run.per_epoch, run.optimizer.param_groups[-1]["lr"]
        memory = memory_gb(run.place.device)
        log.write(run.iteration, "train", {"epoch": epoch, "lr": lr, **means, "memory_gb": memory})
        run.sums = {}


def _announce(run: Run, train_set: DataSet) -> None:
    parameters = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    world, kind = run.place.world, {"cuda": "GPU", "cpu": "CPU"}[run.place.device.type]
    print(describe_frozen(run.model))
    print(
        f"training {run.model.spec.name} ({parameters / 1e6:.1f} M trained parameters) on "
        f"{world} {kind}{'s' if world > 1 and kind == 'GPU' else ''}, {run.recipe.precision}: "
        f"{run.recipe.epochs} epochs of {run.per_epoch} iterations, logs in {run.out}; "
        "open live.html there to watch it",
        flush=True,
    )
    if not train_set.has_labels and (line := describe_left_out(train_set, run.recipe, run.task.masks)):
        print(line, flush=True)
    if 0 < run.total <= run.recipe.warmup_iterations and run.recipe.schedule != "onecycle":
        print(
            f"note: the warm-up ({run.recipe.warmup_iterations} iterations) is longer than the run "
            f"({run.total}), which never reaches its learning rate; lower --warmup-iterations"
        )


def _finish(run: Run, metrics: Metrics | ClassMetrics | None, seconds: float) -> TrainResult:
    """Saves the final model, and prints the files and how to use them."""
    out, last, best = run.out, run.out / "last.safetensors", run.out / "best.safetensors"
    failure = f"the final {out / 'last.ckpt'} could not be written" if run.saved < run.iteration else None
    try:
        learnt = run.model if run.average is not None else run.result()
        save_model(learnt, last, provenance={"iteration": run.iteration})
        if run.average is not None:
            save_model(run.average, out / "last-ema.safetensors", provenance=run.stage())
    except (OSError, GCNetError) as error:
        failure = f"the final models could not be written in {out} ({error})"
    if metrics is not None:
        print_metrics(metrics)
    usable = best if best.exists() else last
    print(f"trained in {seconds / 60:.1f} min; models, metrics.csv and curves.png are in {out}")
    if failure:
        raise GCNetError(f"{failure}; metrics are kept in {out}: free space and run again with --resume")
    print(f"predict with it: gcnet predict {usable} IMAGES... --out predictions", flush=True)
    return TrainResult(metrics, best if best.exists() else None, last, seconds)
