"""`gcnet.train`, `gcnet.evaluate` and `gcnet.predict`: what the commands of these names call.

Their arguments are the options of the commands, under the same names. What can be wrong is found out before
anything slow is imported.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from gcnet.console import did_you_mean, listed
from gcnet.context_spec import parse_context
from gcnet.device import choose_device, keep_freed_memory
from gcnet.errors import GCNetError
from gcnet.files import check_handles, check_unused, check_writable, find_data
from gcnet.image_files import MAX_PIXELS, find_images
from gcnet.launch import find_launch
from gcnet.models.spec import ClassifierSpec, ModelSpec, Precision
from gcnet.models.tiles import Tiles
from gcnet.prediction.wanted import Wanted
from gcnet.recipe import ClassificationRecipe, Recipe
from gcnet.weights.catalog import find
from gcnet.weights.fetch import Source, find_source
from gcnet.weights.start import find_start, load_trained

if TYPE_CHECKING:
    from gcnet.data.dataset import DataSet
    from gcnet.deploy.comparing import ClassComparison, Comparison
    from gcnet.engine.task import Task
    from gcnet.engine.train import TrainResult
    from gcnet.evaluation.classify import ClassMetrics
    from gcnet.evaluation.coco_ap import Metrics
    from gcnet.models.classifier import Classifier
    from gcnet.models.detector import Detector
    from gcnet.prediction.predictions import Predictions

    AnyPath = str | os.PathLike[str]
    AnyModel = AnyPath | Detector | Classifier

log = logging.getLogger(__name__)

EXPORTS = (".onnx", ".xml")  # that `predict` takes
CALIBRATION = 100  # images that int8 is measured on: more change little

SHOW_FROM = 0.5  # score of what is drawn and written, of models that do not say theirs
SCORE_FROM = 0.05  # for AP, whose curve needs the unlikely ones too: what published figures are measured with


def train(
    model: AnyModel,
    data: AnyPath | Mapping[str, DataSet[Any]] | DataSet[Any] | None = None,
    *,
    out: AnyPath,
    annotations: AnyPath | None = None,
    images: AnyPath | None = None,
    resume: bool | Literal["auto"] = False,
    weights: AnyPath | None = "auto",
    mirror: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    backbone_weights: AnyPath | None = None,
    add_context: str | None = None,
    ratio: float | str = 1 / 16,
    stages: str = "c3-c5",
    remove_context: bool = False,
    **recipe: Any,
) -> TrainResult:
    """Trains a model, and writes all results to the folder `out`: `gcnet train`.

    Args:
        model: a name that `gcnet.list_models()` has; a model file, a run folder, a checkpoint or OWNER/NAME
            on the hub, to start from what it holds; or a model with the data's classes, trained in place.
        data: what `gcnet train --data` takes; splits ("train" and perhaps "valid") by name; or one data set,
            to train on without validation.
        out: see `gcnet.engine.train.train` for what is in it afterwards.
        annotations, images: an annotation file and the folder of its images, where `data` cannot say it.
        resume: go on from the last checkpoint in `out`; with "auto", begin if there is none.
        weights: of a name, what to start from: "coco", "imagenet", "none", a file, a run folder, or "auto".
        mirror: addresses or folders with the published files, asked if the publisher fails.
        class_names: checked against the data, if given.
        backbone_weights: of a name, in place of `weights`: a file with a ResNet, by torchvision, timm,
            mmpretrain, MoCo, DINO, transformers or mmdetection. The rest starts random.
        add_context: a block ("gc", "snl", "nl") that a model without blocks gets in every residual block of
            `stages`, such as "c3-c5" or "c4"; with a bottleneck of `ratio`, 0.25 or "1/4". It changes nothing
            until it is trained.
        remove_context: take out the blocks that the model has.
        recipe: fields of `gcnet.Recipe`, of a classifier `gcnet.ClassificationRecipe`, such as `epochs=12`;
            the others are as in the model's own recipe.

    Raises:
        GCNetError: a field is unknown or makes no sense, data or weights cannot be found or read, `out`
            cannot be written to or holds another run, or the training failed.
    """
    began = time.monotonic()
    check_handles()
    place = _find_data(data, annotations, images)
    check_writable(Path(out))
    check_unused(Path(out), resume)
    context = parse_context(add_context, ratio, stages)
    if resume is True:  # its weights are in its checkpoint
        weights = "auto"
    held, file = find_start(model, weights, mirror, backbone_weights)
    spec = held.spec
    own, few_images = _own_recipe(spec)
    settings = check_recipe(own, recipe)
    import torch

    from gcnet.data.check import check_images
    from gcnet.engine.processes import find_place as find_process
    from gcnet.engine.runfolder import goes_on
    from gcnet.engine.task import task_of
    from gcnet.engine.train import train as run
    from gcnet.evaluation.evaluate import check_classes
    from gcnet.weights.create import start_model

    task = task_of(spec)
    splits = _splits(task, place or data, class_names, settings)
    splits = check_images(
        splits,
        skip=settings.skip_bad_images,
        max_pixels=settings.max_pixels,
        progress=find_process(settings).leads,
    )
    changes = []
    if not few_images:
        settings, changes = _suit(task, settings, splits["train"], recipe)
    if settings.accelerator == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
    resume = goes_on(Path(out), resume)
    classes = splits["train"].class_names
    if held is model:
        check_classes(spec.class_names, classes)
    else:
        torch.manual_seed(settings.seed)
    start = start_model(
        held,
        None if resume else weights,
        classes,
        file=file,
        mirrors=mirror,
        backbone=None if resume else backbone_weights,
        context=context,
        remove_context=remove_context,
    )
    if find_process(settings).leads and not resume:
        print("\n".join([*start.report, *changes]), flush=True)
    words = {"data": data, "annotations": annotations, "images": images, "backbone_weights": backbone_weights}
    words |= {"model": file, "add_context": add_context}
    if add_context:
        words |= {"ratio": str(ratio), "stages": stages}
    if remove_context:
        words |= {"remove_context": "true"}
    return run(
        start.model,
        splits["train"],
        splits.get("valid"),
        settings,
        Path(out),
        resume=resume,
        data={name: os.fspath(word) for name, word in words.items() if isinstance(word, str | os.PathLike)},
        weights=start.weights,
        began=began,
    )


def predict(
    model: AnyModel,
    images: AnyPath | Sequence[AnyPath],
    *,
    out: AnyPath | None = None,
    weights: AnyPath | None = None,
    mirror: Sequence[str] = (),
    device: str = "auto",
    score_threshold: float | None = None,
    max_detections: int | None = None,
    top: int = 5,
    overlays: bool = True,
    crops: bool = False,
    cutouts: bool = False,
    format: str | Sequence[str] = (),
    images_a_file: int = 10_000,
    shard: tuple[int, int] | None = None,
    batch_size: int = 1,
    tile: int | None = None,
    overlap: float = 0.2,
    max_pixels: int = MAX_PIXELS,
    precision: Precision = "fp32",
    compile: bool = False,
    progress: bool = True,
) -> Predictions:
    """The objects in images, or the classes of images: `gcnet predict`.

    Args:
        model: a name that `gcnet.list_models()` has, a model file, a run folder, a model, or an .onnx
            or .xml that `export` wrote.
        images: files, folders, patterns such as "photos/*.jpg", lists of paths, "@list.txt", and addresses,
            "s3://bucket/photos". Arrays and PIL images are for the models' own `predict_images`.
        out: a folder for results and overlays, see `gcnet.prediction.files.predict_files`. Without it nothing
            is written, and what was found is in `Predictions.found`.
        weights: of a model that is given by its name; the published ones by default.
        mirror: addresses or folders with the published files, asked if the publisher fails.
        device: "auto", "cpu", "cuda" or "cuda:N"; with "auto" a model that is given stays where it is.
        score_threshold: of a detector, in [0, 1]: what scores above it is kept. By default the one that its
            file says, which was best in the validation of its training, or else 0.5.
        max_detections: of a detector: the best so many of an image; by default as it was trained, or 100.
        top: of a classifier: how many classes an image is given.
        overlays: whether drawings are written beside the JSON.
        crops, cutouts: whether each object is written as an image of its own: what is in its box, or what is
            in its mask, transparent around it.
        format: one or more of "coco-results" (the default), "coco", "csv", "jsonl", "labelme", "parquet" and
            "yolo": see docs/predicting.md.
        images_a_file: of "jsonl" and "parquet".
        shard: (i, N) for the images i, i + N, ...: N calls, each with its own i from 0, share the work. By
            default the processes that torchrun or srun started do.
        batch_size: images that are predicted at once, where their padded sizes are the same; with `tile`,
            tiles.
        tile: of a detector: larger images are looked at in squares of so many pixels as well.
        overlap: the share of a tile's side that lies in the next one, in [0, 0.8].
        max_pixels: images of more are not read; it is known from their headers.
        precision: of a detector's network: "fp32", "bf16" or "fp16".
        compile: a detector on a GPU: compile it first.

    Raises:
        GCNetError: nothing matches, model or weights cannot be found or read, `out` cannot be written.
    """
    formats = (format,) if isinstance(format, str) else tuple(format)
    launch = find_launch() if shard is None else None
    if shard is None:
        shard = launch[:2] if launch else (0, 1)
    wanted = Wanted(formats, overlays, crops, cutouts, images_a_file, shard)
    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    if not all(isinstance(image, str | os.PathLike) for image in given):
        raise GCNetError("predict takes files, folders and patterns; for arrays call model.predict_images")
    is_export = isinstance(model, str | os.PathLike) and Path(model).suffix in EXPORTS
    others = (weights is not None, device != "auto", precision != "fp32", compile, max_detections is not None)
    if is_export and (any(others) or batch_size != 1):
        raise GCNetError(
            f"{model} runs as it was exported: leave out weights, device, precision, compile, "
            "max_detections, batch_size"
        )
    source = None if is_export else _find(model, weights)
    tiles = None if tile is None else Tiles(tile, overlap)
    check_handles()
    if out is not None:
        check_writable(Path(out))
    paths = find_images(given)
    if source is None:
        from gcnet.deploy.runtime import load_export

        loaded = load_export(cast(str, model))
    else:
        loaded = _load(source, mirror, device, precision, compile, max_detections)

    from gcnet.prediction.files import predict_files

    return predict_files(
        loaded,
        paths,
        out,
        score_threshold=shown_from(loaded) if score_threshold is None else score_threshold,
        top=top,
        wanted=wanted,
        batch_size=batch_size,
        tiles=tiles,
        max_pixels=max_pixels,
        progress=progress and (not launch or launch[0] == 0),
    )


def predict_dataset(
    dataset: Any,
    model: Any,
    *,
    weights: AnyPath | None = None,
    mirror: Sequence[str] = (),
    device: str = "auto",
    score_threshold: float | None = None,
    max_detections: int | None = None,
    top: int = 5,
    max_pixels: int = MAX_PIXELS,
    precision: Precision = "fp32",
    batch_size: int = 16,
    workers: int = 1,
    gpus: float = 0.0,
) -> Any:
    """A Ray Data set with what is found in its images: Ray schedules the work, and repeats what is lost.

    Args:
        dataset: a `ray.data.Dataset` with images in a column `path` (files and addresses that the workers can
            read) or `bytes` (the content of a file).
        model: as `predict` takes it; a name or a file is found and read by each worker.
        batch_size: rows that a worker gets at a time.
        workers: processes with a model.
        gpus: of each worker.
        weights, mirror, device, score_threshold, max_detections, top, max_pixels, precision: as `predict`
            takes them.

    Returns:
        A `ray.data.Dataset`, lazy as all are: the columns of `dataset` but for `bytes`, and `width`,
        `height`, `detections` and `error`; of a classifier `predicted`, `probabilities` and `error`.

    Raises:
        GCNetError: there is no column with images.
    """
    from gcnet.prediction.cluster import map_dataset

    def load() -> tuple[Any, float]:
        if isinstance(model, str | os.PathLike) and Path(model).suffix in EXPORTS:
            from gcnet.deploy.runtime import load_export

            loaded = load_export(model)
        else:
            loaded = _load(_find(model, weights), mirror, device, precision, False, max_detections)
        return loaded, shown_from(loaded) if score_threshold is None else score_threshold

    return map_dataset(
        dataset, load, top=top, max_pixels=max_pixels, batch_size=batch_size, workers=workers, gpus=gpus
    )


def shown_from(model: Any) -> float:
    """The score from which on a model's detections are shown, if nobody says another."""
    own = getattr(model, "provenance", {}).get("score_threshold")
    if not isinstance(own, float) or not 0 <= own <= 1:
        return SHOW_FROM
    log.warning("score threshold %.2f, which was best in validation (--score-threshold for another)", own)
    return own


