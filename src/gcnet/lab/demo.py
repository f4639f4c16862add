"""The whole path in minutes: generated images, training, AP, and drawings of detections and attention.

The data set is context shapes (docs/context-shapes.md): a class depends on a lamp far away from the object,
so the table shows whether context blocks work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcnet.context import record
from gcnet.context.look import block_title
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.load import load_splits
from gcnet.engine.train import train
from gcnet.errors import GCNetError
from gcnet.evaluation.coco_ap import Metrics
from gcnet.files import check_own, prepare_folder, write_json
from gcnet.lab.attention import valid_share
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.lab.paint import HALO, Circle
from gcnet.models.detector import Detector
from gcnet.ops.decode import read_image
from gcnet.ops.images import write_image
from gcnet.types import Detections
from gcnet.viz import attention_overlay, draw_detections, draw_targets, grid
from gcnet.viz.heat import enlarged
from gcnet.weights.catalog import find_detector
from gcnet.weights.create import create_model

SHOWN = 4  # drawings in predictions.png and attention.png
SHOWN_SCORE = 0.5
ENLARGE = 2


@dataclass(frozen=True)
class Settings:
    """What a demo is made of. Written as `demo.json`, so that a run is only ever continued with the same."""

    seed: int = 0
    model: str = "mask_rcnn_tiny_gc4"
    train_pictures: int = 800
    valid_pictures: int = 50
    epochs: int = 6


@dataclass(frozen=True)
class Look:
    """What the model found in an image, and the attention of each block over the padded, resized image."""

    detections: Detections
    maps: dict[str, Tensor]


def run_demo(
    out: Path, settings: Settings = Settings(), *, compare: bool = False
) -> tuple[Metrics, Metrics | None]:
    """Draws a data set in `out`/data, trains a model on it in `out`/train, and draws what it sees.

    `predictions.png` has ground truth beside predictions, `attention.png` where the blocks look. With
    `compare`, `mask_rcnn_tiny`, which has no blocks, is trained in `out`/train-plain with the same seed and
    budget. Called again with the same arguments, an interrupted demo goes on; a finished one is scored and
    drawn anew.

    Returns:
        The scores of the model, and of the one without blocks.

    Raises:
        GCNetError: `out` cannot be written to or holds a demo of other settings; the model is unknown.
    """
    began = time.monotonic()
    find_detector(settings.model)
    _claim(out, settings)
    train_count, valid_count = settings.train_pictures, settings.valid_pictures
    write_context_shapes(out / "data", train=train_count, valid=valid_count, seed=settings.seed)
    print(f"drew {train_count} + {valid_count} images in {out / 'data'}", flush=True)
    splits = load_splits(out / "data")

    detector, weights, metrics = _train(settings, splits, out / "train")
    looks = _look(detector, splits["valid"])
    _draw(detector, splits["valid"], looks, out)
    plain = None
    if compare:
        *_, plain = _train(replace(settings, model="mask_rcnn_tiny"), splits, out / "train-plain")
    print(f"\n{settings.model}: {_scores(metrics)}")
    if plain is not None:
        whole = metrics.box["AP50"]
        ratio = f" ({plain.box['AP50'] / whole:.2f} of that)" if whole > 0 else ""
        print(f"mask_rcnn_tiny, which has no blocks: {_scores(plain, ratio)}")
    for name, (share, area) in _lamp_shares(splits["valid"], looks, detector).items():
        title = block_title(name)
        print(f"block {title}: {share:.0%} of its attention is on the lamp, {area:.0%} of the area")
    print(f"wrote {out / 'predictions.png'} (ground truth beside predictions)")
    print(f"wrote {out / 'attention.png'} (where the blocks look)")
    minutes = (time.monotonic() - began) / 60
    print(f"done in {minutes:.1f} min; next: gcnet predict {weights} {out / 'data' / 'valid'}")
    return metrics, plain


def _scores(metrics: Metrics, note: str = "") -> str:
    return f"box AP50 {metrics.box['AP50']:.3f}{note}, mask AP50 {metrics.mask['AP50']:.3f}"


def _claim(out: Path, settings: Settings) -> None:
    """Raises GCNetError unless the folder is free or holds a demo of the same settings."""
    prepare_folder(out)
    path = out / "demo.json"
    made = ("data", "train", "train-plain", "predictions.png", "attention.png")
    check_own(out, path.name, asdict(settings), *made)
    if path.exists() and json.loads(path.read_bytes()) != asdict(settings):
        raise GCNetError(
            f"{out} holds a demo of other settings (see {path}): remove it or give another --out"
        )
    write_json(path, asdict(settings))


def _train(
    settings: Settings, splits: dict[str, DataSet[ImageRecord]], folder: Path
) -> tuple[Detector, Path, Metrics]:
    """The trained model, its file, and what it scored."""
    row = find_detector(settings.model)
    # There are enough images, all of one size, so augmentation gains nothing.
    recipe = replace(
        row.recipe,
        epochs=settings.epochs,
        validate_every=settings.epochs,
        seed=settings.seed,
        scale_jitter=(1.0, 1.0),
        color_jitter=0.0,
    )
    torch.manual_seed(settings.seed)
    detector = create_model(row.name, class_names=splits["train"].class_names)
    assert isinstance(detector, Detector)
    data = {"data": str(folder.parent / "data")}
    result = train(detector, splits["train"], splits["valid"], recipe, folder, resume="auto", data=data)
    assert isinstance(result.metrics, Metrics)  # of a detector; there are always validation images
    return detector, result.best or result.last, result.metrics


def _look(detector: Detector, dataset: DataSet[ImageRecord]) -> list[Look]:
    looks = []
    with record(detector) as maps:
        for item in dataset.records:
            found = detector.predict_images([read_image(item.path)], score_threshold=SHOWN_SCORE)[0]
            looks.append(Look(found, {name: attention[0] for name, attention in maps.items()}))
    return looks


def _draw(detector: Detector, dataset: DataSet[ImageRecord], looks: Sequence[Look], out: Path) -> None:
    """Both grids of drawings."""
    shown = list(zip(dataset.records, looks, strict=True))[:SHOWN]
    names = dataset.class_names
    predictions, attention = [], []
    for item, look in shown:
        image = read_image(item.path)
        found = draw_detections(image, look.detections, names, SHOWN_SCORE, enlarge=ENLARGE)
        valid = valid_share(detector, image.shape[:2])
        predictions.append([draw_targets(image, item, names, enlarge=ENLARGE), found])
        heat = (attention_overlay(image, a, valid=valid, enlarge=ENLARGE) for a in look.maps.values())
        attention.append([found, *heat])
    # Two drawings a row: a figure as wide as a page.
    rows = [left + right for left, right in zip(predictions[::2], predictions[1::2], strict=False)]
    titles = ["ground truth", "prediction"]
    write_image(out / "predictions.png", grid(rows or predictions, titles=titles * (2 if rows else 1)))
    blocks = [f"attention of {block_title(name)}" for name in shown[0][1].maps]
    write_image(out / "attention.png", grid(attention, titles=["prediction", *blocks], cell=300))


def _lamp_shares(
    dataset: DataSet[ImageRecord], looks: Sequence[Look], detector: Detector
) -> dict[str, tuple[float, float]]:
    """For each block, averaged over the images: the lamp's share of its attention, and of the area."""
    entries: list[dict[str, Any]] = json.loads(dataset.source.read_text())["images"]
    lamps = {entry["id"]: Circle(*entry["lamp"]) for entry in entries}
    shares: dict[str, list[tuple[float, float]]] = {}
    for item, look in zip(dataset.records, looks, strict=True):
        lamp = lamps[int(item.id)]
        y, x = np.mgrid[: item.height, : item.width] + 0.5
        lit = np.hypot(x - lamp.x, y - lamp.y) < HALO * lamp.radius
        valid = valid_share(detector, lit.shape)
        for name, attention in look.maps.items():
            heat = enlarged(attention, lit.shape, valid)
            shares.setdefault(name, []).append((float(heat[lit].sum() / heat.sum()), float(lit.mean())))
    return {name: tuple(np.mean(values, 0).tolist()) for name, values in shares.items()}
