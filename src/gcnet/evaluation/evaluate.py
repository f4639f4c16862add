"""A detector over a whole data set, scored; for `gcnet eval` and for validation in training alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from gcnet.console import listed, progress_bar
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.loader import batches_of_one_size, eval_loader
from gcnet.errors import GCNetError
from gcnet.evaluation.coco_ap import CocoEvaluator, Metrics
from gcnet.evaluation.results import CocoResults, ImageResults
from gcnet.files import prepare_folder, write_json
from gcnet.models.detector import Detector
from gcnet.models.modes import in_eval_mode
from gcnet.types import Batch, Detections


def evaluate(
    detector: Detector,
    dataset: DataSet[ImageRecord],
    *,
    batch_size: int = 1,
    workers: int = 2,
    score_threshold: float = 0.05,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> tuple[Metrics, Sequence[dict[str, Any]]]:
    """Metrics of `detector` on every image of `dataset`, and its detections in COCO results format.

    Runs on the detector's device. With `out`,
    `results.json` is written there before anything is scored, then `metrics.json`. The threshold 0.05 is
    the one that published AP is measured with.

    Raises GCNetError if the classes of model and data set differ or `out` cannot be written.
    """
    check_classes(detector.spec.class_names, dataset.class_names)
    folder = None if out is None else prepare_folder(out)
    found = predict_all(
        detector,
        dataset,
        range(len(dataset)),
        batch_size=batch_size,
        workers=workers,
        score_threshold=score_threshold,
        progress=progress,
    )
    if folder is not None:
        write_json(folder / "results.json", CocoResults(found))
    metrics, results = score_all(dataset, found)
    if folder is not None:
        write_json(folder / "metrics.json", metrics.as_dict())
    return metrics, results


def score_all(dataset: DataSet[ImageRecord], found: Sequence[ImageResults]) -> tuple[Metrics, CocoResults]:
    """The metrics of what was found in each image, and the detections in COCO results format."""
    evaluator = CocoEvaluator(dataset)
    evaluator.results = CocoResults(found)
    return evaluator.compute(), evaluator.results


def predict_all(
    detector: Detector,
    dataset: DataSet[ImageRecord],
    indices: Sequence[int],
    *,
    batch_size: int = 1,
    workers: int = 2,
    score_threshold: float = 0.05,
    progress: bool = True,
) -> list[ImageResults]:
    """What `detector` finds in the images `indices` of `dataset`, in their order.

    A batch holds images of one padded size: what is found in an image does not depend on the others.
    """
    detector, image_size = in_eval_mode(detector), detector.spec.image_size
    batches = batches_of_one_size(dataset, indices, image_size=image_size, batch_size=batch_size)
    loader = eval_loader(dataset, batches, image_size=image_size, workers=workers)
    device = next((parameter.device for parameter in detector.parameters()), torch.device("cpu"))
    images: dict[int, ImageResults] = {}

    def encode(group: list[int], batch: Batch, found: list[Detections]) -> None:
        for index, image_id, detections in zip(group, batch.image_ids, found, strict=True):
            images[index] = ImageResults.of(detections, image_id, dataset.category_ids)

    with (
        torch.inference_mode(),
        progress_bar(disable=not progress) as bar,
        ThreadPoolExecutor(1) as pool,
    ):
        task = bar.add_task("evaluating", total=len(indices))
        pending: Future[None] | None = None
        for group, batch in zip(batches, loader, strict=True):
            found = detector.predict(batch.to(device), score_threshold=score_threshold)
            if pending is not None:
                pending.result()
            # Masks are encoded while the network works on the next images.
            pending = pool.submit(encode, group, batch, [one.to("cpu") for one in found])
            bar.advance(task, len(batch))
        if pending is not None:
            pending.result()
    return [images[index] for index in indices]


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
