"""`gcnet ablate`: the paper's studies, trained and tabulated.

Like those of `gcnet train`, its options are the fields of the `Recipe`; their defaults suit the data.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from gcnet.commands.arguments import add_recipe, make_parser, parse_words, recipe_of
from gcnet.errors import GCNetError
from gcnet.files import check_data, check_writable
from gcnet.lab.study import GRIDS, Study, context_shapes_recipe, find_grid
from gcnet.recipe import Recipe
from gcnet.weights.catalog import Row, find_detector

MODEL = "mask_rcnn_tiny_gc4"


def run(argv: list[str]) -> int:
    """Makes what runs of a study are missing, then its table and plot."""
    study = parse_ablate(argv)

    from gcnet.lab.ablate import ablate

    ablate(study)
    return 0


def parse_ablate(argv: list[str]) -> Study:
    """The study that is asked for. Raises GCNetError for whatever is wrong with them."""
    row = find_detector(_value_of(argv, "--model") or MODEL)
    values = parse_words(_parser(row, own_data=_value_of(argv, "--data") is not None), argv)
    if not values.grid:
        raise GCNetError(f"gcnet ablate: which study? There are {', '.join(GRIDS)}")
    find_grid(values.grid)
    for name in ("seeds", "jobs"):
        if getattr(values, name) < 1:
            raise GCNetError(f"gcnet ablate: --{name} is {getattr(values, name)}; give 1 or more")
    data = Path(values.data) if values.data else None
    if data:
        check_data(data)
    check_writable(Path(values.out))
    return Study(
        grid=values.grid,
        out=Path(values.out),
        model=row.name,
        recipe=recipe_of(Recipe, values),
        data=data,
        imagenet=values.weights == "imagenet",
        seeds=values.seeds,
        jobs=values.jobs,
        report_only=values.report,
    )


def _parser(row: Row, *, own_data: bool) -> Any:
    parser = make_parser(
        "ablate",
        usage="gcnet ablate STUDY [--data DIR] [--out DIR] [--seeds N] [--jobs N] [--report] [options]",
        description="Trains a model with one context block after the other, and compares them. Studies: "
        + "; ".join(f"{name}: {grid.question}" for name, grid in GRIDS.items())
        + ". A finished run is never made again: the same command goes on where it was stopped. "
        "Studies of one folder share the runs that they have in common.",
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
    add_recipe(parser, replace(row.recipe, devices=1) if own_data else context_shapes_recipe(row))
    return parser


def _value_of(argv: list[str], option: str) -> str | None:
    """The value of an option, needed before parsing: the defaults of other options depend on it."""
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else following
    return None
