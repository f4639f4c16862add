"""`gcnet predict`: the objects in images, or their classes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gcnet.commands.arguments import (
    Parser,
    add_compile,
    add_max_detections,
    add_max_pixels,
    add_model,
    add_precision,
    add_tiles,
    at_least,
)
from gcnet.console import listed
from gcnet.errors import GCNetError
from gcnet.prediction.wanted import FORMATS, parse_shard

if TYPE_CHECKING:
    from gcnet.prediction.predictions import Predictions

PRINTED = 20  # images that a classifier names on the terminal


def run(argv: list[str]) -> int:
    """Predicts, writes results and drawings. 1 where some images could not be read, 2 where none could."""
    options = _parser().parse(argv)

    from gcnet.api import predict

    predictions = predict(**vars(options))
    counts = predictions.counts
    if counts.failed == counts.images:
        raise GCNetError(
            f"{counts.failed} of {counts.images} images could not be read: nothing is found; give others"
        )
    print("\n".join(_summary(predictions, options.format, options.overlays)))
    if counts.failed:
        print(f"{counts.failed} of {counts.images} images could not be read, see above", file=sys.stderr)
    return 1 if counts.failed else 0


def _summary(predictions: Predictions, formats: Sequence[str], overlays: bool) -> list[str]:
    out = predictions.out or Path()
    count = predictions.counts.images - predictions.counts.failed
    done = f"{count} image{'' if count == 1 else 's'}"
    if predictions.of_detector:
        beside = " and overlays beside it" if overlays else ""
        place = f"{out} ({', '.join(formats)})" if formats else out / "results.json"
        return [f"{predictions.counts.objects} objects in {done}: {place}{beside}"]
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
        "images",
        nargs="+",
        metavar="IMAGES",
        help="files, folders, quoted globs, @LIST (a file of paths), s3://...",
    )
    parser.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR", help="(predictions)")
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="S",
        help="least score of what is drawn and written (what was best in the validation of the training, as "
        "the model's file says, or 0.5; `gcnet eval` counts from 0.05, as papers do)",
    )
    parser.add_argument(
        "--overlays",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="drawings beside the JSON, or the JSON alone",
    )
    parser.add_argument("--crops", action="store_true", help="each object as a picture: what is in its box")
    parser.add_argument(
        "--cutouts", action="store_true", help="each object as a PNG, transparent around its mask"
    )
    parser.add_argument(
        "--format",
        nargs="+",
        action="extend",
        choices=FORMATS,
        default=[],
        metavar="F",
        help=f"what is written, one or more of {', '.join(FORMATS)} (coco-results)",
    )
    parser.add_argument(
        "--images-a-file",
        type=at_least(1),
        default=10_000,
        metavar="N",
        help="of jsonl and parquet (10,000)",
    )
    parser.add_argument(
        "--shard",
        type=parse_shard,
        metavar="I/N",
        help="part I of N of the images, the first is 0/N: so N calls share the work (as torchrun says)",
    )
    parser.add_argument(
        "--batch-size",
        type=at_least(1),
        default=1,
        metavar="N",
        help="images at a time, where they are of one size: faster on a GPU, same results (1)",
    )
    add_tiles(parser)
    add_max_detections(parser)
    add_max_pixels(parser)
    add_precision(parser)
    add_compile(parser)
    parser.add_argument("--top", type=at_least(1), default=5, help="of a classifier: classes to write (5)")
    return parser
