"""The batch size "auto": the largest power of two whose step fits into the memory of a GPU.

Steps with growing batches are tried, and their effects undone. On a CPU, where larger batches are not faster,
the batch is small.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from gcnet.data.dataset import DataSet
from gcnet.data.loader import epoch_size, iterations_per_epoch
from gcnet.engine.processes import Place, agree
from gcnet.engine.run import Run, take_step, taken_back
from gcnet.engine.schedule import ENOUGH, SMALL_BATCH, make_optimizer
from gcnet.engine.stop import Stop, end_by
from gcnet.errors import GCNetError
from gcnet.ops.images import fit_size, padded_size
from gcnet.recipe import ClassificationRecipe, Recipe
from gcnet.types import Batch

USED = 0.9  # of the memory that is free; other batches have more objects, other processes come and go
STEPS = 2  # of a trial: the first makes the moments of the optimizer


def smallest(place: Place, recipe: Recipe) -> int:
    """The smallest batch size that can be divided over processes and parts."""
    return place.world * recipe.accumulate


def settle_batch_size(run: Run, losses_of: nn.Module, train_set: DataSet, stop: Stop) -> None:
    """Finds the batch size for "auto", and puts it into the run's recipe, with its warm-up.

    It leaves the run `ENOUGH` iterations, if a small one does. The first process decides.

    Raises:
        GCNetError: the memory has no room for the smallest one, or an image cannot be read.
    """
    recipe, place = run.recipe, run.place
    unit = smallest(place, recipe)
    small = unit * -(-SMALL_BATCH // unit)
    images = recipe.epochs * epoch_size(train_set, recipe, masks=run.task.masks)
    most, size, why = max(small, images // ENOUGH), small, "on a CPU larger ones are not faster"
    if place.leads and _is_gpu(place):

        def fits(size: int) -> bool:
            return _fits(run, losses_of, train_set, size // place.world, stop)

        size = largest(fits, unit, most)
        why = f"the largest that fits into the memory, and leaves {ENOUGH} iterations"
    size = agree(place, size)
    recipe = replace(recipe, batch_size=size)
    run.per_epoch = iterations_per_epoch(train_set, recipe, masks=run.task.masks)
    tenth = recipe.epochs * run.per_epoch // 10
    run.recipe = replace(recipe, warmup_iterations=min(recipe.warmup_iterations, tenth))
    run.optimizer = make_optimizer(run.model, run.recipe)
    if place.leads:
        print(f"batch size: {size}, {why}; rate {run.recipe.scaled_lr():g}", flush=True)


def _is_gpu(place: Place) -> bool:
    return place.device.type == "cuda"


def largest(fits: Callable[[int], bool], unit: int, most: int) -> int:
    """The largest of unit, 2 unit, 4 unit, ... that fits and is at most `most`.

    Raises GCNetError if not even the first one fits.
    """
    if not fits(unit):
        raise GCNetError(
            f"not even {unit} image{'s' if unit > 1 else ''} a step fit into the memory; "
            "give a smaller --image-size, or --recompute-activations"
        )
    size = unit
    while 2 * size <= most and fits(2 * size):
        size *= 2
    return size


def _fits(run: Run, losses_of: nn.Module, train_set: DataSet, share: int, stop: Stop) -> bool:
    """Whether one process's `share` of a batch fits, with images of the largest shape."""
    recipe, device = replace(run.recipe, batch_size=share, workers=0), run.place.device
    alone = replace(run, recipe=recipe, place=replace(run.place, world=1, rank=0))
    images, targets = next(iter(alone.loader(train_set, recipe, 0)))
    if not isinstance(recipe, ClassificationRecipe):
        images = _padded(images, _largest_shape(train_set, recipe, run.model.spec.image_size))
    torch.cuda.reset_peak_memory_stats(device)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        with taken_back(alone):
            for _ in range(STEPS):
                if signal := take_step(alone, losses_of, images, targets, stop)[2]:
                    end_by(signal)
        return torch.cuda.max_memory_allocated(device) <= USED * free
    except torch.OutOfMemoryError:
        return False
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def _largest_shape(train_set: DataSet, recipe: Recipe, image_size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) to which a batch with the tallest and the widest image is padded."""
    long, short = (round(side * recipe.scale_jitter[1]) for side in image_size)
    sizes = [fit_size((record.height, record.width), (long, short)) for record in train_set.records]
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    if recipe.quarter_turns or recipe.rotation:
        height = width = max(height, width)
    return padded_size((height, width))


def _padded(images: Batch, shape: tuple[int, int]) -> Batch:
    """The batch, padded to at least a (height, width)."""
    missing = [max(0, side - had) for side, had in zip(shape, images.images.shape[2:], strict=True)]
    return replace(images, images=F.pad(images.images, (0, missing[1], 0, missing[0])))
