"""Draws what the context blocks of a model attend to in an image, as in Figure 1 of arXiv 1904.11492.

H x W image, h x w map, Q queries. Images are RGB uint8.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from gcnet.context import record
from gcnet.context.look import are_probabilities, attention_pools, block_titles, covered_share, jensen_shannon
from gcnet.errors import GCNetError
from gcnet.files import alone_in, prepare_folder
from gcnet.models.detector import Detector
from gcnet.ops.decode import read_image
from gcnet.ops.images import fit_size, padded_size, write_image
from gcnet.prediction.written import Written
from gcnet.viz import attention_overlay, draw_detections, grid, mark_point, sheet
from gcnet.viz.canvas import at_most

Point = tuple[float, float]  # x and y as shares of width and height

QUERIES: tuple[Point, ...] = ((0.2, 0.3), (0.5, 0.5), (0.8, 0.7))
SHOWN_SCORE = 0.5
SIDES = (640, 1333)  # images are shown with a long side between these
COLUMNS, CELL = 4, 380  # images in a row of the sheet, and pixels of an image's width there
TALLEST = 4 * CELL  # pixels of an image's height there
QUALITY = 88  # of JPEGs
SHEET = "sheet.jpg"
LIST = ".attention.jsonl"  # of the files that were written


def valid_share(detector: Detector, size: Sequence[int]) -> tuple[float, float]:
    """The shares of rows and columns of the padded input that an image of `size` fills."""
    height, width = fit_size((size[0], size[1]), detector.spec.image_size, detector.spec.resize)
    padded = padded_size((height, width))
    return height / padded[0], width / padded[1]


def sees_image(name: str) -> bool:
    """Whether a module of a detector looks at the image: those in the heads look at regions."""
    return not name.startswith("roi_heads.")


@dataclass(frozen=True)
class AttentionSummary:
    """The drawings: `sheet` shows all, `files` are the single maps, `lines` describe them."""

    sheet: Path
    files: tuple[Path, ...]
    lines: tuple[str, ...]
    per_query: bool


def draw_attention(
    detector: Detector,
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    queries: Sequence[Point] = QUERIES,
    layers: str = "*",
) -> AttentionSummary:
    """Draws the attention maps of `detector` over an image: `sheet.jpg` and a file for each map in `out`.

    What an earlier call wrote there is removed.

    Args:
        path: an image file.
        out: a folder, made if need be.
        queries: (x, y) as shares of the image's width and height, in [0, 1]; each is drawn for blocks
            whose attention depends on the query.
        layers: which blocks, by title ("c4.0", "c4.*") or module name; `*` stands for anything.

    Raises:
        GCNetError: the image cannot be read, `out` cannot be written in or holds something else under a
            name that is needed, a query is outside, or there is no such block.
    """
    _check_queries(queries)
    titles = _select_blocks(detector, layers)
    image = read_image(path)
    folder = prepare_folder(out)
    valid = valid_share(detector, image.shape[:2])
    with record(detector, queries=[(x * valid[1], y * valid[0]) for x, y in queries]) as recorded:
        found = detector.predict_images([image], score_threshold=SHOWN_SCORE)[0]
    # (h, w), or (Q, h, w) where each query has a map of its own.
    maps = {title: recorded[name][0] for name, title in titles.items() if name in recorded}
    per_query = any(each.dim() == 3 for each in maps.values())

    enlarge = max(1, SIDES[0] // max(image.shape[:2]))
    drawn = draw_detections(image, found, detector.spec.class_names, SHOWN_SCORE, enlarge=enlarge)
    # Maps have no detail that a larger image could show.
    shown = at_most(cv2.resize(image, drawn.shape[1::-1], interpolation=cv2.INTER_CUBIC), SIDES[1])
    overlays = {title: _overlays(shown, each, valid, queries) for title, each in maps.items()}
    files = {
        f"{title}.jpg" if maps[title].dim() == 2 else f"{title}-query{k}.jpg": overlay
        for title, images in overlays.items()
        for k, overlay in enumerate(images, 1)
    }
    cell = CELL, min(max(round(CELL * shown.shape[0] / shown.shape[1]), 1), TALLEST)
    if per_query:
        overview = _sheet_by_query(shown, overlays, queries, cell)
    else:
        images = [at_most(drawn, SIDES[1]), *(images[0] for images in overlays.values())]
        overview = sheet(images, ["prediction", *overlays], columns=COLUMNS, cell=cell)
    _write(folder, files | {SHEET: overview}, path)
    lines = tuple(describe(title, each) for title, each in maps.items())
    return AttentionSummary(folder / SHEET, tuple(folder / name for name in files), lines, per_query)


def _write(folder: Path, drawings: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Writes drawings of the image at `path`, by name, in place of those of an earlier call."""
    with alone_in(folder):
        written = Written(folder, LIST)
        written.begin([path], drawings)
        for name, drawing in drawings.items():
            write_image(folder / name, drawing, quality=QUALITY)
            written.add(name)


