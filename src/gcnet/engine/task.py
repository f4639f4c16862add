"""The differences between training a detector and a classifier: data and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gcnet.data import image_folder
from gcnet.data.dataset import DataSet
from gcnet.data.load import load_split, load_splits
from gcnet.evaluation.coco_ap import Metrics
from gcnet.models.spec import ClassifierSpec, ModelSpec
from gcnet.recipe import Recipe


@dataclass(frozen=True)
class Task:
    """The functions for a kind of model that the engine and the commands need.

    Attributes:
        load_splits: (folder or annotation file, folder of the images or none, recipe) to all splits by name:
            "train", "valid", "test".
        load_split: one of them, by its name, with the classes of a trained model.
        masks: whether a detector learns outlines.
        optimized: the model, or a copy of it that predicts the same faster.
        scores: the numbers of metrics that a run logs, by name; they are `score_names`, in [0, 1].
        best_by: the score by which the best model is chosen.
        recorded: the scores that are written into its file.
    """

    load_splits: Callable[[Path, Path | None, Recipe], dict[str, Any]]
    load_split: Callable[..., Any]
    optimized: Callable[[Any], Any]
    scores: Callable[[Any], dict[str, float]]
    score_names: tuple[str, ...]
    best_by: str
    recorded: tuple[str, ...]
    masks: bool = True


def task_of(spec: ModelSpec | ClassifierSpec, valid_set: DataSet[Any] | None = None) -> Task:
    """The task of a model of `spec`; boxes say what is best where no object of `valid_set` has an outline."""
    if isinstance(spec, ClassifierSpec):
        return CLASSIFICATION
    if not spec.roi.masks:
        return BOX_DETECTION
    outlined = valid_set is None or any(record.objects(masks=True) for record in valid_set.records)
    return DETECTION if outlined else replace(DETECTION, best_by=BOX_DETECTION.best_by)


AP_NAMES = tuple(f"{kind}_{name}" for kind in ("box", "mask") for name in ("AP", "AP50", "AP75"))


def _detection_scores(metrics: Metrics) -> dict[str, float]:
    flat = {f"box_{name}": value for name, value in metrics.box.items()}
    flat |= {f"mask_{name}": value for name, value in metrics.mask.items()}
    return {name: flat[name] for name in AP_NAMES if name in flat}


DETECTION = Task(
    load_splits=lambda root, images, recipe: load_splits(root, images=images, **recipe.division()),
    load_split=lambda root, images, split, names, **division: load_split(
        root, split, names, images=images, **division
    ),
    optimized=lambda detector: detector.optimize(),
    scores=_detection_scores,
    score_names=AP_NAMES,
    best_by="mask_AP",
    recorded=("mask_AP", "box_AP"),
)

BOX_DETECTION = replace(
    DETECTION,
    masks=False,
    score_names=AP_NAMES[:3],
    best_by="box_AP",
    recorded=("box_AP",),
)


CLASSIFICATION = Task(
    load_splits=lambda root, _, recipe: image_folder.load_image_folders(root, split_file=recipe.split_file),
    load_split=lambda root, _, split, names, *, split_file="", **__: image_folder.load_image_folder(
        root, split, names, split_file=split_file
    ),
    optimized=lambda classifier: classifier,
    scores=lambda metrics: {"top1": metrics.top1, "top5": metrics.top5},
    score_names=("top1", "top5"),
    best_by="top1",
    recorded=("top1", "top5"),
)
