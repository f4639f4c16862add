"""`gcnet ablate` trains a model with several context blocks in turn, and compares them.

Finished runs are never repeated: after an interruption the same command continues. Studies in one folder
share the runs that they have in common. Other options are those of `gcnet train`, the fields of the `Recipe`;
their defaults depend on the data.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Literal

from gcnet.commands.arguments import Parser, number
from gcnet.errors import GCNetError
from gcnet.files import check_data, check_writable
from gcnet.lab.study import GRIDS, Study, context_shapes_recipe, find_grid
from gcnet.recipe import Recipe
from gcnet.weights.catalog import Row, find_detector

MODEL = "mask_rcnn_tiny_gc4"


def run(argv: list[str]) -> int:
    """Trains the missing runs of a study, then writes its table and plot."""
    study = parse_ablate(argv)

    from gcnet.lab.ablate import ablate

    ablate(study)
    return 0


def parse_ablate(argv: list[str]) -> Study:
    """The study that the arguments describe. Raises GCNetError if one of them is wrong."""
    options = _parser().parse(argv)
    row = find_detector(options.model)
    if not options.grid:
        raise GCNetError(f"gcnet ablate: which study? There are {', '.join(GRIDS)}")
    find_grid(options.grid)
    if options.data:
        check_data(options.data)
    own = replace(row.recipe, devices=1) if options.data else context_shapes_recipe(row)
    out = options.out or Path("runs") / f"ablate-{row.name}"
    return replace(study_of(options, row, own, out), grid=options.grid, report_only=options.report)


def study_of(options: Namespace, row: Row, own: Recipe, out: Path) -> Study:
    """The study from options of `add_study`; its recipe is `own` with the given fields."""
    check_writable(out)
    given = {name: value for name, value in vars(options).items() if name in vars(own)}
    weights = options.weights or ("imagenet" if row.spec.backbone.frozen_stages else "none")
    recipe, imagenet = replace(own, **given), weights == "imagenet"
    return Study(out, row.name, recipe, options.data, imagenet, options.seeds, options.jobs)


def _parser() -> Parser:
    studies = "; ".join(f"{name}: {grid.question}" for name, grid in GRIDS.items())
    usage = "STUDY [--data DIR] [--out DIR] [--seeds N] [--jobs N] [--report]"
    parser = Parser("ablate", usage, f"{__doc__ or ''} Studies: {studies}.")
    parser.add_argument("grid", nargs="?", metavar="STUDY", help=", ".join(GRIDS))
    parser.add_option("--report", bool, "train nothing: write table and plot of the finished runs", False)
    data = "a data set with images to train and to validate on (context shapes, drawn in --out)"
    add_study(parser, context_shapes_recipe(find_detector(MODEL)), data)
    return parser


def add_study(parser: Parser, recipe: Recipe, data: str) -> None:
    """Adds the options of studies: which runs are trained, and their recipe."""
    parser.add_option("--data", Path, data)
    out = f"a folder for runs, tables and plots (runs/{parser.prog.split()[-1]}-MODEL)"
    parser.add_option("--out", Path, out)
    parser.add_option("--model", str, "a detector that `gcnet models` lists", MODEL)
    whole = {"kind": number(int, 1)}
    parser.add_options(Study, ("seeds", "jobs"), seeds=whole, jobs=whole)
    weights = "weights of the backbone (imagenet for models whose first stages are frozen, else none)"
    parser.add_option("--weights", Literal["none", "imagenet"], weights)
    parser.add_options(type(recipe), defaults=vars(recipe), given_alone=True)