def evaluate(
    model: AnyModel,
    data: AnyPath | DataSet[Any] | None = None,
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
    workers: int = 2,
    score_threshold: float = SCORE_FROM,
    max_detections: int | None = None,
    val_fraction: float = 0.2,
    group_by: str = "",
    split_file: AnyPath = "",
    crowd_as_objects: bool = False,
    skip_bad_images: bool = False,
    max_pixels: int = MAX_PIXELS,
    precision: Precision = "fp32",
    compile: bool = False,
    progress: bool = True,
) -> tuple[Metrics | ClassMetrics, Sequence[dict[str, Any]]]:
    """The scores of a model on one split of a data set, and what it found: `gcnet eval`.

    Args:
        model, weights, mirror, device, precision, compile: as `predict` takes them.
        data: what `gcnet eval --data` takes, or a data set.
        split: of a folder: "train", "valid" or "test".
        annotations, images: as `train` takes them.
        out: a folder for results.json, written before anything is scored, and metrics.json.
        report: a folder for report.html, a page that says how good the model is and where it fails, and
            report.json, which says the same.
        keep_threshold: write the score of the best F1 into the model's file, for `predict`.
        batch_size: images at a time; with `tile`, tiles.
        tile, overlap: as `predict` takes them; AP then counts all that is found in an image.
        workers: processes that read images.
        score_threshold: of a detector, in [0, 1]: what scores less does not count.
        max_detections: as `predict` takes it; AP and recall are measured with as many.
        val_fraction, group_by, split_file, crowd_as_objects, skip_bad_images, max_pixels: as in the recipe
            that the model was trained with. Of a run folder that is scored on the data it was trained on,
            its split.json is taken.

    Raises:
        GCNetError: the data set or the model cannot be found or read, or they have different classes.
    """
    source = _find(model, weights)
    tiles = None if tile is None else Tiles(tile, overlap)
    check_handles()
    place = _find_data(data, annotations, images)
    for folder in (out, report):
        if folder is not None:
            check_writable(Path(folder))
    file = source.place if isinstance(source, Source) else None
    if keep_threshold and not (isinstance(file, Path) and file.suffix == ".safetensors"):
        raise GCNetError("--keep-threshold is for a model in a file of ours; `gcnet convert` writes one")
    loaded = _load(source, mirror, device, precision, compile, max_detections)

    from gcnet.data.check import check_images
    from gcnet.evaluation.evaluate import evaluate as score
    from gcnet.models.detector import Detector

    if keep_threshold and not isinstance(loaded, Detector):
        raise GCNetError(f"--keep-threshold: {loaded.spec.name} is a classifier, whose answers have none")
    load = None
    if place is not None:
        division: Any = {"val_fraction": val_fraction, "group_by": group_by, "split_file": split_file}
        load = _loader(model, loaded.spec, place, crowd_as_objects=crowd_as_objects, **division)
    dataset: Any = load(split) if load else data
    checked = check_images({split: dataset}, skip=skip_bad_images, max_pixels=max_pixels, progress=progress)
    dataset = checked[split]
    threshold = {"score_threshold": score_threshold} if isinstance(loaded, Detector) else {}
    metrics, results = score(
        loaded,
        dataset,
        batch_size=batch_size,
        workers=workers,
        tiles=tiles,
        out=out,
        progress=progress,
        **threshold,
    )
    if report is not None:
        from gcnet.judge.page import write_report

        about = {"model": loaded.spec.name, "data": str(dataset.source), "split": split}
        train_set = None
        if load is not None and split != "train":
            with contextlib.suppress(GCNetError):  # there is none
                train_set = load("train")
        write_report(loaded.spec, results, dataset, Path(report), about=about, train_set=train_set)
    if keep_threshold and isinstance(file, Path):
        _keep_threshold(file, metrics)
    return metrics, results


