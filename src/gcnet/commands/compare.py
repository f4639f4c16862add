"""`gcnet compare` scores two detectors or two classifiers on one split of a data set.

It says how much better the second is, with confidence intervals, and on which images they differ.
`gcnet ablate context --data DIR` trains a model with its block and without, and compares the two.
"""

from __future__ import annotations

from pathlib import Path

from gcnet.api.evaluate import ALONE, compare, evaluate
from gcnet.commands.arguments import Parser


def run(argv: list[str]) -> int:
    """Compares, prints the verdict, and says where the page is."""
    options = _parser().parse(argv)
    report = compare(**vars(options))
    print(f"A: {options.model}\nB: {options.other}\n{report['verdict']}")
    print(f"open {Path(options.out) / 'compare.html'}, or read compare.json beside it")
    return 0


def _parser() -> Parser:
    parser = Parser("compare", "A B --data DATA [--out DIR]", __doc__)
    parser.add_options(
        compare, defaults={"out": "runs/compare"}, model={"metavar": "A"}, other={"metavar": "B"}
    )
    parser.add_options(evaluate, but=("progress", *ALONE))
    return parser
