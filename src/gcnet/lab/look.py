"""Where the context blocks of a model look, and how much that depends on the query.

`draw_attention` draws the maps over one image, as in Figure 1 of the paper (arXiv 1904.11492). `analyse`
measures every block over many images, as in its Table 1; `gcnet.context.look` has the measures.

H x W image, h x w map, Q queries. Images are RGB uint8.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from gcnet.console import make_table, progress_bar
from gcnet.context import record
from gcnet.context.look import (
    attention_pools,
    block_titles,
    context_blocks,
    covered_share,
    jensen_shannon,
    mean_statistics,
    measure,
)
from gcnet.context_spec import BLOCKS
from gcnet.data.load import load_split
from gcnet.errors import GCNetError
from gcnet.files import prepare_folder, write_atomically, write_json
from gcnet.image_files import find_images, is_image
from gcnet.models.detector import Detector
from gcnet.models.modes import in_eval_mode
from gcnet.ops.decode import read_image
from gcnet.ops.images import fit_size, padded_size, write_image
from gcnet.viz import attention_overlay, draw_detections, grid, mark_point, sheet

Point = tuple[float, float]  # x and y as shares of width and height

QUERIES: tuple[Point, ...] = ((0.2, 0.3), (0.5, 0.5), (0.8, 0.7))
SHOWN_SCORE = 0.5
SIDES = (640, 1333)  # images are shown with a long side between these
COLUMNS, CELL = 4, 380  # images in a row of the sheet, and pixels of an image's width there
QUALITY = 88  # of JPEGs

SHORT = {kind.made_by.partition(":")[2]: name.upper() for name, kind in BLOCKS.items()}  # by class
LEGEND = (
    "input, context (what the block fuses), output: mean of (1 - cos) / 2 over all",
    "pairs of positions. att. cos, att. JSD (nats, at most 0.693): the same of their",
    "attention maps. 0: the same for every query. covers: the part of the map that",
    "attention lies on, 100 % if it is uniform.",
)
# Field of BlockStatistics, heading of its column, colour of its bar.
DISTANCES = (
    ("input", "input", "#9aa5b1"),
    ("context", "context", "#2f6db5"),
    ("output", "output", "#7cc0e8"),
    ("attention", "att. cos", "#e08a1e"),
    ("jsd", "att. JSD", "#c0392b"),
)


def valid_share(detector: Detector, size: Sequence[int]) -> tuple[float, float]:
    """The share of rows and columns that an image of `size` fills of what the network sees, with padding."""
    height, width = fit_size((size[0], size[1]), detector.spec.image_size)
    padded = padded_size((height, width))
    return height / padded[0], width / padded[1]


# Maps over one image --------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionSummary:
    """What was drawn: `sheet` shows everything, `files` are the single maps, `lines` say it in words."""

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

    Args:
        path: an image file.
        out: a folder, made if need be.
        queries: (x, y) as shares of the image's width and height, in [0, 1]; each is drawn for blocks
            whose attention depends on the query.
        layers: which blocks, by title ("c4.0", "c4.*") or module name; `*` stands for anything.

    Raises:
        GCNetError: the image cannot be read, `out` cannot be written in or holds the image under a name
            that is needed, a query is outside, or there is no such block.
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
    shown = _shrink(cv2.resize(image, drawn.shape[1::-1], interpolation=cv2.INTER_CUBIC))
    overlays = {title: _overlays(shown, each, valid, queries) for title, each in maps.items()}
    files = {
        folder / (f"{title}.jpg" if maps[title].dim() == 2 else f"{title}-query{k}.jpg"): overlay
        for title, images in overlays.items()
        for k, overlay in enumerate(images, 1)
    }
    overview = folder / "sheet.jpg"
    if Path(path).resolve() in {file.resolve() for file in (overview, *files)}:
        raise GCNetError(f"{path} would be replaced by an image of its attention; choose another --out")
    for file, overlay in files.items():
        write_image(file, overlay, quality=QUALITY)
    cell = CELL, round(CELL * shown.shape[0] / shown.shape[1])
    if per_query:
        image_of_all = _sheet_by_query(shown, overlays, queries, cell)
    else:
        images = [_shrink(drawn), *(images[0] for images in overlays.values())]
        image_of_all = sheet(images, ["prediction", *overlays], columns=COLUMNS, cell=cell)
    write_image(overview, image_of_all, quality=QUALITY)
    lines = tuple(describe(title, each) for title, each in maps.items())
    return AttentionSummary(overview, tuple(files), lines, per_query)


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
    titles = block_titles(attention_pools(detector))
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


def _shrink(image: np.ndarray) -> np.ndarray:
    """No larger than `SIDES` allow; maps have no detail that a larger image could show."""
    factor = SIDES[1] / max(image.shape[:2])
    if factor >= 1:
        return image
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def describe(title: str, attention: Tensor) -> str:
    """What a map shows, in one line."""
    per_query = attention.dim() == 3
    maps = (attention if per_query else attention[None]).flatten(1)[None]
    if (maps < 0).any() or ((maps.double().sum(dim=2) - 1).abs() > 1e-2).any():
        return f"{title}: a map for each query; its weights are no probabilities"
    covers = f"covers {100 * covered_share(maps).item():.3g} % of the map"
    if not per_query:
        return f"{title}: one map for all queries, {covers}"
    distance = f"Jensen-Shannon divergence {jensen_shannon(maps).item():.2g} between them"
    return f"{title}: a map for each query, {covers}; {distance} (0: the same, 0.69: disjoint)"


# Measures over many images --------------------------------------------------------------------------


def analyse(
    detector: Detector,
    paths: Sequence[Path],
    out: str | os.PathLike[str],
    *,
    queries: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Measures every context block of `detector` on images; `analysis.json` and `analysis.png` in `out`.

    Images are resized as for prediction; backbone and neck run, the heads do not. What was measured until
    then is written whatever ends the run. An image that cannot be read is reported on stderr and left out.

    Args:
        queries: how many positions' attention maps are compared, at most; see `measure`.
        seed: of their choice.

    Returns:
        What is in the JSON: the mean statistics of each block under `blocks`. A figure that has no meaning
        for a block is None.

    Raises:
        GCNetError: the model has no context block, no image could be read, or `out` cannot be written in.
    """
    blocks = context_blocks(detector)
    if not blocks:
        raise GCNetError(
            f"{detector.spec.name} has no context blocks; take one that has them, such as mask_rcnn_r50_gc4"
        )
    folder = prepare_folder(out)
    titles = block_titles(blocks)
    report: dict[str, Any] = {
        "model": detector.spec.name,
        "images": 0,
        "queries": queries,
        "seed": seed,
        "jsd_unit": "nat",
        "failed": [],
    }
    with measure(detector, queries=queries, seed=seed) as found:
        try:
            _run_features(detector, paths, report["failed"], progress)
        finally:
            report["images"] = max((len(images) for images in found.values()), default=0)
            report["blocks"] = [
                {"name": name, "title": titles[name], "kind": type(blocks[name]).__name__}
                | asdict(mean_statistics(images))
                for name, images in found.items()
            ]
            if report["images"]:
                write_json(folder / "analysis.json", report)
                _draw_bars(report, folder / "analysis.png")
    if not report["images"]:
        error = report["failed"][0]["error"]
        raise GCNetError(f"none of the {len(paths)} images could be read: {error}")
    return report