def compare(
    model: AnyModel,
    other: AnyModel,
    data: AnyPath | DataSet[Any] | None = None,
    *,
    out: AnyPath,
    split: str = "valid",
    annotations: AnyPath | None = None,
    images: AnyPath | None = None,
    mirror: Sequence[str] = (),
    device: str = "auto",
    batch_size: int = 1,
    workers: int = 2,
    tile: int | None = None,
    overlap: float = 0.2,
    max_detections: int | None = None,
    val_fraction: float = 0.2,
    group_by: str = "",
    split_file: AnyPath = "",
    crowd_as_objects: bool = False,
    skip_bad_images: bool = False,
    max_pixels: int = MAX_PIXELS,
    precision: Precision = "fp32",
    compile: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Two detectors on one data set, and how sure it is that they differ: `gcnet compare`.

    Args:
        out: a folder for compare.html, a page, compare.json, which says the same and is returned, and the
            results of both, in `a` and `b`.

    The others are as in `evaluate`. Raises GCNetError as that, and for a classifier.
    """
    sources = [_find(one, None) for one in (model, other)]
    check_handles()
    place = _find_data(data, annotations, images)
    check_writable(Path(out))
    loaded = [_load(one, mirror, device, precision, compile, max_detections) for one in sources]

    from gcnet.data.check import check_images
    from gcnet.judge.compare import write_comparison
    from gcnet.models.detector import Detector

    for one in loaded:
        if not isinstance(one, Detector):
            raise GCNetError(f"{one.spec.name} is a classifier: only detectors are compared")
    division: Any = {"val_fraction": val_fraction, "group_by": group_by, "split_file": split_file}
    dataset: Any = data
    if place is not None:
        spec = loaded[0].spec
        dataset = _loader(model, spec, place, crowd_as_objects=crowd_as_objects, **division)(split)
    checked = check_images({split: dataset}, skip=skip_bad_images, max_pixels=max_pixels, progress=progress)
    dataset, results = checked[split], []
    for name, one in zip("ab", loaded, strict=True):
        options: Any = {"batch_size": batch_size, "workers": workers, "tile": tile, "overlap": overlap}
        _, found = evaluate(one, dataset, split=split, out=Path(out) / name, progress=progress, **options)
        results.append(found)
    words = [
        one.spec.name if isinstance(given, Detector) else os.fspath(cast(Any, given))
        for given, one in zip((model, other), loaded, strict=True)
    ]
    about = {"a": words[0], "b": words[1], "data": str(dataset.source), "split": split}
    specs = [cast(Detector, one).spec for one in loaded]
    return write_comparison(specs, results, dataset, Path(out), about=about)


def _loader(
    model: AnyModel,
    spec: ModelSpec | ClassifierSpec,
    place: tuple[Path, Path | None],
    *,
    split_file: AnyPath = "",
    **division: Any,
) -> Callable[[str], Any]:
    """What loads a split by its name, with the model's classes, and divided as for the run it is of."""
    from gcnet.engine.runfolder import own_split
    from gcnet.engine.task import task_of

    root, folder = place
    if not split_file and isinstance(model, str | os.PathLike):
        split_file = own_split(Path(model), root) or ""
    division = {"split_file": os.fspath(split_file), **division}
    return lambda split: task_of(spec).load_split(root, folder, split, spec.class_names, **division)


def _keep_threshold(file: Path, metrics: Metrics | ClassMetrics) -> None:
    from gcnet.evaluation.coco_ap import Metrics
    from gcnet.weights.files import keep_in_file

    if not isinstance(metrics, Metrics) or metrics.best is None:
        raise GCNetError("--keep-threshold: without an object there is no best one")
    keep_in_file(file, score_threshold=round(metrics.best.score, 4))


def _find_data(
    data: Any, annotations: AnyPath | None, images: AnyPath | None
) -> tuple[Path, Path | None] | None:
    """Where the data set and its images are; nothing if it is given in memory."""
    if data is None or isinstance(data, str | os.PathLike):
        return find_data(data, annotations, images)
    if annotations is not None or images is not None:
        raise GCNetError("annotations and images are for data in files; this data set has its own")
    return None


def export(
    model: AnyModel,
    out: AnyPath,
    *,
    image: AnyPath | None = None,
    weights: AnyPath | None = None,
    mirror: Sequence[str] = (),
    device: str = "cpu",
    size: tuple[int, int] | None = None,
    batch_size: int = 1,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    calibration: Sequence[AnyPath] = (),
    with_resize: bool = False,
) -> Comparison | ClassComparison:
    """A model as a file for another runtime: `gcnet export`.

    Args:
        model: as in `predict`.
        out: a .onnx for ONNX Runtime, an .xml (and a .bin beside it) for OpenVINO, or a .pt2 for
            `torch.export.load`.
        image: where what the file finds is compared with what the model finds; the first of `calibration` or
            a generated one by default.
        device: where the model runs for the comparison.
        size: fixed (height, width) of the images that the file is given; None lets it take all.
        batch_size: images at a time.
        precision: "int8" measures ranges on `calibration`.
        calibration: files, folders and patterns; 100 images are read at most.
        with_resize: of a detector: the file takes an image as it is and resizes it by itself.

    Returns:
        How far the two are apart.

    Raises:
        GCNetError: a package is missing (`pip install 'gcnet[export]'`), the model cannot be written so, or
            the file finds something else, and is not kept.
    """
    source = _find(model, weights)
    check_writable(Path(out).parent)
    paths = find_images(calibration)[:CALIBRATION] if calibration else []
    if image is not None:
        find_images([image])
    loaded = load_trained(source, device, mirror) if isinstance(source, Source) else source

    from gcnet.deploy.exporting import export as write
    from gcnet.ops.decode import read_image

    images = [read_image(path) for path in paths]
    shown = None if image is None else read_image(image)
    return write(
        loaded,
        Path(out),
        image=shown,
        size=size,
        batch=batch_size,
        precision=precision,
        calibration=images,
        with_resize=with_resize,
    )


def _find(model: AnyModel, weights: AnyPath | None) -> Source | Detector | Classifier:
    """Where the model is found, or the model itself. Reports mistakes before anything slow is imported."""
    if isinstance(model, str | os.PathLike):
        return find_source(os.fspath(model), None if weights is None else os.fspath(weights))
    if weights is not None:
        raise GCNetError("weights are for a model that is given by its name; this one has its own")
    return model


def _load(
    source: Source | Detector | Classifier,
    mirror: Sequence[str],
    device: str,
    precision: Precision,
    compile: bool,
    max_detections: int | None,
) -> Detector | Classifier:
    """The model, ready for inference: optimized if it is loaded here, or where its options ask for it."""
    if isinstance(source, Source):
        model = load_trained(source, device, mirror)
    else:
        model = source if device == "auto" else source.to(choose_device(device))

    from gcnet.models.detector import Detector

    if isinstance(model, Detector) and max_detections is not None:
        model = copy.deepcopy(model) if model is source else model
        model.limit_detections(max_detections)
    wanted = isinstance(source, Source) or precision != "fp32" or compile
    if isinstance(model, Detector) and wanted:
        return model.optimize(precision=precision, compiled=compile)
    return model


def _own_recipe(spec: ModelSpec | ClassifierSpec) -> tuple[Recipe, bool]:
    """The recipe of a model's row, and whether it was made for small data sets: not for published models."""
    try:
        row = find(spec.name)
    except GCNetError:
        return (ClassificationRecipe(), True) if isinstance(spec, ClassifierSpec) else (Recipe(), False)
    return row.recipe, row.weights is None


def check_recipe(own: Recipe, given: Mapping[str, Any]) -> Recipe:
    """A recipe with the given fields. Raises GCNetError for one that is unknown or makes no sense."""
    known = [field.name for field in fields(own)]
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, f"there are {', '.join(known)}")
            raise GCNetError(f"there is no option {name!r} of the recipe; {hint}")
    try:
        return replace(own, **given)
    except TypeError as error:
        values = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise GCNetError(f"recipe: a value of {values} is of the wrong type ({error})") from error


