"""What COCO's schedule becomes for a small data set, where nobody says otherwise.

The 1x schedule counts on 90,000 iterations. On a hundred pictures its 12 epochs of 16 would be some eighty
iterations, all of them warm-up.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from gcnet.recipe import Recipe

SHORT = 1500  # iterations: three warm-ups of the 1x schedule. Longer runs are left alone.
ENOUGH = 1000
SMALL_BATCH = 4  # a picture more or less matters little, and it fits into the memory of most GPUs
VALIDATIONS = 12  # as many as the 1x schedule has


def for_few_pictures(recipe: Recipe, pictures: int, given: Collection[str], *, devices: int = 1) -> Recipe:
    """`recipe` with smaller batches, more epochs and less warm-up where it would be over at once.

    Only runs of fewer than `SHORT` iterations change: batches of 4 at a rate in proportion (0.005 of the 1x
    schedule), epochs for at least `ENOUGH` iterations, a warm-up of at most a tenth of them, at most 12
    validations. These are customary figures for fine-tuning, not measured optima.

    Args:
        given: names of fields that the user chose; they stay.
        devices: that share a batch.
    """
    if recipe.epochs * _per_epoch(pictures, recipe.batch_size) >= SHORT:
        return recipe
    batch_size = min(recipe.batch_size, max(SMALL_BATCH, devices))
    if "batch_size" in given:
        batch_size = recipe.batch_size
    per_epoch = _per_epoch(pictures, batch_size)
    epochs = recipe.epochs if "epochs" in given else max(recipe.epochs, -(-ENOUGH // per_epoch))
    changes = {
        "batch_size": batch_size,
        "epochs": epochs,
        "warmup_iterations": min(recipe.warmup_iterations, epochs * per_epoch // 10),
        "validate_every": max(recipe.validate_every, -(-epochs // VALIDATIONS)),
    }
    return replace(recipe, **{name: value for name, value in changes.items() if name not in given})


def describe_changes(before: Recipe, after: Recipe, pictures: int) -> str | None:
    """One line on what `for_few_pictures` changed, or None."""
    names = ("batch_size", "epochs", "warmup_iterations", "validate_every")
    changed = [f"{n} {getattr(after, n)}" for n in names if getattr(after, n) != getattr(before, n)]
    if not changed:
        return None
    return (
        f"schedule: {pictures} pictures are few, so {', '.join(changed)} (rate {after.scaled_lr():g}); "
        "options of these names overrule"
    )


def _per_epoch(pictures: int, batch_size: int) -> int:
    return max(1, -(-pictures // batch_size))
