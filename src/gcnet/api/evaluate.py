"""`gcnet.evaluate` scores a model on a data set; `gcnet.compare` scores two side by side."""

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcnet.api.choices import ModelChoice, find_data_set, held_split, read_split
from gcnet.console import check_names
from gcnet.errors import GCNetError, check_least, check_threshold
from gcnet.files import AnyPath, check_handles, check_own, check_writable
from gcnet.models.spec import ModelSpec, Precision
from gcnet.recipe import DIVISION, Recipe

if TYPE_CHECKING:
    from gcnet.api.choices import AnyModel
    from gcnet.data.dataset import DataSet
    from gcnet.evaluation.classify import ClassMetrics
    from gcnet.evaluation.coco_ap import Metrics

log = logging.getLogger(__name__)

# Arguments of `evaluate` that `compare` does not pass on.
ALONE = ("model", "data", "out", "report", "keep_threshold", "weights", "score_threshold")
SCORE_FROM = 0.05  # AP needs unlikely detections too; published figures are measured with this threshold


def evaluate(
    model: "AnyModel",
    data: "AnyPath | Mapping[str, DataSet[Any]] | DataSet[Any] | None" = None,
    *,
    split: str = "valid",
    annotations: AnyPath | None = None,
    images: AnyPath | None = None,
    out: AnyPath | None = None,
    report: AnyPath | None = None,
    keep_threshold: bool = False,
    weights: AnyPath | None = None,
    mirror: Sequence[str] = (),
    device: str = "auto",
    batch_size: int = 1,
    tile: int | None = None,
    overlap: float = 0.2,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    workers: int = 2,
    score_threshold: float = SCORE_FROM,
    max_detections: int | None = None,
    val_fraction: float = Recipe.val_fraction,
    group_by: str = "",
    split_file: AnyPath = "",
    crowd_as_objects: bool = False,
    skip_bad_images: bool = False,
    max_pixels: int = Recipe.max_pixels,
    precision: Precision = "fp32",
    compile: bool = False,
    progress: bool = True,
) -> "tuple[Metrics | ClassMetrics, Sequence[dict[str, Any]]]":
    """Scores a model on one split of a data set: `gcnet eval`.

    A run folder that is scored on the data it was trained on keeps its own division into splits, which is in
    its split.json.

    Args:
        model, weights, mirror, device, precision, compile, max_detections: as `gcnet.predict` takes them.
        data, annotations, images: as `gcnet.train` takes them.
        split: "train", "valid" or "test".
        out: a folder for results.json, written before anything is scored, and metrics.json.
        report: a folder for report.html, a page that says how good the model is and where it fails, and for
            report.json, the same in numbers.
        keep_threshold: write the score threshold with the best F1 into the model's file, for `gcnet predict`;
            a model that finds no object stays as it is.
        batch_size: images at a time; with `tile`, tiles; with `flip`, an image and its mirror image.
        tile, overlap, flip, scales: as `gcnet.predict` takes them.
        workers: processes that read images.
        score_threshold: for detectors, in [0, 1]: detections that score less do not count.
        val_fraction, group_by, split_file, crowd_as_objects, skip_bad_images, max_pixels: as `gcnet.Recipe`
            takes them.

    Returns:
        The metrics (of a detector COCO AP, of a classifier accuracy), and the detections or classes behind
        them, an entry each as in results.json.

    Raises:
        GCNetError: the data set or the model cannot be found or read, they have different classes, or a
            folder cannot be written to.
    """
    chosen = ModelChoice(model, weights, mirror, device, precision, compile, max_detections)
    views = chosen.views(tile, overlap, flip, scales, batch_size)
    check_least(1, max_pixels=max_pixels)
    check_least(0, workers=workers)
    check_threshold(score_threshold)
    check_handles()
    place = find_data_set(data, annotations, images)
    for folder in (out, report):
        if folder is not None:
            check_writable(Path(folder))
    if report is not None:
        check_own(report, "report.json", ("model", "data", "split"), "report.html")
    file = chosen.source and chosen.source.place
    if keep_threshold:
        if not (isinstance(file, Path) and file.suffix == ".safetensors"):
            raise GCNetError("--keep-threshold is for a model in a file of ours; `gcnet convert` writes one")
        if not os.access(file.parent, os.W_OK):
            raise GCNetError(f"--keep-threshold: no permission to write in {file.parent}; copy the model")
    loaded = chosen.load()

    from gcnet.data.check import check_images
    from gcnet.evaluation.evaluate import evaluate as score

    of_detector = isinstance(loaded.spec, ModelSpec)
    if keep_threshold and not of_detector:
        raise GCNetError(f"--keep-threshold: {loaded.spec.name} is a classifier, whose answers have none")
    division = {"val_fraction": val_fraction, "group_by": group_by, "split_file": split_file}
    division["crowd_as_objects"] = crowd_as_objects
    dataset = read_split(model, loaded.spec, place, split, division) if place else held_split(data, split)
    splits = {split: dataset}
    dataset = check_images(splits, skip=skip_bad_images, max_pixels=max_pixels, progress=progress)[split]
    metrics, results = score(
        loaded,
        dataset,
        batch_size=batch_size,
        workers=workers,
        views=views,
        out=out,
        progress=progress,
        **({"score_threshold": score_threshold} if of_detector else {}),
    )
    if report is not None:
        from gcnet.judge.page import write_report

        about = {"model": loaded.spec.name, "data": str(dataset.source), "split": split}
        train_set = None
        if place and split != "train":
            with contextlib.suppress(GCNetError):  # there is none
                train_set = read_split(model, loaded.spec, place, "train", division)
        write_report(loaded.spec, results, dataset, Path(report), about=about, train_set=train_set)
    if keep_threshold and isinstance(file, Path):
        _keep_threshold(file, metrics)
    return metrics, results


