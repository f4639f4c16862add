"""`gcnet ablate`: the paper's studies, trained and tabulated.

Like those of `gcnet train`, its options are the fields of the `Recipe`; their defaults suit the data.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gcnet.commands.arguments import Parser, at_least
from gcnet.errors import GCNetError
from gcnet.files import check_data, check_writable
from gcnet.lab.study import GRIDS, Study, context_shapes_recipe, find_grid
from gcnet.weights.catalog import find_detector

MODEL = "mask_rcnn_tiny_gc4"


def run(argv: list[str]) -> int:
    """Makes what runs of a study are missing, then its table and plot."""
    study = parse_ablate(argv)

    from gcnet.lab.ablate import ablate

    ablate(study)
    return 0


def parse_ablate(argv: list[str]) -> Study:
    """The study that is asked for. Raises GCNetError for whatever is wrong with them."""
    options = _parser().parse(argv)
    row = find_detector(options.model)
    if not options.grid:
        raise GCNetError(f"gcnet ablate: which study? There are {', '.join(GRIDS)}")
    find_grid(options.grid)
    if options.data:
        check_data(options.data)
    own = replace(row.recipe, devices=1) if options.data else context_shapes_recipe(row)
    given = {name: value for name, value in vars(options).items() if name in vars(own)}
    out = options.out or Path("runs") / f"ablate-{row.name}"
    check_writable(out)
    weights = options.weights or ("imagenet" if row.spec.backbone.frozen_stages else "none")
    return Study(
        grid=options.grid,
        out=out,
        model=row.name,
        recipe=replace(own, **given),
        data=options.data,
        imagenet=weights == "imagenet",
        seeds=options.seeds,
        jobs=options.jobs,
        report_only=options.report,
    )


def _parser() -> Parser:
    parser = Parser(
        "ablate",
        "STUDY [--data DIR] [--out DIR] [--seeds N] [--jobs N] [--report]",
        "Trains a model with one context block after the other, and compares them. Studies: "
        + "; ".join(f"{name}: {grid.question}" for name, grid in GRIDS.items())
        + ". A finished run is never made again: the same command goes on where it was stopped. "
        "Studies of one folder share the runs that they have in common.",
    )
    parser.add_argument("grid", nargs="?", metavar="STUDY", help=", ".join(GRIDS))
    parser.add_argument("--model", default=MODEL, metavar="NAME", help=f"whose block is changed ({MODEL})")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a COCO-format data set (context shapes, drawn in --out)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="for tables and plots (runs/ablate-NAME)")
    parser.add_argument(
        "--seeds", type=at_least(1), default=3, metavar="N", help="runs of each cell, from --seed on (3)"
    )
    parser.add_argument(
        "--jobs", type=at_least(1), default=1, metavar="N", help="runs at a time, a process each (1)"
    )
    parser.add_argument("--report", action="store_true", help="only make table and plot of what is there")
    weights = "of backbones (imagenet for models whose first stages are frozen, else none)"
    parser.add_argument("--weights", choices=["none", "imagenet"], help=weights)
    recipe = context_shapes_recipe(find_detector(MODEL))
    parser.add_options(type(recipe), defaults=vars(recipe), given_alone=True)
    return parser
