"""`gcnet.predict`: the objects in images, or the classes of images."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcnet.api.choices import ModelChoice, shown_from
from gcnet.errors import GCNetError, check_least
from gcnet.files import AnyPath, check_handles, check_writable
from gcnet.image_files import MAX_PIXELS, find_images
from gcnet.launch import find_launch
from gcnet.models.spec import Precision
from gcnet.models.views import Views
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
    """The objects in images, or the classes of images: `gcnet predict`.

    Args:
        model: a name that `gcnet models` lists, a model file, a run folder, a checkpoint such as an
            mmdetection .pth, or OWNER/NAME on the Hugging Face hub; to predict, score, compare and serve, an
            .onnx or .xml of `gcnet export`, too. In Python a model, too.
        images: files, folders, quoted patterns such as "photos/*.jpg", @list.txt (a file of paths), and
            addresses such as s3://bucket/photos. In Python a list of those, too; arrays and PIL images are
            for the models' own `predict_images`.
        out: a folder for results and overlays. In Python nothing is written without it, and what was found
            is in `Predictions.found`; see `gcnet.prediction.files.predict_files`.
        weights: of a model that is given by its name: our .safetensors, an mmdetection .pth, or "coco", the
            published ones, which are the default.
        mirror: an address or folder with the published files, asked if the publisher fails; can be repeated
            (GCNET_MIRRORS lists more).
        device: "auto", "cpu", "cuda" or "cuda:N". In Python "auto" leaves a model that is given where it is.
        score_threshold: of a detector, in [0, 1]: what scores above it is kept. By default what was best in
            the validation of the training, as the model's file says, or 0.5; `gcnet eval` counts from 0.05,
            as papers do.
        max_detections: of a detector: the best so many of an image; by default as it was trained, or 100.
        top: of a classifier: how many classes an image is given.
        overlays: drawings beside the JSON, or the JSON alone.
        crops: each object as an image of its own: what is in its box.
        cutouts: each object as a PNG of its own, transparent around its mask.
        format: what is written, one or more of "coco-results" (the default), "coco", "csv", "jsonl",
            "labelme", "parquet" and "yolo": see docs/predicting.md.
        images_a_file: of "jsonl" and "parquet".
        shard: part I of N of the images, the first is 0/N: so N calls share the work. By default as torchrun
            or srun says. In Python (I, N).
        batch_size: images at a time, where their padded sizes are the same, with `tile` tiles, with `flip`
            from 2 on an image and its mirror image: faster on a GPU, same results.
        tile: of a detector: look at larger images in squares of so many pixels as well, for small objects.
        overlap: how much of a tile's side lies in the next tile, in [0, 0.8].
        flip: of a detector: look at the mirror image of each image as well, and merge what is found.
        scales: of a detector: look at each image in several sizes, such as 0.8,1,1.25 times its own, each
            factor in [0.1, 10].
        max_pixels: images of more are not read; it is known from their headers.
        precision: of a detector's network: "bf16" and "fp16" are faster on some hardware, and a little off.
        compile: a detector on a GPU: compile it first, which takes a minute once and is kept; same results.

    Raises:
        GCNetError: nothing matches, model or weights cannot be found or read, `out` cannot be written.
    """
    check_least(1, top=top, max_pixels=max_pixels)
    formats = (format,) if isinstance(format, str) else tuple(format)
    launch = find_launch() if shard is None else None
    if shard is None:
        shard = launch[:2] if launch else (0, 1)
    wanted = Wanted(formats, overlays, crops, cutouts, images_a_file, shard)
    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    if not all(isinstance(image, str | os.PathLike) for image in given):
        raise GCNetError("predict takes files, folders and patterns; for arrays call model.predict_images")
    chosen = ModelChoice(model, weights, mirror, device, precision, compile, max_detections)
    chosen.check_batch(batch_size)
    views = Views.of(tile, overlap, flip, scales)
    chosen.check_views(views)
    check_handles()
    if out is not None:
        check_writable(Path(out))
    paths = find_images(given)
    loaded = chosen.load()

    from gcnet.prediction.files import predict_files

    return predict_files(
        loaded,
        paths,
        out,
        score_threshold=shown_from(loaded) if score_threshold is None else score_threshold,
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

    chosen = (model, weights, mirror, device, precision, False, max_detections)
    load = partial(_load_shown, chosen, score_threshold)
    return map_dataset(
        dataset, load, top=top, max_pixels=max_pixels, batch_size=batch_size, workers=workers, gpus=gpus
    )


def _load_shown(chosen: tuple[Any, ...], score_threshold: float | None) -> tuple[Any, float]:
    """A model as chosen, and the score from which on it shows what it finds; Ray pickles this by name."""
    loaded = ModelChoice(*chosen).load()
    return loaded, shown_from(loaded) if score_threshold is None else score_threshold
