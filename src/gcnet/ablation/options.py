"""The words of `gcnet ablate`, checked before anything slow is imported.

Like those of `gcnet train`, its options are the fields of the `Recipe`; their defaults suit the data.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from gcnet.ablation.grids import GRIDS, find_grid
from gcnet.arguments import check_data, check_writable, suggest, underscored
from gcnet.engine.recipe import Recipe
from gcnet.errors import GCNetError
from gcnet.zoo.catalog import Row, find_detector

MODEL = "mask_rcnn_tiny_gc4"


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


def parse_ablate(argv: list[str]) -> Options:
    """The options. Raises GCNetError for whatever is wrong with them."""
    row = find_detector(_value_of(argv, "--model") or MODEL)
    parser = _parser(row, own_data=_value_of(argv, "--data") is not None)
    try:
        values = parser.parse_args([underscored(word) for word in argv])
    except argparse.ArgumentError as error:
        message = str(error).replace("Parser key", "option")
        raise GCNetError(f"gcnet ablate: {suggest(message, parser._option_string_actions)}") from error
    if not values.grid:
        raise GCNetError(f"gcnet ablate: which study? There are {', '.join(GRIDS)}")
    find_grid(values.grid)
    for name in ("seeds", "jobs"):
        if getattr(values, name) < 1:
            raise GCNetError(f"gcnet ablate: --{name} is {getattr(values, name)}; give 1 or more")
    data = Path(values.data) if values.data else None
    if data:
        check_data(data)
    out = Path(values.out)
    check_writable(out)
    recipe = Recipe(**{field.name: getattr(values, field.name) for field in fields(Recipe)})
    return Options(
        grid=values.grid,
        model=row.name,
        data=data,
        out=out,
        seeds=values.seeds,
        jobs=values.jobs,
        imagenet=values.weights == "imagenet",
        report=values.report,
        recipe=recipe,
    )


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


def _parser(row: Row, *, own_data: bool) -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog="gcnet ablate",
        usage="gcnet ablate STUDY [--data DIR] [--out DIR] [--seeds N] [--jobs N] [--report] [options]",
        description="Trains a model with one context block after the other, and compares them. Studies: "
        + "; ".join(f"{name}: {grid.question}" for name, grid in GRIDS.items())
        + ". A finished run is never made again: the same command goes on where it was stopped. "
        "Studies of one folder share the runs that they have in common.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("grid", nargs="?", metavar="STUDY", help=", ".join(GRIDS))
    parser.add_argument("--model", default=row.name, help=f"whose block is changed ({MODEL})")
    parser.add_argument("--data", help="a COCO-format data set (context shapes, drawn in --out)")
    parser.add_argument("--out", default=f"runs/ablate-{row.name}", help="folder for runs, tables and plots")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each cell, from --seed on")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each in a process of its own")
    parser.add_argument("--report", action="store_true", help="only make table and plot of what is there")
    weights = "imagenet" if row.spec.backbone.frozen_stages else "none"
    parser.add_argument("--weights", type=Literal["none", "imagenet"], default=weights, help="of backbones")
    parser.add_class_arguments(Recipe, nested_key=None)
    recipe = replace(row.recipe, devices=1) if own_data else context_shapes_recipe(row)
    parser.set_defaults(asdict(recipe))
    return parser


def _value_of(argv: list[str], option: str) -> str | None:
    """What stands after an option: the defaults of the others depend on it."""
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else following
    return None
