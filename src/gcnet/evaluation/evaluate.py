"""Predicts and scores a whole data set, for `gcnet eval` and for validation in training alike.

The detections of an image are `ImageResults`; a classifier's result is a `ClassResult`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from gcnet.console import listed, progress_bar
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.detection import why_nothing
from gcnet.data.loader import eval_loader
from gcnet.errors import GCNetError
from gcnet.evaluation.classify import ClassMetrics, ClassResult, class_metrics
from gcnet.evaluation.coco_ap import CocoEvaluator, Metrics
from gcnet.evaluation.results import CocoResults, ImageResults
from gcnet.files import alone_in, check_own, prepare_folder, write_json
from gcnet.found import AnyDetections
from gcnet.journal import NAME as JOURNAL
from gcnet.journal import Journal
from gcnet.models.modes import fingerprint, in_eval_mode
from gcnet.models.spec import ClassifierSpec, ModelSpec
from gcnet.models.views import Views
from gcnet.ops.images import fit_size, padded_size, together

log = logging.getLogger(__name__)

CALL = "call.json"  # describes the call that wrote the results


def evaluate(
    model: Any,
    dataset: DataSet[Any],
    *,
    batch_size: int = 1,
    workers: int = 2,
    views: Views = Views(),  # noqa: B008  (frozen)
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> tuple[Metrics | ClassMetrics, Sequence[dict[str, Any]]]:
    """The metrics of `model` on all images of `dataset`, and its results.

    The model is a `Detector`, a `Classifier`, or an export of one, which takes an image at a time.
    Of a detector that is in COCO results format, of a classifier as `ClassResult` has it. Runs on the model's
    device. With `out`, what is found in an image is there at once (see `evaluation_in`), `results.json`
    before anything is scored, then `metrics.json`. A detector looks at each image in its `views`; of tiles AP
    counts as many detections of an image as they find. `options` are those of the model's
    `predict`; a detector's threshold of 0.05 is the one that published AP is measured with.

    Raises GCNetError if the classes of model and data set differ, an image cannot be read or `out` cannot be
    written.
    """
    check_classes(model.spec.class_names, dataset.class_names)
    if not dataset.has_labels and not any(record.objects(masks=False) for record in dataset.records):
        log.warning("there is nothing to score: %s has %s", dataset.source, why_nothing(dataset.records))
    views.check_model(model.spec.name, is_detector=not isinstance(model.spec, ClassifierSpec))
    with evaluation_in(out, model, dataset, **views.as_dict(), **options) as journal:
        found = predict_all(
            model,
            dataset,
            range(len(dataset)),
            batch_size=batch_size,
            workers=workers,
            views=views,
            progress=progress,
            journal=journal,
            **options,
        )
        results = as_results(found)
        if out is not None:
            write_json(Path(out) / "results.json", results)
        metrics = score_all(model, dataset, found)
        if out is not None:
            write_json(Path(out) / "metrics.json", metrics.as_dict())
    return metrics, results


@contextmanager
def evaluation_in(
    out: str | os.PathLike[str] | None, model: Any, dataset: DataSet[Any], **options: Any
) -> Iterator[Journal | None]:
    """Prepares the folder `out` for an evaluation, and opens its journal.

    When all is written, `call.json` says what it is of. The same call goes on where an earlier one ended.

    Raises GCNetError if `out` cannot be written to, another process writes there, or it holds results of
    another model, data set or kind.
    """
    if out is None:
        yield None
        return
    folder, spec = prepare_folder(out), model.spec
    images = [f"{record.path.name} {getattr(record, 'id', '')}" for record in dataset.records]
    call = {
        "command": "eval",
        "model": spec.name,
        "weights": fingerprint(model) if isinstance(model, Module) else model.fingerprint,
        "data": dataset.source.as_posix(),
        "images": hashlib.sha256("\n".join(images).encode("utf-8", "surrogateescape")).hexdigest()[:16],
        **({"max_detections": spec.roi.detections} if isinstance(spec, ModelSpec) else {}),
        **options,
    }
    with alone_in(folder):
        _check_before(folder, call)
        with Journal(folder, call) as journal:
            yield journal
            write_json(folder / CALL, call)


def _check_before(folder: Path, call: dict[str, Any]) -> None:
    """Raises GCNetError if the folder has results of a different call."""
    others = () if (folder / JOURNAL).exists() else ("results.json", "metrics.json")  # else they are ours
    check_own(folder, CALL, ("command", "weights"), *others)
    path = folder / CALL
    before = json.loads(path.read_bytes()) if path.exists() else call
    if changed := [name for name in {**before, **call} if before.get(name) != call.get(name)]:
        raise GCNetError(
            f"{folder} holds the scores of another evaluation (its {', '.join(changed)} differs); "
            "delete them, or give another --out"
        )


def as_results(found: Sequence[Any]) -> Sequence[dict[str, Any]]:
    """The detections of each image in the form in which they are written."""
    if any(isinstance(one, ClassResult) for one in found):
        return [one.entry for one in found]
    return CocoResults(found)


def score_all(model: Any, dataset: DataSet[Any], found: Sequence[Any]) -> Metrics | ClassMetrics:
    """The metrics of the results of `model` in each image of `dataset`."""
    if isinstance(model.spec, ClassifierSpec):
        return class_metrics(found, dataset.class_names)
    return evaluator_of(model.spec, dataset, found).compute()


def evaluator_of(
    spec: ModelSpec, dataset: DataSet[ImageRecord], found: Sequence[ImageResults]
) -> CocoEvaluator:
    """The evaluator for a detector of `spec` on all images of `dataset`."""
    most = max([spec.roi.detections, *map(len, found)])  # tiles find more than one view may
    return CocoEvaluator(dataset, found, most)


def predict_all(
    model: Any,
    dataset: DataSet[Any],
    indices: Sequence[int],
    *,
    batch_size: int = 1,
    workers: int = 2,
    views: Views = Views(),  # noqa: B008  (frozen)
    progress: bool = True,
    journal: Journal | None = None,
    **options: Any,
) -> list[Any]:
    """The results of `model` in the images `indices` of `dataset`, in their order.

    A batch holds images of one padded size: what is found in an image does not depend on the others. With a
    `journal`, images that are in it are not looked at again, and the others are put there.
    """
    device, is_export = torch.device("cpu"), not isinstance(model, Module)
    if is_export:
        batch_size = model.details.batch
    else:
        model = in_eval_mode(model)
        device = next((parameter.device for parameter in model.parameters()), device)
    images = {} if journal is None else _recorded(journal, dataset)
    left = [index for index in indices if index not in images]
    looks: Any = views.through(model, batch_size)
    if views.plain and not is_export:
        size = model.spec.image_size
        resize = model.spec.resize if isinstance(model.spec, ModelSpec) else "opencv"
        batches = batches_of_one_size(dataset, left, image_size=size, resize=resize, batch_size=batch_size)
        loader = eval_loader(dataset, batches, image_size=size, resize=resize, workers=workers)
        loader = (batch.to(device) for batch in loader)
    else:
        many = batch_size if views.plain else 1
        batches = [left[start : start + many] for start in range(0, len(left), many)]
        prepared = read_ahead(dataset, left, looks.prepare)
        loader = (together([next(prepared) for _ in batch]) for batch in batches)

    def encode(group: list[int], found: list[Any]) -> None:
        for index, one in zip(group, found, strict=True):
            images[index] = _encode(dataset, index, one)
            if journal is not None:
                journal.add(str(index), images[index].as_json())

    with (
        torch.inference_mode(),
        progress_bar(disable=not progress) as bar,
        ThreadPoolExecutor(1) as pool,
    ):
        task = bar.add_task("evaluating", total=len(indices), completed=len(indices) - len(left))
        pending = pool.submit(encode, [], [])
        for group, batch in zip(batches, loader, strict=True):
            found = looks.predict(batch, **options)
            pending.result()
            # Masks are encoded while the network works on the next images.
            found = [
                one.on_cpu() if isinstance(one, AnyDetections) else torch.as_tensor(one).cpu()
                for one in found
            ]
            pending = pool.submit(encode, group, found)
            bar.advance(task, len(group))
        pending.result()
    return [images[index] for index in indices]


def read_ahead(dataset: DataSet[Any], indices: Sequence[int], prepare: Callable[[Any], Any]) -> Iterator[Any]:
    """The images as a model prepares them; one is read ahead while another is predicted."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = [pool.submit(dataset.read_image, index) for index in indices[:1]]
        for index in [*indices[1:], None]:
            image = upcoming.pop().result()
            if index is not None:
                upcoming.append(pool.submit(dataset.read_image, index))
            yield prepare(image)