def compare(
    model: "AnyModel",
    other: "AnyModel",
    data: "AnyPath | Mapping[str, DataSet[Any]] | DataSet[Any] | None" = None,
    *,
    out: AnyPath,
    **options: Any,
) -> dict[str, Any]:
    """Scores two models on one data set, with confidence intervals of the difference: `gcnet compare`.

    Args:
        model: as `gcnet.predict` takes it.
        other: the model to compare with it: two detectors, or two classifiers.
        data: as `gcnet.train` takes it.
        out: a folder for the page compare.html, for compare.json, the same in numbers, and for the results of
            both, in a/ and b/.
        options: arguments of `evaluate`, except weights, report, keep_threshold and score_threshold.

    Returns:
        The content of compare.json.

    Raises:
        GCNetError: as `evaluate`; or only one of the two is a classifier.
    """
    known = {name: one.default for name, one in signature(evaluate).parameters.items() if name not in ALONE}
    check_names(options, known, "gcnet.compare")
    given = known | options
    running = ("mirror", "device", "precision", "compile", "max_detections")
    how = {name: given.pop(name) for name in running}
    chosen = [ModelChoice(one, **how) for one in (model, other)]
    for one in chosen:
        one.views(*(given[name] for name in ("tile", "overlap", "flip", "scales", "batch_size")))
    check_handles()
    place = find_data_set(data, given.pop("annotations"), given.pop("images"))
    check_writable(Path(out))
    check_own(out, "compare.json", ("a", "b", "verdict"), "compare.html")
    loaded = [one.load() for one in chosen]

    from gcnet.data.check import check_images
    from gcnet.judge.compare import write_comparison

    of_detector = [isinstance(one.spec, ModelSpec) for one in loaded]
    if of_detector[0] != of_detector[1]:
        which = "the first is a detector" if of_detector[0] else "the second is a detector"
        raise GCNetError(f"{which}, the other a classifier: give two of one kind")
    split, division = given["split"], {name: given.pop(name) for name in DIVISION}
    dataset = read_split(model, loaded[0].spec, place, split, division) if place else held_split(data, split)
    skip, most = given.pop("skip_bad_images"), given["max_pixels"]
    dataset = check_images({split: dataset}, skip=skip, max_pixels=most, progress=given["progress"])[split]
    results, about, notes = [], {}, []
    for name, word, one in zip("ab", (model, other), loaded, strict=True):
        results.append(evaluate(one, dataset, out=Path(out) / name, **given)[1])
        about[name] = str(word) if isinstance(word, str | os.PathLike) else one.spec.name
        if place and (seen := _images_trained_on(word, place[0]).intersection(dataset.names())):
            notes.append(
                f"{name.upper()} was trained on {len(seen)} of these {len(dataset)} images: compare on "
                "images that neither was trained on."
            )
    about |= {"data": str(dataset.source), "split": split}
    specs = [one.spec for one in loaded]
    return write_comparison(specs, results, dataset, Path(out), about=about, notes=notes)


def _images_trained_on(model: "AnyModel", data: Path) -> set[str]:
    """The images of an undivided data set that the model's own run did not hold out."""
    from gcnet.data.divide import read_trained
    from gcnet.engine.runfolder import own_split

    file = own_split(Path(model), data) if isinstance(model, str | os.PathLike) else None
    return read_trained(file) if file else set()


def _keep_threshold(file: Path, metrics: "Metrics | ClassMetrics") -> None:
    from gcnet.evaluation.coco_ap import Metrics
    from gcnet.weights.files import keep_in_file

    if not isinstance(metrics, Metrics) or metrics.best is None:
        log.warning(
            "--keep-threshold: no object is found, so that no score is best; the model stays as it is"
        )
        return
    keep_in_file(file, score_threshold=round(metrics.best.score, 4))
