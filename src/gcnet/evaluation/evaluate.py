"""A detector over a whole data set, scored; for `gcnet eval` and for validation in training alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from gcnet.console import listed, progress_bar
from gcnet.data.coco import CocoDataset
from gcnet.data.loader import eval_loader
from gcnet.errors import GCNetError
from gcnet.evaluation.coco_ap import CocoEvaluator, Metrics
from gcnet.files import prepare_folder, write_json
from gcnet.models.detector import Detector
from gcnet.models.eval_mode import eval_mode


def evaluate(
    detector: Detector,
    dataset: CocoDataset,
    *,
    batch_size: int = 1,
    workers: int = 2,
    score_threshold: float = 0.05,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> tuple[Metrics, Sequence[dict[str, Any]]]:
    """Metrics of `detector` on every image of `dataset`, and its detections in COCO results format.

    Runs on the detector's device, in eval mode, and leaves the detector in the mode it was in. With `out`,
    `results.json` is written there before anything is scored, then `metrics.json`. The threshold 0.05 is
    the one that published AP is measured with.

    Raises GCNetError if the classes of model and data set differ or `out` cannot be written.
    """
    check_classes(detector.spec.class_names, dataset.class_names)
    folder = None if out is None else prepare_folder(out)
    evaluator = CocoEvaluator(dataset)
    _predict_all(detector, dataset, evaluator, batch_size, workers, score_threshold, progress)
    if folder is not None:
        write_json(folder / "results.json", evaluator.results)
    metrics = evaluator.compute()
    if folder is not None:
        write_json(folder / "metrics.json", metrics.as_dict())
    return metrics, evaluator.results


def write_results(folder: str | os.PathLike[str], metrics: Any, results: Sequence[dict[str, Any]]) -> None:
    """Writes `results.json` and `metrics.json` (their `as_dict()`) in a folder, made if need be."""
    path = prepare_folder(folder)
    write_json(path / "results.json", results)
    write_json(path / "metrics.json", metrics.as_dict())


def check_classes(model: tuple[str, ...], dataset: tuple[str, ...]) -> None:
    """Raises GCNetError if scoring `model`'s labels with the classes of `dataset` would compare other things.

    Labels are compared by position; names may differ (a model can have been made without names) unless one
    stands at another place.
    """
    if len(model) != len(dataset):
        raise GCNetError(
            f"the model has {len(model)} classes ({listed(model, 3)}), the data set {len(dataset)} "
            f"({listed(dataset, 3)}); use a model trained on these classes"
        )
    for label, name in enumerate(dataset):
        if model[label] != name and name in model:
            raise GCNetError(
                f"class {name!r} is number {label} in the data set, number {model.index(name)} in the model; "
                "load the data set with the model's class names"
            )


def _predict_all(
    detector: Detector,
    dataset: CocoDataset,
    evaluator: CocoEvaluator,
    batch_size: int,
    workers: int,
    score_threshold: float,
    progress: bool,
) -> None:
    loader = eval_loader(dataset, image_size=detector.spec.image_size, batch_size=batch_size, workers=workers)
    device = next((parameter.device for parameter in detector.parameters()), torch.device("cpu"))
    with (
        eval_mode(detector),
        torch.inference_mode(),
        progress_bar(disable=not progress) as bar,
        ThreadPoolExecutor(1) as pool,
    ):
        task = bar.add_task("evaluating", total=len(dataset))
        pending: Future[None] | None = None
        for batch in loader:
            found = detector.predict(batch.to(device), score_threshold=score_threshold)
            if pending is not None:
                pending.result()
            # Masks are encoded while the network works on the next images.
            pending = pool.submit(evaluator.update, batch.image_ids, [one.to("cpu") for one in found])
            bar.advance(task, len(batch))
        if pending is not None:
            pending.result()
