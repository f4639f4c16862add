"""`gcnet predict`: the objects in images, or their classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gcnet.commands.arguments import (
    Parser,
    add_compile,
    add_model,
    add_precision,
    at_least,
    check_writable,
    load_trained,
)
from gcnet.console import listed
from gcnet.weights.fetch import find_source

if TYPE_CHECKING:
    from gcnet.prediction import Predictions

PRINTED = 20  # images that a classifier names on the terminal


def run(argv: list[str]) -> int:
    """Predicts, writes results and pictures. 2 where an image could not be read."""
    options = _parser().parse_args(argv)
    source = find_source(options.model, options.weights)
    check_writable(options.out)

    from gcnet.image_files import find_images

    find_images(options.images)  # before anything is fetched or slowly imported
    model = load_trained(source, options.device, options.mirror)

    from gcnet.models.detector import Detector
    from gcnet.prediction import predict_files

    if isinstance(model, Detector):
        model = model.optimize(precision=options.precision, compiled=options.compile)
    predictions = predict_files(
        model,
        options.images,
        options.out,
        score_threshold=options.score_threshold,
        top=options.top,
        overlays=not options.no_overlays,
    )
    if isinstance(model, Detector):
        beside = "" if options.no_overlays else " and overlays beside it"
    else:
        print(_most_probable(predictions))
        beside = "" if options.no_overlays else f" and {options.out / 'overview.jpg'}"
    objects = f"{len(predictions.results)} objects in " if isinstance(model, Detector) else ""
    done = len(predictions.images) - len(predictions.failed)
    print(f"{objects}{done} images: {options.out / 'results.json'}{beside}")
    return 2 if predictions.failed else 0


def _most_probable(predictions: Predictions) -> str:
    lines = [
        f"{entry['file_name']}: {entry['predicted'][0]} {entry['probabilities'][0]:.2f}"
        for entry in predictions.images
        if "predicted" in entry
    ]
    return listed(lines, PRINTED, "\n")


def _parser() -> Parser:
    parser = Parser(
        "predict",
        "Finds objects in images: overlays and a JSON of COCO results. With a classifier, names images: "
        "a JSON and an overview sheet.",
    )
    add_model(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders or quoted globs")
    parser.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR", help="(predictions)")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="draw and write from here (0.5)")
    parser.add_argument("--no-overlays", action="store_true", help="write only results.json")
    add_precision(parser)
    add_compile(parser)
    parser.add_argument("--top", type=at_least(1), default=5, help="of a classifier: classes to write (5)")
    return parser
