"""`gcnet compare`: two detectors on one data set, and how sure it is that they differ."""

from __future__ import annotations

from pathlib import Path

from gcnet.commands.arguments import MODEL_HELP, Parser, add_device, add_mirror
from gcnet.commands.evaluate import add_data, add_scoring
from gcnet.errors import GCNetError


def run(argv: list[str]) -> int:
    """Compares, prints the verdict, and says where the page is."""
    options = _parser().parse(argv)
    if options.data is None and options.annotations is None:
        raise GCNetError("gcnet compare: on which images? add --data DIR (see docs/your-data.md)")

    from gcnet.api import compare

    report = compare(**vars(options))
    print(f"A: {options.model}\nB: {options.other}\n{report['verdict']}")
    print(f"open {options.out / 'compare.html'}, or read compare.json beside it")
    return 0


def _parser() -> Parser:
    parser = Parser(
        "compare",
        "Two detectors on one split of a data set: by how much the second is better, how sure that is, and "
        "where. "
        "`gcnet ablate context --data DIR` trains a model with its block and without, and compares those.",
    )
    parser.add_argument("model", metavar="A", help=MODEL_HELP)
    parser.add_argument("other", metavar="B", help="another")
    add_mirror(parser)
    add_device(parser)
    add_data(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/compare"), metavar="DIR", help="for the page (runs/compare)"
    )
    add_scoring(parser)
    return parser
