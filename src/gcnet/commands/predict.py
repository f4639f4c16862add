"""`gcnet predict` finds the objects in images: it writes overlays and a JSON of COCO results.

A classifier gives the classes of images, as a JSON and an overview sheet. The exit code is 1 if some images
could not be read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gcnet.api.predict import predict
from gcnet.commands.arguments import Parser
from gcnet.console import listed
from gcnet.errors import GCNetError
from gcnet.files import AnyPath
from gcnet.prediction.wanted import parse_shard

if TYPE_CHECKING:
    from gcnet.prediction.predictions import Predictions

PRINTED = 20  # images that a classifier names on the terminal


def run(argv: list[str]) -> int:
    """Predicts, writes results and drawings. 1 if some images could not be read, 2 if none could."""
    options = _parser().parse(argv)
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
    parser = Parser("predict", "MODEL IMAGES... [--out DIR]", __doc__)
    parser.add_options(
        predict,
        but=("progress",),
        defaults={"out": "predictions"},
        images={"kind": Sequence[AnyPath]},
        shard={"kind": parse_shard, "metavar": "I/N"},
    )
    return parser
