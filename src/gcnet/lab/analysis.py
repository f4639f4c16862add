"""Measures over many images how much the attention of every context block depends on the query.

As in Table 1 of the paper (arXiv 1904.11492); `gcnet.context.look` has the measures.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console

from gcnet.console import make_table, progress_bar
from gcnet.context.look import block_titles, context_blocks, mean_statistics, measure
from gcnet.context_spec import BLOCKS
from gcnet.data.load import load_split
from gcnet.errors import GCNetError
from gcnet.files import check_own, prepare_folder, write_atomically, write_json
from gcnet.image_files import find_images, is_image
from gcnet.lab.attention import sees_image
from gcnet.models.detector import Detector
from gcnet.models.modes import in_eval_mode

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
    blocks = {name: block for name, block in context_blocks(detector).items() if sees_image(name)}
    if not blocks:
        raise GCNetError(
            f"{detector.spec.name} has no context blocks; take one that has them, such as mask_rcnn_r50_gc4"
        )
    folder = prepare_folder(out)
    check_own(folder, "analysis.json", ("blocks", "jsd_unit"), "analysis.png")
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
    """The images directly in a folder, or else those of a split of the data set at that path.

    With `count`, that many of them, evenly spaced. Raises GCNetError where there are none.
    """
    if data.is_dir() and any(is_image(path) for path in data.iterdir()):
        paths = [Path(path) for path in find_images([data])]
    else:
        paths = [record.path for record in load_split(data, split).records]
    if not paths:
        raise GCNetError(f"the split {split!r} of {data} has no images; take another")
    count = min(count or len(paths), len(paths))
    return [paths[i * len(paths) // count] for i in range(count)]


def print_analysis(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the table of blocks, and the meaning of its columns."""
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
        for path in bar.track(paths, description="measuring"):
            try:
                batch = detector.prepare(path)
            except GCNetError as error:
                bar.console.print(f"skipped: {error}", markup=False, highlight=False, soft_wrap=True)
                failed.append({"file_name": path.as_posix(), "error": str(error)})
            else:
                detector.features(batch)


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
