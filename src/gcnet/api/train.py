"""`gcnet.train`: reads the data, makes the model to start from, and calls the training loop."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gcnet.api.choices import find_data_set, held_split
from gcnet.console import check_names, listed
from gcnet.context_spec import parse_context
from gcnet.device import keep_freed_memory
from gcnet.errors import GCNetError
from gcnet.files import AnyPath, check_handles, check_unused, check_writable, goes_on, several
from gcnet.models.spec import ClassifierSpec, ModelSpec
from gcnet.recipe import ClassificationRecipe, Recipe
from gcnet.weights.catalog import find
from gcnet.weights.start import find_start

if TYPE_CHECKING:
    from gcnet.api.choices import AnyModel
    from gcnet.data.dataset import DataSet
    from gcnet.engine.task import Task
    from gcnet.engine.train import TrainResult

log = logging.getLogger(__name__)


def train(
    model: "AnyModel",
    data: "AnyPath | Mapping[str, DataSet[Any]] | DataSet[Any] | None" = None,
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
) -> "TrainResult":
    """Trains a model, and writes all results to the folder `out`: `gcnet train`.

    Args:
        model: a name that `gcnet models` lists, or a model to start from: a model file, a run folder, a
            checkpoint such as an mmdetection .pth, or OWNER/NAME on the Hugging Face hub. In Python also a
            model in memory that has the data's classes; it is trained in place.
        data: a data set or its annotation file; for a classifier, a folder with train/CLASS/ and val/CLASS/.
            In Python also a dict of splits ("train" and perhaps "valid"), or one split, to train on without
            validation.
        out: a folder for checkpoints, logs and curves: see `gcnet.engine.train.train`.
        annotations: an annotation file, in place of `data`; with `images`.
        images: the folder of the images, if it cannot be found from the annotations.
        resume: go on from the last checkpoint in `out`. "auto" begins a new run if there is none.
        weights: for a model that is given by name, the weights to start from: "coco" (the published ones),
            "imagenet" (the backbone alone), "none" (random numbers), our .safetensors, a run folder or an
            mmdetection .pth. "auto" takes coco, else imagenet, and none for a tiny model.
        mirror: as `gcnet.predict` takes it.
        class_names: the classes that you expect; training fails if the data has others.
        backbone_weights: for a model that is given by name, in place of `weights`: a ResNet's file, from
            torchvision, timm, mmpretrain, MoCo, DINO, transformers or mmdetection. All else starts random.
        add_context: context blocks for a model that has none: gc, snl, nl or ga. They change nothing until
            they are trained.
        ratio: bottleneck ratio of the added blocks, such as 1/4.
        stages: the stages whose residual blocks get a context block, such as c3-c5 or c4.
        remove_context: remove the model's context blocks.
        recipe: fields of `gcnet.Recipe`, for a classifier of `gcnet.ClassificationRecipe`, such as
            `epochs=12`. All others are as in the model's own recipe.

    Returns:
        The paths of the saved models, and the metrics of the last validation.

    Raises:
        GCNetError: a field is unknown or out of range, data or weights cannot be found or read, `out` cannot
            be written to or holds another run, or the training failed.
    """
    began = time.monotonic()
    check_handles()
    place = find_data_set(data, annotations, images)
    check_writable(Path(out))
    resume = goes_on(Path(out), resume)
    if not resume:
        check_unused(Path(out))
    context = parse_context(add_context, ratio, stages)
    weights, backbone = (None, None) if resume else (weights, backbone_weights)  # they are in its checkpoint
    origin = find_start(model, weights, mirror, backbone, context, remove_context=remove_context)
    spec = origin.held.spec
    own, few_images = _own_recipe(spec)
    settings = check_recipe(own, recipe)
    import torch

    from gcnet.engine.processes import find_place as find_process
    from gcnet.engine.task import task_of
    from gcnet.engine.train import train as run
    from gcnet.evaluation.evaluate import check_classes
    from gcnet.weights.create import start_model

    task, process = task_of(spec), find_process(settings)
    splits = _splits(task, place or data, class_names, settings, leads=process.leads)
    changes = []
    if not few_images:
        settings, changes = _suit(task, settings, splits["train"], recipe, devices=process.world)
    if process.device.type == "cpu":
        keep_freed_memory()
    classes = splits["train"].class_names
    if origin.held is model:
        check_classes(spec.class_names, classes)
    else:
        torch.manual_seed(settings.seed)
    start = start_model(origin, classes)
    if process.leads and not resume:
        print("\n".join([*start.report, *changes]), flush=True)
    words = {"data": data, "annotations": annotations, "images": images, "backbone_weights": backbone_weights}
    words |= {"model": origin.file or spec.name, "add_context": add_context}
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


def _own_recipe(spec: ModelSpec | ClassifierSpec) -> tuple[Recipe, bool]:
    """The recipe of a model's row, and whether it was made for small data sets, as no published row's is."""
    try:
        row = find(spec.name)
    except GCNetError:
        return (ClassificationRecipe(), True) if isinstance(spec, ClassifierSpec) else (Recipe(), False)
    return row.recipe, row.weights is None


def check_recipe(own: Recipe, given: Mapping[str, Any]) -> Recipe:
    """`own` with the given fields. Raises GCNetError if one is unknown or cannot be."""
    check_names(given, [field.name for field in fields(own)], "the recipe")
    words = {name: os.fspath(value) for name, value in given.items() if isinstance(value, os.PathLike)}
    return replace(own, **{**given, **words})


def _splits(
    task: "Task", data: Any, class_names: Sequence[str] | None, recipe: Recipe, *, leads: bool
) -> "Mapping[str, DataSet[Any]]":
    """Reads the splits and checks their images. Raises GCNetError if "train" or a class is missing."""
    from gcnet.data.check import check_images

    if isinstance(data, tuple):
        root, images = data
        splits = task.load_splits(root, images, recipe)
        if "valid" not in splits and leads:
            log.warning("%s has no validation split: the training is not scored", root)
    else:
        root, splits = "the data", data if isinstance(data, Mapping) else {"train": held_split(data, "train")}
    if "train" not in splits:
        raise GCNetError(f"{root} has no training split, only {', '.join(splits)}; see docs/your-data.md")
    names = splits["train"].class_names
    if class_names and several(class_names) != tuple(names):
        raise GCNetError(f"class_names are not those of {splits['train'].source}: {listed(names)}")
    skip, most = recipe.skip_bad_images, recipe.max_pixels
    return check_images(splits, skip=skip, max_pixels=most, progress=leads)


def _suit(
    task: "Task", recipe: Recipe, train_set: "DataSet[Any]", given: Mapping[str, Any], *, devices: int
) -> tuple[Recipe, list[str]]:
    """The recipe adapted to the number of training images, and a line that says what was changed."""
    from gcnet.data.loader import epoch_size
    from gcnet.engine.schedule import describe_changes, for_few_images

    images = epoch_size(train_set, recipe, masks=task.masks)
    suited = for_few_images(recipe, images, given, devices=devices)
    line = describe_changes(recipe, suited, images)
    return suited, [line] if line else []
