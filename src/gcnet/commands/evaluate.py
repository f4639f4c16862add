"""`gcnet eval` scores a model on a split of a data set: COCO box and mask AP, or accuracy of a classifier."""

from __future__ import annotations

from pathlib import Path

from gcnet.api.evaluate import evaluate
from gcnet.commands.arguments import Parser


def run(argv: list[str]) -> int:
    """Scores a detector or a classifier, prints the table, writes results and metrics."""
    options = _parser().parse(argv)
    out = Path(options.out or f"runs/eval-{Path(options.model).stem}-{options.split}")
    options.out = out
    metrics, _ = evaluate(**vars(options))

    from gcnet.evaluation.table import print_metrics

    print_metrics(metrics)
    print(f"wrote {out / 'results.json'} and {out / 'metrics.json'}")
    if options.report:
        print(f"open {Path(options.report) / 'report.html'}, or read report.json beside it")
    if options.keep_threshold:
        print(f"{options.model} now says from which score on `gcnet predict` shows what it finds")
    return 0


def _parser() -> Parser:
    parser = Parser("eval", "MODEL --data DATA [--report DIR]", __doc__)
    out = "for results.json and metrics.json (runs/eval-MODEL-SPLIT)"
    parser.add_options(evaluate, but=("score_threshold", "progress"), out={"help": out})
    return parser