def _splits(
    task: Task, data: Any, class_names: Sequence[str] | None, recipe: Recipe
) -> Mapping[str, DataSet[Any]]:
    """The splits of the data: train is among them, and its classes are the expected ones, if any are."""
    if isinstance(data, tuple):
        root, images = data
        splits = task.load_splits(root, images, recipe)
    else:
        root, splits = "the data", data if isinstance(data, Mapping) else {"train": data}
    if "train" not in splits:
        raise GCNetError(f"{root} has no training split, only {', '.join(splits)}; see docs/your-data.md")
    names = splits["train"].class_names
    if class_names and tuple(class_names) != tuple(names):
        raise GCNetError(f"class_names are not those of {splits['train'].source}: {listed(names)}")
    return splits


def _suit(
    task: Task, recipe: Recipe, train_set: DataSet[Any], given: Mapping[str, Any]
) -> tuple[Recipe, list[str]]:
    """The recipe adapted to the number of training images, and lines that say what was changed."""
    from gcnet.data.loader import epoch_size
    from gcnet.engine.processes import find_place as find_process
    from gcnet.engine.schedule import describe_changes, for_few_images

    images = epoch_size(train_set, recipe, masks=task.masks)
    suited = for_few_images(recipe, images, given, devices=find_process(recipe).world)
    line = describe_changes(recipe, suited, images)
    return suited, [line] if line else []
