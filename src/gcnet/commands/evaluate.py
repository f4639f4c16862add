"""`gcnet eval`: the scores of a model on one split of a data set."""

from __future__ import annotations

from pathlib import Path

from gcnet.commands.arguments import (
    ANNOTATIONS_HELP,
    IMAGES_HELP,
    Parser,
    add_compile,
    add_division,
    add_max_detections,
    add_max_pixels,
    add_model,
    add_precision,
    add_split,
    add_tiles,
    at_least,
)
from gcnet.errors import GCNetError


def run(argv: list[str]) -> int:
    """Scores a detector or a classifier, prints the table, writes results and metrics."""
    options = _parser().parse(argv)
    if options.data is None and options.annotations is None:
        raise GCNetError("gcnet eval: which images? add --data DIR (see docs/your-data.md)")
    options.out = options.out or Path("runs") / f"eval-{Path(options.model).stem}-{options.split}"

    from gcnet.api import evaluate

    metrics, _ = evaluate(**vars(options))

    from gcnet.evaluation.classify import ClassMetrics, print_class_metrics
    from gcnet.evaluation.table import print_metrics

    if isinstance(metrics, ClassMetrics):
        print_class_metrics(metrics)
    else:
        print_metrics(metrics)
    print(f"wrote {options.out / 'results.json'} and {options.out / 'metrics.json'}")
    if options.report:
        print(f"open {options.report / 'report.html'}, or read report.json beside it")
    if options.keep_threshold:
        print(f"{options.model} now says from which score on `gcnet predict` shows what it finds")
    return 0


def _parser() -> Parser:
    parser = Parser("eval", "COCO box and mask AP of a model, or accuracy of a classifier, on one split.")
    add_model(parser)
    add_data(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="for results.json and metrics.json")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write a page there: how good it is, and where it fails"
    )
    parser.add_argument(
        "--keep-threshold",
        action="store_true",
        help="write the score of the best F1 into the model's file, for `gcnet predict`",
    )
    add_scoring(parser)
    return parser


def add_data(parser: Parser) -> None:
    """Which images are evaluated on."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="a data set, or its annotation file, or train/CLASS/, val/CLASS/",
    )
    parser.add_argument("--annotations", type=Path, metavar="FILE", help=ANNOTATIONS_HELP)
    parser.add_argument("--images", type=Path, metavar="DIR", help=IMAGES_HELP)
    add_split(parser)
    add_division(parser)
    parser.add_switch("--skip-bad-images", "leave out images that are broken or of a wrong size")
    add_max_pixels(parser)


def add_scoring(parser: Parser) -> None:
    """How models are evaluated."""
    parser.add_argument("--batch-size", type=at_least(1), default=1, help="images at a time (1)")
    parser.add_argument("--workers", type=at_least(0), default=2, help="processes that read images (2)")
    add_tiles(parser)
    add_max_detections(parser)
    add_precision(parser)
    add_compile(parser)
