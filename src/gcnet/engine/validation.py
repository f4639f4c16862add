"""Validation during a run: all its processes score the model on images that it does not train on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from gcnet.console import one_line
from gcnet.data.dataset import DataSet
from gcnet.data.loader import iterations_per_epoch
from gcnet.engine.loggers import RunLog, rounded
from gcnet.engine.processes import gather
from gcnet.engine.progress import ProgressLine
from gcnet.engine.run import Model, Run, to_device
from gcnet.engine.schedule import seed_iteration
from gcnet.engine.stop import Stop
from gcnet.errors import GCNetError
from gcnet.evaluation.coco_ap import Metrics
from gcnet.evaluation.evaluate import as_results, predict_all, score_all, write_results
from gcnet.models.modes import in_eval_mode
from gcnet.weights.files import save_model

SHOW_FROM = 0.5  # score threshold of drawings if none is best


def validate(run: Run, valid_set: DataSet, log: RunLog | None, line: ProgressLine, stop: Stop) -> Any:
    """Scores the model, or the average of its weights; each process predicts its share of the images.

    The first process keeps the best model, writes results, and gives the metrics.
    """
    task, place, scored = run.task, run.place, run.result()
    line.pause()
    with stop.at_once():
        share = range(place.rank, len(valid_set), place.world)
        options = {"workers": run.recipe.workers, "progress": place.leads}
        found = gather(place, predict_all(task.optimized(scored), valid_set, share, **options))
        losses = validation_losses(run, scored, valid_set) if run.recipe.validation_loss else []
        metrics = score_all(scored, valid_set, found) if place.leads else None
    if log is None:
        return None
    values = task.scores(metrics)
    if losses:
        values["valid_loss"] = math.fsum(losses) / len(losses)
    best = run.out / "best.safetensors"
    if not log.metrics.validated(run.iteration):
        before = log.metrics.best(task.best_by)
        if not best.exists() or before < 0 or rounded(values[task.best_by]) > before:
            recorded_scores = {name: values[name] for name in task.recorded if values[name] >= 0}
            recorded_scores |= _threshold(metrics)
            _keep_going(lambda: save_model(scored, best, provenance=run.stage() | recorded_scores))
        _keep_going(lambda: write_results(run.out, metrics, as_results(found)))
        log.show(valid_set, found, _threshold(metrics).get("score_threshold", SHOW_FROM))
        log.write(run.iteration, "valid", values)  # last: a validation with a row is not done again
    shown = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items() if value >= 0]
    print(f"iteration {run.iteration}/{run.total}: {', '.join(shown) or 'nothing to score'}", flush=True)
    line.resume()
    return metrics


def _threshold(metrics: Any) -> dict[str, float]:
    """The score threshold with the best F1, which `gcnet predict` takes."""
    best = metrics.best if isinstance(metrics, Metrics) else None
    return {} if best is None else {"score_threshold": round(best.score, 4)}


def validation_losses(run: Run, scored: Model, valid_set: DataSet, *, most: int | None = None) -> list[float]:
    """The loss of each validation image that has objects, in the first process; computed in float32.

    `most`: of each process's images only so many.
    """
    world, device = run.place.world, run.place.device
    recipe = replace(run.recipe.without_augmentation(), batch_size=world, repeat_threshold=0.0)
    try:
        iterations = iterations_per_epoch(valid_set, recipe, masks=run.task.masks)
    except GCNetError:  # no objects at all
        return []
    loader = run.loader(valid_set, recipe, 0)
    found: list[tuple[int | str, float]] = []
    scored = in_eval_mode(scored)
    with torch.no_grad():
        for images, targets in itertools.islice(loader, min(iterations, most or iterations)):
            seed_iteration(recipe.seed, 0)
            losses = scored.losses(images.to(device), to_device(targets, device))
            found.append((images.image_ids[0], float(sum(losses.values()))))
    return list(dict(gather(run.place, found)).values())  # the stream repeats images to fill its last batch


def _keep_going(write: Callable[[], object]) -> None:
    """Calls `write`; if that fails, such as on a full disk, it gives a warning."""
    try:
        write()
    except (GCNetError, OSError) as error:
        print(f"warning: {one_line(str(error))}; training goes on", flush=True)
