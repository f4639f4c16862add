"""`gcnet predict`: the objects in pictures, or their classes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from gcnet.commands.arguments import (
    Parser,
    add_compile,
    add_model,
    add_precision,
    at_least,
    check_model,
    check_writable,
    fetch_weights,
    load_trained,
)

if TYPE_CHECKING:
    from gcnet.models.classifier import Classifier
    from gcnet.models.detector import Detector

PRINTED = 20  # pictures that a classifier names on the terminal


def run(argv: list[str]) -> int:
    """Predicts, writes results and pictures. 2 where a picture could not be read."""
    options = _parser().parse_args(argv)
    check_model(options.model, options.weights)
    check_writable(options.out)

    from gcnet.image_files import find_images

    find_images(options.images)  # before anything is fetched or slowly imported
    weights = fetch_weights(options.model, options.weights, options.mirror)
    model = load_trained(options.model, weights, options.device)

    from gcnet.models.classifier import Classifier

    if isinstance(model, Classifier):
        return _classify(model, options)
    return _detect(model, options)


def _parser() -> Parser:
    parser = Parser(
        "predict",
        "Finds objects in pictures: overlays and a JSON of COCO results. With a classifier, names pictures: "
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


def _detect(detector: Detector, options: Namespace) -> int:
    from gcnet.predict import predict_paths

    summary = predict_paths(
        detector.optimize(precision=options.precision, compiled=options.compile),
        options.images,
        options.out,
        score_threshold=options.score_threshold,
        overlays=not options.no_overlays,
    )
    beside = "" if options.no_overlays else " and overlays beside it"
    print(f"{summary.detections} objects in {summary.images} images: {options.out / 'results.json'}{beside}")
    return 2 if summary.failed else 0


def _classify(classifier: Classifier, options: Namespace) -> int:
    from gcnet.classify import classify_paths

    summary = classify_paths(
        classifier, options.images, options.out, top=options.top, sheet=not options.no_overlays
    )
    for entry in summary.results[:PRINTED]:
        if "predicted" in entry:
            print(f"{entry['file_name']}: {entry['predicted'][0]} {entry['probabilities'][0]:.2f}")
    if len(summary.results) > PRINTED:
        print(f"and {len(summary.results) - PRINTED} more")
    named = len(summary.results) - len(summary.failed)
    sheet = "" if options.no_overlays else f" and {options.out / 'overview.jpg'}"
    print(f"{named} images: {options.out / 'results.json'}{sheet}")
    return 2 if summary.failed else 0
