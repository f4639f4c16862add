"""`gcnet predict`: the objects in images, or their classes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gcnet.commands.arguments import (
    Parser,
    add_compile,
    add_max_detections,
    add_max_pixels,
    add_model,
    add_precision,
    at_least,
)
from gcnet.console import listed
from gcnet.errors import GCNetError

if TYPE_CHECKING:
    from gcnet.prediction.predictions import Predictions

PRINTED = 20  # images that a classifier names on the terminal


def run(argv: list[str]) -> int:
    """Predicts, writes results and pictures. 1 where some images could not be read, 2 where none could."""
    options = _parser().parse(argv)

    from gcnet.api import predict

    predictions = predict(**vars(options))
    counts = predictions.counts
    if counts.failed == counts.images:
        raise GCNetError(
            f"{counts.failed} of {counts.images} images could not be read: nothing is found; give others"
        )
    print("\n".join(_summary(predictions, options.out, options.overlays)))
    if counts.failed:
        print(f"{counts.failed} of {counts.images} images could not be read, see above", file=sys.stderr)
    return 1 if counts.failed else 0


def _summary(predictions: Predictions, out: Path, overlays: bool) -> list[str]:
    count = predictions.counts.images - predictions.counts.failed
    done = f"{count} image{'' if count == 1 else 's'}"
    if predictions.is_detectors:
        beside = " and overlays beside it" if overlays else ""
        return [f"{predictions.counts.objects} objects in {done}: {out / 'results.json'}{beside}"]
    classes = [
        f"{entry['file_name']}: {entry['predicted'][0]} {entry['probabilities'][0]:.2f}"
        for entry in predictions.images
        if "predicted" in entry
    ]
    sheet = f" and {out / 'overview.jpg'}" if overlays else ""
    return [listed(classes, PRINTED, "\n"), f"{done}: {out / 'results.json'}{sheet}"]


def _parser() -> Parser:
    parser = Parser(
        "predict",
        "Finds objects in images: overlays and a JSON of COCO results. With a classifier, names images: "
        "a JSON and an overview sheet. The exit code is 1 where some of the images could not be read.",
    )
    add_model(parser)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="files, folders, quoted globs or @LIST, a file of paths"
    )
    parser.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR", help="(predictions)")
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="S",
        help="least score of what is drawn and written (0.5; `gcnet eval` counts from 0.05, as papers do)",
    )
    parser.add_argument(
        "--overlays",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="pictures beside the JSON, or the JSON alone",
    )
    parser.add_argument(
        "--batch-size",
        type=at_least(1),
        default=1,
        metavar="N",
        help="images at a time, where they are of one size: faster on a GPU, same results (1)",
    )
    add_max_detections(parser)
    add_max_pixels(parser)
    add_precision(parser)
    add_compile(parser)
    parser.add_argument("--top", type=at_least(1), default=5, help="of a classifier: classes to write (5)")
    return parser
