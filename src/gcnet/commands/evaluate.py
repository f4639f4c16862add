"""`gcnet eval`: the scores of a model on one split of a data set."""

from __future__ import annotations

from pathlib import Path

from gcnet.commands.arguments import (
    Parser,
    add_compile,
    add_model,
    add_precision,
    add_split,
    at_least,
    check_data,
    check_writable,
    load_trained,
)
from gcnet.weights.fetch import find_source


def run(argv: list[str]) -> int:
    """Scores a detector or a classifier, prints the table, writes results and metrics."""
    options = _parser().parse_args(argv)
    source = find_source(options.model, options.weights)
    check_data(options.data)
    out = options.out or Path("runs") / f"eval-{Path(options.model).stem}-{options.split}"
    check_writable(out)
    model = load_trained(source, options.device, options.mirror)

    from gcnet.engine.task import task_of
    from gcnet.models.detector import Detector

    if isinstance(model, Detector):
        model = model.optimize(precision=options.precision, compiled=options.compile)
    task = task_of(model.spec)
    dataset = task.load_split(options.data, options.split, model.spec.class_names)
    metrics, _ = task.evaluate(
        model, dataset, batch_size=options.batch_size, workers=options.workers, out=out
    )
    task.print_metrics(metrics)
    print(f"wrote {out / 'results.json'} and {out / 'metrics.json'}")
    return 0


def _parser() -> Parser:
    parser = Parser("eval", "COCO box and mask AP of a model, or accuracy of a classifier, on one split.")
    add_model(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="a COCO-format data set, or train/CLASS/, val/CLASS/",
    )
    add_split(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="for results.json and metrics.json")
    parser.add_argument("--batch-size", type=at_least(1), default=1, help="images at a time (1)")
    parser.add_argument("--workers", type=at_least(0), default=2, help="processes that read images (2)")
    add_precision(parser)
    add_compile(parser)
    return parser
