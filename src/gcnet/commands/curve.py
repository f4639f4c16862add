"""`gcnet curve` trains a model on parts of the images, and says what twice as many images would give.

The parts are 25, 50 and 100 percent, with as many iterations for each. Finished runs are never repeated:
after an interruption the same command continues. Other options are those of `gcnet train`, the fields of the
`Recipe`; their defaults are the model's own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gcnet.commands.ablate import MODEL, add_study, study_of
from gcnet.commands.arguments import Parser
from gcnet.errors import GCNetError
from gcnet.files import check_data
from gcnet.weights.catalog import find_detector


def run(argv: list[str]) -> int:
    """Trains the missing runs, then writes the curve."""
    options = _parser().parse(argv)
    row = find_detector(options.model)
    if options.data is None:
        raise GCNetError("gcnet curve: which images? add --data DIR (see docs/your-data.md)")
    check_data(options.data)
    out = options.out or Path("runs") / f"curve-{row.name}"
    study = study_of(options, row, replace(row.recipe, devices=1), out)

    from gcnet.lab.curve import draw_curve

    draw_curve(study)
    return 0


def _parser() -> Parser:
    parser = Parser("curve", "--data DIR [--model NAME] [--out DIR] [--seeds N] [--jobs N]", __doc__)
    add_study(parser, find_detector(MODEL).recipe, "a data set with images to train and to validate on")
    return parser
