"""Classes of photos: files, folders or patterns in, a JSON and an overview sheet out."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gcnet.console import progress_bar
from gcnet.errors import GCNetError
from gcnet.files import prepare_folder, write_bytes, write_json
from gcnet.image_files import find_images
from gcnet.models.classifier import Classifier
from gcnet.ops.images import shrink_image
from gcnet.predict import read_ahead

SHOWN = 40  # pictures on the sheet
COLUMNS = 5
THUMBNAIL = 240  # pixels of a picture's long side on the sheet


@dataclass(frozen=True)
class ClassifySummary:
    """What a run did: the JSON's entries, and the images that could not be read, and why."""

    out: Path
    results: list[dict[str, Any]]
    failed: tuple[tuple[Path, str], ...]


def classify_paths(
    classifier: Classifier,
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    top: int = 5,
    sheet: bool = True,
    progress: bool = True,
) -> ClassifySummary:
    """Names the classes of the images that `inputs` stand for (see `find_images`) and writes them in `out`.

    `results.json` lists every image with its `top` most probable classes as `predicted` and their
    `probabilities`, or the `error`. `overview.jpg` shows the first 40 images with the best class of each.

    An image that cannot be read is reported on stderr and skipped. Whatever ends the run, the JSON holds all
    that was found until then. Raises GCNetError before the model runs if nothing matches, `out` cannot be
    written, `top` is below 1, or the overview would replace one of the images.
    """
    if top < 1:
        raise GCNetError(f"top is {top}; ask for 1 class or more")
    paths = find_images(inputs)
    folder = prepare_folder(out)
    overview = folder / "overview.jpg"
    if sheet and overview.resolve() in {path.resolve() for path in paths}:
        raise GCNetError(f"the overview {overview} would replace an input image; choose another --out")
    results: list[dict[str, Any]] = []
    shown: list[tuple[UInt8[np.ndarray, "H W 3"], str]] = []
    try:
        with progress_bar(disable=not progress) as bar:
            task = bar.add_task("classifying", total=len(paths))
            for path, image in read_ahead(paths):
                entry: dict[str, Any] = {"file_name": path.as_posix()}
                if isinstance(image, GCNetError):
                    bar.console.print(f"skipped: {image}", markup=False, highlight=False, soft_wrap=True)
                    results.append(entry | {"error": str(image)})
                else:
                    found = classifier.predict_images([image], top=top)[0]
                    best = [round(p, 5) for p in found.probabilities.tolist()]
                    results.append(entry | {"predicted": list(found.names), "probabilities": best})
                    if sheet and len(shown) < SHOWN:
                        shown.append((_thumbnail(image), f"{path.name}\n{found.names[0]} {best[0]:.2f}"))
                bar.advance(task)
    finally:
        write_json(folder / "results.json", results)
    if shown:
        write_bytes(overview, draw_sheet(shown))
    failed = tuple((Path(entry["file_name"]), entry["error"]) for entry in results if "error" in entry)
    return ClassifySummary(folder, results, failed)


def draw_sheet(shown: Sequence[tuple[UInt8[np.ndarray, "_ _ 3"], str]]) -> bytes:
    """A JPEG of pictures with two lines of text over each, in rows of five."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.0 * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, (image, text) in zip(figure.axes, shown, strict=False):
        axes.imshow(image)
        lines = (line if len(line) <= 32 else f"{line[:14]}...{line[-15:]}" for line in text.split("\n"))
        axes.set_title("\n".join(lines), fontsize=9, parse_math=False)  # a "$" in a name is a "$"
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", pil_kwargs={"quality": 90})
    return file.getvalue()


def _thumbnail(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    scale = min(THUMBNAIL / max(image.shape[:2]), 1.0)
    return shrink_image(image, (max(int(image.shape[0] * scale), 1), max(int(image.shape[1] * scale), 1)))
