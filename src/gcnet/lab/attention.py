"""Where the context blocks of a model look in a picture: a file for each map, and a sheet of all.

H x W image, h x w map. Images are RGB uint8.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from gcnet.context import record
from gcnet.context.look import attention_pools, covered_share, jensen_shannon
from gcnet.errors import GCNetError
from gcnet.files import prepare_folder
from gcnet.models.detector import Detector
from gcnet.ops.images import fit_size, padded_size, read_image, write_image
from gcnet.viz import attention_overlay, draw_detections, grid, mark_point

Point = tuple[float, float]  # x and y as shares of width and height

QUERIES: tuple[Point, ...] = ((0.2, 0.3), (0.5, 0.5), (0.8, 0.7))
SHOWN_SCORE = 0.5
SIDES = (640, 1333)  # pictures are shown with a long side between these
COLUMNS = 4
CELL = 380  # width of a picture on the sheet, in pixels
QUALITY = 88


@dataclass(frozen=True)
class Look:
    """The map of one block: (h, w), or (Q, h, w) where each query has its own."""

    title: str
    maps: Tensor

    @property
    def per_query(self) -> bool:
        return self.maps.dim() == 3

    def describe(self) -> str:
        """One line of what there is to see."""
        maps = (self.maps if self.per_query else self.maps[None]).flatten(1)[None]
        if (maps < 0).any() or ((maps.double().sum(dim=2) - 1).abs() > 1e-2).any():
            return f"{self.title}: a map for each query; its weights are no probabilities"
        covers = f"covers {100 * covered_share(maps).item():.3g} % of the map"
        if not self.per_query:
            return f"{self.title}: one map for all queries, {covers}"
        distance = f"Jensen-Shannon divergence {jensen_shannon(maps).item():.2g} between them"
        return f"{self.title}: a map for each query, {covers}; {distance} (0: the same, 0.69: disjoint)"


@dataclass(frozen=True)
class AttentionSummary:
    """What was drawn: `sheet` shows everything, `files` are the single maps, `lines` say it in words."""

    sheet: Path
    files: tuple[Path, ...]
    lines: tuple[str, ...]
    per_query: bool


def draw_attention(
    detector: Detector,
    image: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    queries: Sequence[Point] = QUERIES,
    layers: str = "*",
) -> AttentionSummary:
    """Draws the attention maps of `detector` over a picture: `sheet.jpg` and a file for each map in `out`.

    Args:
        image: a picture file.
        out: a folder, made if need be.
        queries: (x, y) as shares of the picture's width and height, in [0, 1]; each is drawn for blocks
            whose attention depends on the query.
        layers: which blocks, by title ("c4.0", "c4.*") or module name; `*` stands for anything.

    Raises:
        GCNetError: the picture cannot be read, `out` cannot be written in or holds the picture under a name
            that is needed, a query is outside, or there is no such block.
    """
    check_queries(queries)
    titles = select_layers(detector, layers)
    array = read_image(image)
    folder = prepare_folder(out)
    valid = valid_share(detector, array.shape[:2])
    points = [(x * valid[1], y * valid[0]) for x, y in queries]
    with record(detector, queries=points) as maps:
        found = detector.predict_images([array], score_threshold=SHOWN_SCORE)[0]
    looks = [Look(title, maps[name][0]) for name, title in titles.items() if name in maps]

    enlarge = max(1, SIDES[0] // max(array.shape[:2]))
    drawn = draw_detections(array, found, detector.spec.class_names, SHOWN_SCORE, enlarge=enlarge)
    picture = _shrink(cv2.resize(array, drawn.shape[1::-1], interpolation=cv2.INTER_CUBIC))
    overlays = {look.title: _overlays(picture, look, valid, queries) for look in looks}
    targets = {
        title: [folder / f"{title}{suffix}.jpg" for suffix in _suffixes(len(images))]
        for title, images in overlays.items()
    }
    sheet, files = folder / "sheet.jpg", [path for paths in targets.values() for path in paths]
    if Path(image).resolve() in {path.resolve() for path in (sheet, *files)}:
        raise GCNetError(f"{image} would be replaced by a picture of its attention; choose another --out")
    for title, images in overlays.items():
        for path, overlay in zip(targets[title], images, strict=True):
            write_image(path, overlay, quality=QUALITY)
    per_query = any(look.per_query for look in looks)
    if per_query:
        shown = _sheet_by_query(picture, overlays, queries)
    else:
        shown = _sheet_of_blocks(_shrink(drawn), overlays)
    write_image(sheet, shown, quality=QUALITY)
    return AttentionSummary(sheet, tuple(files), tuple(look.describe() for look in looks), per_query)


def check_queries(queries: Sequence[Point]) -> None:
    """Raises GCNetError for a point that is not on the picture, or if there is none."""
    for x, y in queries:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise GCNetError(
                f"query {x:g},{y:g} is not on the picture; give shares of width and height, as in 0.5,0.25"
            )
    if not queries:
        raise GCNetError("no query given; name at least one point, such as 0.5,0.25")


def select_layers(detector: Detector, layers: str = "*") -> dict[str, str]:
    """The title of each block with an attention map, by the module name of its pool, if `layers` matches.

    Raises GCNetError where the model has no such block.
    """
    titles = block_titles(attention_pools(detector))
    if not titles:
        raise GCNetError(
            f"{detector.spec.name} has no context block with an attention map; "
            "take a model that has, such as mask_rcnn_r50_gc4"
        )
    chosen = {
        name: title
        for name, title in titles.items()
        if fnmatchcase(title, layers) or fnmatchcase(name, layers)
    }
    if not chosen:
        raise GCNetError(f"no block matches {layers!r}; there are {', '.join(titles.values())}")
    return chosen


def block_titles(names: Iterable[str]) -> dict[str, str]:
    """The titles of blocks by their module names; the names themselves where two have one title."""
    titles = {name: block_title(name) for name in names}
    once = len(set(titles.values())) == len(titles)
    return titles if once else {name: name for name in titles}


def block_title(module: str) -> str:
    """The paper's name of a module's place: `c4.0` is the first block (`layer3.0`) of stage c4."""
    place = re.search(r"layer(\d)\.(\d+)", module)
    return f"c{int(place[1]) + 1}.{place[2]}" if place else module


def valid_share(detector: Detector, size: Sequence[int]) -> tuple[float, float]:
    """The share of rows and columns that a picture of `size` fills of what the network sees, with padding."""
    height, width = fit_size((size[0], size[1]), detector.spec.image_size)
    padded = padded_size((height, width))
    return height / padded[0], width / padded[1]


def _overlays(
    picture: np.ndarray, look: Look, valid: tuple[float, float], queries: Sequence[Point]
) -> list[np.ndarray]:
    """One overlay for each map, all of a block on one scale; the query is marked."""
    peak = float(look.maps.max())
    if not look.per_query:
        return [attention_overlay(picture, look.maps, valid=valid, peak=peak)]
    return [
        mark_point(attention_overlay(picture, attention, valid=valid, peak=peak), query)
        for attention, query in zip(look.maps, queries, strict=True)
    ]


def _suffixes(maps: int) -> list[str]:
    return [""] if maps == 1 else [f"-query{k}" for k in range(1, maps + 1)]


def _sheet_of_blocks(drawn: np.ndarray, overlays: dict[str, list[np.ndarray]]) -> np.ndarray:
    """The prediction, then the one map of each block."""
    images = [drawn, *(images[0] for images in overlays.values())]
    captions = ["prediction", *overlays]
    starts = range(0, len(images), COLUMNS)
    return grid(
        [images[i : i + COLUMNS] for i in starts],
        captions=[captions[i : i + COLUMNS] for i in starts],
        cell=_cell(drawn),
    )


def _sheet_by_query(
    picture: np.ndarray, overlays: dict[str, list[np.ndarray]], queries: Sequence[Point]
) -> np.ndarray:
    """A column for each query: the picture with the point marked, below it its map in each block.

    So the paper's Figure 1 is drawn. A block with one map for all queries has it in the first column.
    """
    marked = [mark_point(picture, query) for query in queries]
    captions = [[f"query {k}" for k in range(1, len(queries) + 1)]]
    captions += [[title] * len(images) for title, images in overlays.items()]
    return grid([marked, *overlays.values()], captions=captions, cell=_cell(picture))


def _cell(picture: np.ndarray) -> tuple[int, int]:
    return CELL, round(CELL * picture.shape[0] / picture.shape[1])


def _shrink(picture: np.ndarray) -> np.ndarray:
    """Fitted into what is shown at most; maps have no detail that a larger picture could show."""
    factor = SIDES[1] / max(picture.shape[:2])
    if factor >= 1:
        return picture
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
