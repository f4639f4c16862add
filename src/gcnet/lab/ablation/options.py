"""What a study is asked for. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gcnet.recipe import Recipe
from gcnet.weights.catalog import Row


@dataclass(frozen=True)
class Options:
    """What was asked for. Without `data` the context shapes are drawn."""

    grid: str
    model: str
    data: Path | None
    out: Path
    seeds: int
    jobs: int
    imagenet: bool
    report: bool
    recipe: Recipe


def context_shapes_recipe(row: Row) -> Recipe:
    """The row's recipe, cut down to what finds the lamp of the context shapes: docs/ablations.md has figures.

    The pictures are endless and all of one size: there is nothing to make them go further for.
    """
    return replace(
        row.recipe,
        epochs=2,
        batch_size=4,
        lr_batch_size=4,
        image_size=(128, 128),
        scale_jitter=(1.0, 1.0),
        color_jitter=0.0,
        devices=1,
        workers=0,
    )