def choose_images(data: Path, *, split: str = "valid", count: int | None = None) -> list[Path]:
    """The images directly in a folder, or else those of a split of the COCO-format data set that it is.

    With `count`, that many of them, evenly spaced. Raises GCNetError where there are none.
    """
    if any(is_image(path) for path in data.iterdir()):
        paths = [Path(path) for path in find_images([data])]
    else:
        paths = [record.path for record in load_split(data, split).records]
    if not paths:
        raise GCNetError(f"the split {split!r} of {data} has no images; take another")
    if count is None or count >= len(paths):
        return paths
    return [paths[i * len(paths) // count] for i in range(count)]


def print_analysis(report: Mapping[str, Any], console: Console | None = None) -> None:
    """The table of blocks, and what its columns are."""
    title = f"mean distance between positions, {report['images']} images of {report['model']}"
    rows = []
    for block in report["blocks"]:
        figures = [_show(block[field]) for field, _, _ in DISTANCES]
        covers = "-" if block["share"] is None else f"{100 * block['share']:.1f} %"
        rows.append([block["title"], SHORT.get(block["kind"], block["kind"]), *figures, covers])
    heads = ["block", "kind", *(heading for _, heading, _ in DISTANCES), "covers"]
    console = console or Console()
    console.print(make_table(title, heads, rows, words=2))
    for line in LEGEND:
        console.print(line, highlight=False, soft_wrap=True)


def _run_features(
    detector: Detector, paths: Sequence[Path], failed: list[dict[str, str]], progress: bool
) -> None:
    detector = in_eval_mode(detector)
    with torch.inference_mode(), progress_bar(disable=not progress) as bar:
        task = bar.add_task("measuring", total=len(paths))
        for path in paths:
            try:
                batch = detector.prepare(path)
            except GCNetError as error:
                bar.console.print(f"skipped: {error}", markup=False, highlight=False, soft_wrap=True)
                failed.append({"file_name": path.as_posix(), "error": str(error)})
            else:
                detector.features(batch)
            bar.advance(task)


def _show(value: float | None) -> str:
    """Three decimals; small numbers with an exponent, so that they are not shown as zero."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}" if value else "0"


def _draw_bars(report: Mapping[str, Any], path: Path) -> None:
    """Distances at the left, the share of the map that attention covers at the right; a group a block."""
    blocks = report["blocks"]
    titles = [block["title"] for block in blocks]
    # Bars of five distances need room: the figure grows with the number of blocks.
    figure = Figure(figsize=(4 + 0.85 * len(blocks) + 3, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    width = 0.8 / len(DISTANCES)
    highest = max(block[field] or 0 for block in blocks for field, _, _ in DISTANCES)
    for k, (field, heading, color) in enumerate(DISTANCES):
        values = [block[field] for block in blocks]
        places = [i + (k - (len(DISTANCES) - 1) / 2) * width for i in range(len(blocks))]
        left.bar(places, [value or 0 for value in values], width, label=heading, color=color)
        for place, value in zip(places, values, strict=True):
            if value is None or value < 0.02 * highest:  # too low to be seen: the number instead
                above = (value or 0) + 0.01 * highest
                left.text(place, above, _show(value), ha="center", fontsize=7, color=color, rotation=90)
    left.set_ylabel("mean distance between positions")
    left.legend(
        fontsize=8, ncols=len(DISTANCES), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False
    )
    right.bar(range(len(blocks)), [100 * (block["share"] or 0) for block in blocks], 0.6, color="#e08a1e")
    right.set_ylabel("share of the map that attention covers [%]")
    for axes in (left, right):
        axes.set_xticks(range(len(blocks)), titles, rotation=0 if len(blocks) < 8 else 90)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    figure.suptitle(f"{report['model']}, {report['images']} images", fontsize=11)
    write_atomically(path, lambda file: figure.savefig(file, dpi=120, format="png"))
