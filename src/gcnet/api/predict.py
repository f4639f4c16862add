"""`gcnet.predict` finds the objects in images, or the classes of images."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcnet.api.choices import ModelChoice, shown_from
from gcnet.errors import GCNetError, check_least, check_threshold
from gcnet.files import AnyPath, check_handles, check_writable, several
from gcnet.image_files import MAX_PIXELS, find_images
from gcnet.launch import find_launch
from gcnet.models.spec import Precision
from gcnet.prediction.wanted import Wanted

if TYPE_CHECKING:
    from gcnet.api.choices import AnyModel
    from gcnet.prediction.predictions import Predictions

    Images = AnyPath | Sequence[AnyPath]


def predict(
    model: "AnyModel",
    images: "Images",
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
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    max_pixels: int = MAX_PIXELS,
    precision: Precision = "fp32",
    compile: bool = False,
    progress: bool = True,
) -> "Predictions":
    """Finds the objects in images, or the classes of images: `gcnet predict`.

    Args:
        model: a name that `gcnet models` lists, a model file, a run folder, a checkpoint such as an
            mmdetection .pth, OWNER/NAME on the Hugging Face hub, or an .onnx or .xml that `gcnet export`
            wrote. In Python also a model in memory.
        images: files, folders, quoted patterns such as "photos/*.jpg", @list.txt (a file of paths), and
            addresses such as s3://bucket/photos. In Python also a list of these. For arrays and PIL images
            call the model's `predict_images`.
        out: a folder for results and overlays. In Python nothing is written without it, and the detections
            are in `Predictions.found`; see `gcnet.prediction.files.predict_files`.
        weights: for a model that is given by name: our .safetensors, an mmdetection .pth, or "coco" for the
            published weights, which are the default.
        mirror: an address or folder with the published files, used if the publisher cannot be reached. Can be
            repeated; GCNET_MIRRORS lists more.
        device: "auto", "cpu", "cuda" or "cuda:N". In Python "auto" leaves a model in memory where it is.
        score_threshold: for detectors, in [0, 1]: detections that score more are kept. By default the
            threshold in the model's file, which was best in validation, or else 0.5. `gcnet eval` takes 0.05,
            as papers do.
        max_detections: for detectors: most detections in an image, best first; by default the model's own
            number, 100 if it was not trained with another.
        top: for classifiers: number of classes that are given for an image.
        overlays: draw the detections on a copy of each image.
        crops: write the content of each object's box as an image.
        cutouts: write each object as a PNG that is transparent around its mask.
        format: formats of the results, one or more of "coco-results" (the default), "coco", "csv", "jsonl",
            "labelme", "parquet" and "yolo": see docs/predicting.md.
        images_a_file: for "jsonl" and "parquet": images in each file.
        shard: predict only part I of N of the images, so that N calls share the work; the first part is 0/N.
            A process of torchrun or srun takes the part of its rank by default. In Python (I, N).
        batch_size: images at a time, if their padded sizes are equal; with `tile`, tiles; with `flip`, 2 or
            more take an image and its mirror image together. Faster on a GPU, with the same results.
        tile: for detectors: also look at larger images in square tiles of so many pixels a side. For small
            objects.
        overlap: share of a tile's side that lies in the next tile, in [0, 0.8].
        flip: for detectors: also look at the mirror image of each image, and merge the detections.
        scales: for detectors: look at each image in several sizes, such as 0.8,1,1.25 times the usual one.
            Each factor is in [0.1, 10].
        max_pixels: largest number of pixels of an image. Larger images are not read; headers tell their size.
        precision: precision of a detector's network. "bf16" and "fp16" are faster on some hardware, and
            slightly less exact.
        compile: for detectors on a GPU: compile the network first. That takes a minute, once, and the results
            stay the same.

    Returns:
        The images with their sizes and errors, and what was found in them: `Predictions`.

    Raises:
        GCNetError: no image matches, the model or its weights cannot be found or read, or `out` cannot be
            written to.
    """
    check_least(1, top=top, max_pixels=max_pixels)
    formats = several(format)
    launch = find_launch() if shard is None else None
    if shard is None:
        shard = launch[:2] if launch else (0, 1)
    wanted = Wanted(formats, overlays, crops, cutouts, images_a_file, shard)
    given = several(images)
    if not all(isinstance(image, str | os.PathLike) for image in given):
        raise GCNetError("predict takes files, folders and patterns; for arrays call model.predict_images")
    chosen = ModelChoice(model, weights, mirror, device, precision, compile, max_detections)
    views = chosen.views(tile, overlap, flip, scales, batch_size)
    check_handles()
    check_threshold(score_threshold)
    if out is not None:
        check_writable(Path(out))
    paths = find_images(given)
    loaded = chosen.load()

    from gcnet.prediction.files import predict_files

    return predict_files(
        loaded,
        paths,
        out,
        score_threshold=shown_from(loaded, score_threshold),
        top=top,
        wanted=wanted,
        batch_size=batch_size,
        views=views,
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
    """Predicts the images of a Ray data set. Ray schedules the work, and repeats what a lost worker had.

    Args:
        dataset: a `ray.data.Dataset` with images in a column `path` (files and addresses that the workers can
            read) or `bytes` (the content of a file).
        model: as `predict` takes it; each worker finds and reads a name or a file itself.
        batch_size: rows that a worker gets at a time.
        workers: number of processes, each with a model of its own.
        gpus: GPUs of each worker; a fraction shares one.
        weights, mirror, device, score_threshold, max_detections, top, max_pixels, precision: as `predict`
            takes them.

    Returns:
        A `ray.data.Dataset`, which is lazy like all of Ray's. It has the columns `width`, `height`,
        `detections` and `error`, for a classifier `predicted`, `probabilities` and `error`, and all columns
        of `dataset` that have another name, except `bytes`.

    Raises:
        GCNetError: there is no column with images.
    """
    from gcnet.prediction.cluster import Worker

    chosen = (model, weights, mirror, device, precision, False, max_detections)
    check_threshold(score_threshold)
    columns = dataset.columns() or []
    if not {"path", "bytes"}.intersection(columns):
        raise GCNetError(
            f"the data set has columns {', '.join(columns)}; images are in one called path or bytes"
        )
    return dataset.map_batches(
        Worker,
        fn_constructor_args=[partial(_load_shown, chosen, score_threshold)],
        fn_constructor_kwargs={"top": top, "max_pixels": max_pixels},
        batch_size=batch_size,
        concurrency=workers,
        num_gpus=gpus,
    )


def _load_shown(chosen: tuple[Any, ...], score_threshold: float | None) -> tuple[Any, float]:
    """The chosen model and its score threshold. Ray pickles this function by name."""
    loaded = ModelChoice(*chosen).load()
    return loaded, shown_from(loaded, score_threshold)
