"""Training from a recipe to a folder with models, metrics and curves."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_only

from gcnet.data.dataset import DataSet
from gcnet.engine.callbacks import Checkpoints, Logging, Meet, Validation
from gcnet.engine.checkpoint import changed_fields, read_checkpoint, restore_model
from gcnet.engine.curves import draw_curves
from gcnet.engine.fit import Devices, choose_devices, fit
from gcnet.engine.module import NotFiniteError, TrainingModule
from gcnet.engine.progress import ProgressLine
from gcnet.engine.runfolder import (
    RunLog,
    prepare_run_folder,
    recorded_weights,
    write_recipe,
    write_versions,
)
from gcnet.engine.task import Task, task_of
from gcnet.errors import GCNetError
from gcnet.evaluation.classify import ClassMetrics
from gcnet.evaluation.coco_ap import Metrics
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.recipe import Recipe
from gcnet.weights.files import save_model


@dataclass(frozen=True)
class TrainResult:
    """What a run came to. `metrics` and `best` are none without validation images."""

    metrics: Metrics | ClassMetrics | None
    best: Path | None
    last: Path
    seconds: float


def train(
    model: Detector | Classifier,
    train_set: DataSet,
    valid_set: DataSet | None,
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    data: str | None = None,
    weights: str | None = None,
) -> TrainResult:
    """Trains `model` in place; everything it comes to is in `out`.

    A detector takes COCO data sets, a classifier image folders and a `ClassificationRecipe`. `out` gets
    `last.safetensors` and `best.safetensors` (by mask AP or top-1; models for `gcnet predict`), `last.ckpt`
    (to resume from), `metrics.json` and `results.json` of the last validation, `metrics.csv`, `tensorboard/`,
    `curves.png`, `recipe.yaml` (reruns it; `data` and `weights` are only noted there) and `versions.json`.
    The models say what they were trained on, and under `fine_tuned_from` what `model.provenance` was.
    With `resume`, the run in `out` goes on from its `last.ckpt` exactly as if it had not been interrupted.

    Raises:
        GCNetError: `out` cannot be written to, holds another run, or has none to resume; a loss became NaN
            or infinite; the devices asked for do not exist; the disk had no room for the final model.
        KeyboardInterrupt: Ctrl-C; the state is in `last.ckpt`.
    """
    began = time.monotonic()
    out = Path(out)
    if rank_zero_only.rank == 0:
        prepare_run_folder(out, resume=resume)
    devices = choose_devices(recipe)
    if recipe.image_size is not None:
        spec = replace(model.spec, image_size=recipe.image_size)
        model.spec = spec  # pyright: ignore[reportAttributeAccessIssue] (it is of the same kind)
    if not resume:
        model.provenance = _provenance(model, train_set, data)
    task = task_of(model.spec)
    module = _training_module(model, task, train_set, recipe, out, resume)

    if rank_zero_only.rank > 0:  # a helper process of a run on several devices
        return _train_beside(module, recipe, devices, out, began)
    spec = model.spec
    weights = (recorded_weights(out) if resume else None) or weights
    write_recipe(out, recipe, model=spec.name, data=data, weights=weights, class_names=spec.class_names)
    write_versions(out)
    return _train_leading(module, task, valid_set, recipe, devices, out, began)


def _provenance(model: Detector | Classifier, train_set: DataSet, data: str | None) -> dict[str, Any]:
    """What the models of this run say of themselves, beside iteration and scores."""
    origin = {"fine_tuned_from": model.provenance} if model.provenance else {}
    where = {"trained_on": Path(data).resolve().name} if data else {}  # no path: files are given to others
    return {**where, "train_images": len(train_set), **origin}


def _training_module(
    model: Detector | Classifier,
    task: Task,
    train_set: DataSet,
    recipe: Recipe,
    out: Path,
    resume: bool,
) -> TrainingModule:
    start, optimizer_state = 0, None
    per_epoch = task.iterations_per_epoch(train_set, recipe.batch_size)
    if resume:
        path = out / "last.ckpt"
        state = read_checkpoint(path)
        restore_model(model, state, path, recipe)
        start, optimizer_state = state["iteration"], state["optimizer"]
        model.provenance = state.get("provenance", {})
        if rank_zero_only.rank == 0:
            print(f"resuming {out} after iteration {start} of {recipe.epochs * per_epoch}")
            if changed := changed_fields(state["recipe"], recipe):
                print(f"note: the recipe differs from that of the checkpoint in {', '.join(changed)}")

    def make_loader(start_iteration: int, rank: int, world_size: int) -> Any:
        return task.make_loader(
            train_set,
            image_size=model.spec.image_size,
            recipe=recipe,
            start_iteration=start_iteration,
            rank=rank,
            world_size=world_size,
        )

    return TrainingModule(
        model.train(),
        recipe,
        iterations_per_epoch=per_epoch,
        make_loader=make_loader,
        start=start,
        optimizer_state=optimizer_state,
    )


def _train_leading(
    module: TrainingModule,
    task: Task,
    valid_set: DataSet | None,
    recipe: Recipe,
    devices: Devices,
    out: Path,
    began: float,
) -> TrainResult:
    log = RunLog(out, scores=task.score_names, start=module.start)
    line = ProgressLine(module.total, module.start, module.iterations_per_epoch)
    checkpoints = Checkpoints(out / "last.ckpt")
    callbacks: list[Callback] = [Logging(log, line), checkpoints]
    validation = None
    if valid_set is not None:
        batch_size = max(1, recipe.batch_size // devices.world)
        options = {"batch_size": batch_size, "workers": recipe.workers}
        validation = Validation(out, log, line, partial(task.evaluate, dataset=valid_set, **options), task)
        callbacks.append(validation)
    callbacks.append(Meet())
    _announce(module, recipe, devices, out)
    try:
        fit(module, recipe, devices, callbacks)
        if module.stop_requested:
            raise KeyboardInterrupt
        if validation and validation.metrics is None:  # the run was complete but for this
            validation.run(module, module.total)
    except NotFiniteError as error:
        raise GCNetError(
            f"{error}; training stopped, the last good state is kept in {checkpoints.path}: "
            "try a lower lr, a longer warm-up or clip_norm, and look at these images"
        ) from None
    except KeyboardInterrupt:
        print(f"stopped; go on with: gcnet train --config {out / 'recipe.yaml'} --resume", flush=True)
        raise
    finally:
        line.pause()
        log.close()
        with contextlib.suppress(OSError):
            draw_curves(log.path, out / "curves.png", task.score_names)
    metrics = validation.metrics if validation else None
    return _finish(module, task, metrics, checkpoints, out, time.monotonic() - began)


def _train_beside(
    module: TrainingModule, recipe: Recipe, devices: Devices, out: Path, began: float
) -> TrainResult:
    try:
        fit(module, recipe, devices, [Meet()])
    except (NotFiniteError, KeyboardInterrupt):
        sys.exit(0)  # the leading process says why, and fails
    return TrainResult(None, None, out / "last.safetensors", time.monotonic() - began)


def _announce(module: TrainingModule, recipe: Recipe, devices: Devices, out: Path) -> None:
    parameters = sum(p.numel() for p in module.model.parameters() if p.requires_grad)
    kind = {"gpu": "GPU", "cpu": "CPU"}[devices.accelerator]
    print(
        f"training {module.model.spec.name} ({parameters / 1e6:.1f} M trained parameters) on "
        f"{devices.world} {kind}{'s' if devices.world > 1 and kind == 'GPU' else ''}, {recipe.precision}: "
        f"{recipe.epochs} epochs of {module.iterations_per_epoch} iterations, logs in {out}",
        flush=True,
    )
    if 0 < module.total <= recipe.warmup_iterations:
        print(
            f"note: the warm-up ({recipe.warmup_iterations} iterations) is longer than the run "
            f"({module.total}), which never reaches its learning rate; lower warmup_iterations"
        )


def _finish(
    module: TrainingModule, task: Task, metrics: Any, checkpoints: Checkpoints, out: Path, seconds: float
) -> TrainResult:
    """Keeps the final model, prints what there is and how to use it."""
    last, best = out / "last.safetensors", out / "best.safetensors"
    failure = f"the final {checkpoints.path} could not be written" if checkpoints.failed else None
    try:
        save_model(module.model, last, provenance={"iteration": module.total})
    except (OSError, GCNetError) as error:
        failure = f"the final {last} could not be written ({error})"
    if metrics is not None:
        task.print_metrics(metrics)
    usable = best if best.exists() else last
    print(f"trained in {seconds / 60:.1f} min; models, metrics.csv, curves.png and tensorboard/ are in {out}")
    if failure:
        raise GCNetError(f"{failure}; metrics are kept in {out}: free space and run again with --resume")
    print(f"predict with it: gcnet predict {usable} IMAGES... --out predictions", flush=True)
    return TrainResult(metrics, best if best.exists() else None, last, seconds)
