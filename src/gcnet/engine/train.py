"""Training from a recipe to a folder with models, metrics and curves."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_only

from gcnet.data.coco import CocoDataset
from gcnet.data.loader import iterations_per_epoch, train_loader
from gcnet.engine.callbacks import Checkpoints, Logging, Meet, Validation
from gcnet.engine.checkpoint import changed_fields, read_checkpoint, restore_detector
from gcnet.engine.curves import draw_curves
from gcnet.engine.fit import Devices, choose_devices, fit
from gcnet.engine.module import NotFiniteError, TrainingModule
from gcnet.engine.progress import ProgressLine
from gcnet.engine.recipe import Recipe
from gcnet.engine.runfolder import (
    RunLog,
    prepare_run_folder,
    recorded_weights,
    write_recipe,
    write_versions,
)
from gcnet.errors import GCNetError
from gcnet.evaluation.coco_ap import Metrics
from gcnet.evaluation.evaluate import evaluate
from gcnet.evaluation.table import print_metrics
from gcnet.models.detector import Detector
from gcnet.models.weights import save_model


@dataclass(frozen=True)
class TrainResult:
    """What a run came to. `metrics` and `best` are none without validation images."""

    metrics: Metrics | None
    best: Path | None
    last: Path
    seconds: float


def train(
    detector: Detector,
    train_set: CocoDataset,
    valid_set: CocoDataset | None,
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    data: str | None = None,
    weights: str | None = None,
) -> TrainResult:
    """Trains `detector` in place; everything it comes to is in `out`.

    `out` gets `last.safetensors` and `best.safetensors` (by mask AP; models for `gcnet predict`), `last.ckpt`
    (to resume from), `metrics.json` and `results.json` of the last validation, `metrics.csv`, `tensorboard/`,
    `curves.png`, `recipe.yaml` (reruns it; `data` and `weights` are only noted there) and `versions.json`.
    The models say what they were trained on, and under `fine_tuned_from` what `detector.provenance` was.
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
        detector.spec = replace(detector.spec, image_size=recipe.image_size)
    if not resume:
        detector.provenance = _provenance(detector, train_set, data)
    module = _training_module(detector, train_set, recipe, out, resume, devices)

    if rank_zero_only.rank > 0:  # a helper process of a run on several devices
        return _train_beside(module, recipe, devices, out, began)
    spec = detector.spec
    weights = (recorded_weights(out) if resume else None) or weights
    write_recipe(out, recipe, model=spec.name, data=data, weights=weights, class_names=spec.class_names)
    write_versions(out)
    return _train_leading(module, valid_set, recipe, devices, out, began)


def _provenance(detector: Detector, train_set: CocoDataset, data: str | None) -> dict[str, Any]:
    """What the models of this run say of themselves, beside iteration and AP."""
    origin = {"fine_tuned_from": detector.provenance} if detector.provenance else {}
    where = {"trained_on": Path(data).resolve().name} if data else {}  # no path: files are given to others
    return {**where, "train_images": len(train_set.records), **origin}


def _training_module(
    detector: Detector, train_set: CocoDataset, recipe: Recipe, out: Path, resume: bool, devices: Devices
) -> TrainingModule:
    start, optimizer_state = 0, None
    per_epoch = iterations_per_epoch(train_set, recipe.batch_size)
    if resume:
        path = out / "last.ckpt"
        state = read_checkpoint(path)
        restore_detector(detector, state, path, recipe)
        start, optimizer_state = state["iteration"], state["optimizer"]
        detector.provenance = state.get("provenance", {})
        if rank_zero_only.rank == 0:
            print(f"resuming {out} after iteration {start} of {recipe.epochs * per_epoch}")
            if changed := changed_fields(state["recipe"], recipe):
                print(f"note: the recipe differs from that of the checkpoint in {', '.join(changed)}")

    def make_loader(start_iteration: int, rank: int, world_size: int) -> Any:
        return train_loader(
            train_set,
            image_size=detector.spec.image_size,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            start_iteration=start_iteration,
            rank=rank,
            world_size=world_size,
            workers=recipe.workers,
            flip=recipe.flip,
            scale_jitter=recipe.scale_jitter,
            color_jitter=recipe.color_jitter,
        )

    return TrainingModule(
        detector.train(),
        recipe,
        iterations_per_epoch=per_epoch,
        make_loader=make_loader,
        start=start,
        optimizer_state=optimizer_state,
    )


def _train_leading(
    module: TrainingModule,
    valid_set: CocoDataset | None,
    recipe: Recipe,
    devices: Devices,
    out: Path,
    began: float,
) -> TrainResult:
    log = RunLog(out, start=module.start)
    line = ProgressLine(module.total, module.start, module.iterations_per_epoch)
    checkpoints = Checkpoints(out / "last.ckpt")
    callbacks: list[Callback] = [Logging(log, line), checkpoints]
    validation = None
    if valid_set is not None:
        validation = Validation(out, log, line, _validator(valid_set, recipe, devices))
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
            draw_curves(log.path, out / "curves.png")
    metrics = validation.metrics if validation else None
    return _finish(module, metrics, checkpoints, out, time.monotonic() - began)


def _train_beside(
    module: TrainingModule, recipe: Recipe, devices: Devices, out: Path, began: float
) -> TrainResult:
    try:
        fit(module, recipe, devices, [Meet()])
    except (NotFiniteError, KeyboardInterrupt):
        sys.exit(0)  # the leading process says why, and fails
    return TrainResult(None, None, out / "last.safetensors", time.monotonic() - began)


def _validator(valid_set: CocoDataset, recipe: Recipe, devices: Devices) -> Callable[[Detector], Any]:
    batch_size = max(1, recipe.batch_size // devices.world)
    return lambda detector: evaluate(detector, valid_set, batch_size=batch_size, workers=recipe.workers)


def _announce(module: TrainingModule, recipe: Recipe, devices: Devices, out: Path) -> None:
    parameters = sum(p.numel() for p in module.detector.parameters() if p.requires_grad)
    kind = {"gpu": "GPU", "cpu": "CPU"}[devices.accelerator]
    print(
        f"training {module.detector.spec.name} ({parameters / 1e6:.1f} M trained parameters) on "
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
    module: TrainingModule, metrics: Metrics | None, checkpoints: Checkpoints, out: Path, seconds: float
) -> TrainResult:
    """Keeps the final model, prints what there is and how to use it."""
    last, best = out / "last.safetensors", out / "best.safetensors"
    failure = f"the final {checkpoints.path} could not be written" if checkpoints.failed else None
    try:
        save_model(module.detector, last, provenance={"iteration": module.total})
    except (OSError, GCNetError) as error:
        failure = f"the final {last} could not be written ({error})"
    if metrics is not None:
        print_metrics(metrics)
    usable = best if best.exists() else last
    print(f"trained in {seconds / 60:.1f} min; models, metrics.csv, curves.png and tensorboard/ are in {out}")
    if failure:
        raise GCNetError(f"{failure}; metrics are kept in {out}: free space and run again with --resume")
    print(f"predict with it: gcnet predict {usable} IMAGES... --out predictions", flush=True)
    return TrainResult(metrics, best if best.exists() else None, last, seconds)
