"""`gcnet curve`: what more images would give, from trainings on parts of those that there are.

Like those of `gcnet train`, its options are the fields of the `Recipe`; their defaults are the model's own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gcnet.commands.ablate import MODEL
from gcnet.commands.arguments import Parser, at_least
from gcnet.errors import GCNetError
from gcnet.files import check_data, check_writable
from gcnet.weights.catalog import find_detector


def run(argv: list[str]) -> int:
    """Makes the runs that are missing, then the curve."""
    options = _parser().parse(argv)
    row = find_detector(options.model)
    if options.data is None:
        raise GCNetError("gcnet curve: which images? add --data DIR (see docs/your-data.md)")
    check_data(options.data)
    own = replace(row.recipe, devices=1)
    given = {name: value for name, value in vars(options).items() if name in vars(own)}
    out = options.out or Path("runs") / f"curve-{row.name}"
    check_writable(out)
    weights = options.weights or ("imagenet" if row.spec.backbone.frozen_stages else "none")

    from gcnet.lab.curve import CurveStudy, draw_curve

    study = CurveStudy(out, row.spec, replace(own, **given), options.data, weights == "imagenet")
    draw_curve(replace(study, seeds=options.seeds, jobs=options.jobs))
    return 0


def _parser() -> Parser:
    parser = Parser(
        "curve",
        "--data DIR [--model NAME] [--out DIR] [--seeds N] [--jobs N]",
        "Trains a model on 25, 50 and 100 percent of the images, as many iterations each, and says what "
        "twice as many images would give. A finished run is never made again: the same command goes on where "
        "it was stopped.",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a data set with images to train and to validate on"
    )
    parser.add_argument("--model", default=MODEL, metavar="NAME", help=f"of the catalog ({MODEL})")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for runs, curve.json and curve.png (runs/curve-NAME)"
    )
    parser.add_argument(
        "--seeds", type=at_least(1), default=3, metavar="N", help="runs of each size, from --seed on (3)"
    )
    parser.add_argument(
        "--jobs", type=at_least(1), default=1, metavar="N", help="runs at a time, a process each (1)"
    )
    weights = "of backbones (imagenet for models whose first stages are frozen, else none)"
    parser.add_argument("--weights", choices=["none", "imagenet"], help=weights)
    recipe = find_detector(MODEL).recipe
    parser.add_options(type(recipe), defaults=vars(recipe), given_alone=True)
    return parser