def _encode(dataset: DataSet[Any], index: int, found: Any) -> ImageResults | ClassResult:
    if dataset.has_labels:
        return ClassResult.of(dataset, index, found)
    return ImageResults.of(found, dataset.records[index].id, dataset.category_ids)


def _recorded(journal: Journal, dataset: DataSet[Any]) -> dict[int, Any]:
    """The results of an earlier call, by the index of the image."""
    done = ((int(key), value) for _, key, value in journal.entries())
    if dataset.has_labels:
        return {index: ClassResult.from_json(value) for index, value in done}
    return {index: ImageResults.from_json(dataset.records[index].id, value) for index, value in done}


def batches_of_one_size(
    dataset: DataSet[Any],
    indices: Iterable[int],
    *,
    image_size: tuple[int, int],
    batch_size: int,
    resize: str = "opencv",
) -> list[list[int]]:
    """`indices` in batches of up to `batch_size` images that are padded to the same size.

    So no image is padded further because of the others, which would change what the network finds in it.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index in indices:
        record, size = dataset.records[index], (0, 0)
        if isinstance(record, ImageRecord):
            size = padded_size(fit_size((record.height, record.width), image_size, resize))
        groups.setdefault(size, []).append(index)
    return [
        group[start : start + batch_size]
        for group in groups.values()
        for start in range(0, len(group), batch_size)
    ]


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