def _check_queries(queries: Sequence[Point]) -> None:
    for x, y in queries:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise GCNetError(
                f"query {x:g},{y:g} is not on the image; give shares of width and height, as in 0.5,0.25"
            )
    if not queries:
        raise GCNetError("no query given; name at least one point, such as 0.5,0.25")


def _select_blocks(detector: Detector, layers: str) -> dict[str, str]:
    """The title of each block with an attention map, by the module name of its pool, if `layers` matches."""
    titles = block_titles(filter(sees_image, attention_pools(detector)))
    if not titles:
        raise GCNetError(
            f"{detector.spec.name} has no context block with an attention map; "
            "take one that has them, such as mask_rcnn_r50_gc4"
        )
    chosen = {
        name: title
        for name, title in titles.items()
        if fnmatchcase(title, layers) or fnmatchcase(name, layers)
    }
    if not chosen:
        raise GCNetError(f"no block matches {layers!r}; there are {', '.join(titles.values())}")
    return chosen


def _overlays(
    image: np.ndarray, maps: Tensor, valid: tuple[float, float], queries: Sequence[Point]
) -> list[np.ndarray]:
    """One overlay for each map, all of a block on one scale; the query is marked."""
    peak = float(maps.max())
    if maps.dim() == 2:
        return [attention_overlay(image, maps, valid=valid, peak=peak)]
    return [
        mark_point(attention_overlay(image, attention, valid=valid, peak=peak), query)
        for attention, query in zip(maps, queries, strict=True)
    ]


def _sheet_by_query(
    image: np.ndarray,
    overlays: dict[str, list[np.ndarray]],
    queries: Sequence[Point],
    cell: tuple[int, int],
) -> np.ndarray:
    """A column for each query: the image with the point marked, below it its map in each block.

    A block with one map for all queries has it in the first column.
    """
    marked = [mark_point(image, query) for query in queries]
    captions = [[f"query {k}" for k in range(1, len(queries) + 1)]]
    captions += [[title] * len(images) for title, images in overlays.items()]
    return grid([marked, *overlays.values()], captions=captions, cell=cell)


def describe(title: str, attention: Tensor) -> str:
    """What a map shows, in one line."""
    per_query = attention.dim() == 3
    maps = (attention if per_query else attention[None]).flatten(1)[None]
    if not are_probabilities(maps):
        return f"{title}: a map for each query; its weights are no probabilities"
    covers = f"covers {100 * covered_share(maps).item():.3g} % of the map"
    if not per_query:
        return f"{title}: one map for all queries, {covers}"
    distance = f"Jensen-Shannon divergence {jensen_shannon(maps).item():.2g} between them"
    return f"{title}: a map for each query, {covers}; {distance} (0: the same, 0.69: disjoint)"
