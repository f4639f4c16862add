"""Does attention depend on the query? Every context block of a model, measured over a set of pictures.

The measures are those of arXiv 1904.11492, section 3.2 (its Table 1); `gcnet.context.look` has them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from gcnet.console import progress_bar
from gcnet.context.look import BlockStatistics, context_blocks, mean_statistics, measure
from gcnet.data.load import load_split
from gcnet.errors import GCNetError
from gcnet.files import prepare_folder, write_atomically, write_json
from gcnet.image_files import find_images, is_image
from gcnet.lab.attention import block_titles
from gcnet.models.detector import Detector
from gcnet.models.modes import eval_mode

SHORT = {"GlobalContext": "GC", "SimplifiedNonLocal": "SNL", "NonLocal": "NL", "SqueezeExcitation": "SE"}
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


@dataclass(frozen=True)
class Analysis:
    """The mean statistics of each block by its module name, and what was measured."""

    model: str
    images: int
    queries: int
    seed: int
    blocks: dict[str, BlockStatistics]
    kinds: dict[str, str]
    failed: tuple[tuple[Path, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON. A figure that has no meaning for a block is null."""
        titles = block_titles(self.blocks)
        return {
            "model": self.model,
            "images": self.images,
            "queries": self.queries,
            "seed": self.seed,
            "jsd_unit": "nat",
            "failed": [{"file_name": path.as_posix(), "error": error} for path, error in self.failed],
            "blocks": [
                {"name": name, "title": titles[name], "kind": self.kinds[name], **asdict(block)}
                for name, block in self.blocks.items()
            ],
        }


def analyse(
    detector: Detector,
    paths: Sequence[Path],
    out: str | os.PathLike[str],
    *,
    queries: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> Analysis:
    """Measures every context block of `detector` on pictures; `analysis.json` and `analysis.png` in `out`.

    Pictures are resized as for prediction; backbone and neck run, the heads do not. What was measured until
    then is written whatever ends the run. A picture that cannot be read is reported on stderr and left out.

    Args:
        queries: how many positions' attention maps are compared, at most; see `measure`.
        seed: of their choice.

    Raises:
        GCNetError: the model has no context block, no picture could be read, or `out` cannot be written in.
    """
    blocks = context_blocks(detector)
    if not blocks:
        raise GCNetError(
            f"{detector.spec.name} has no context blocks; take a model that has, such as mask_rcnn_r50_gc4"
        )
    folder = prepare_folder(out)
    kinds = {name: type(block).__name__ for name, block in blocks.items()}
    failed: list[tuple[Path, str]] = []
    with measure(detector, queries=queries, seed=seed) as found:
        try:
            _run(detector, paths, failed, progress)
        finally:
            means = {name: mean_statistics(images) for name, images in found.items()}
            read = max((len(images) for images in found.values()), default=0)
            result = Analysis(detector.spec.name, read, queries, seed, means, kinds, tuple(failed))
            if read:
                write_json(folder / "analysis.json", result.as_dict())
                _draw_bars(result, folder / "analysis.png")
    if not read:
        raise GCNetError(f"none of the {len(paths)} pictures could be read: {failed[0][1]}")
    return result


def choose_pictures(data: Path, *, split: str = "valid", count: int | None = None) -> list[Path]:
    """The pictures directly in a folder, or else those of a split of the COCO-format data set that it is.

    With `count`, that many of them, evenly spaced. Raises GCNetError where there are none.
    """
    if any(is_image(path) for path in data.iterdir()):
        paths = find_images([data])
    else:
        paths = [record.path for record in load_split(data, split).records]
    if not paths:
        raise GCNetError(f"the split {split!r} of {data} has no pictures; take another")
    if count is None or count >= len(paths):
        return paths
    return [paths[i * len(paths) // count] for i in range(count)]


def print_analysis(analysis: Analysis, console: Console | None = None) -> None:
    """The table of blocks, and what its columns are."""
    titles = block_titles(analysis.blocks)
    table = Table(
        title=f"mean distance between positions, {analysis.images} images of {analysis.model}",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("block")
    table.add_column("kind")
    for heading in (*(heading for _, heading, _ in DISTANCES), "covers"):
        table.add_column(heading, justify="right")
    for name, block in analysis.blocks.items():
        figures = [_show(getattr(block, field)) for field, _, _ in DISTANCES]
        covers = "-" if block.share is None else f"{100 * block.share:.1f} %"
        table.add_row(titles[name], SHORT.get(analysis.kinds[name], analysis.kinds[name]), *figures, covers)
    console = console or Console()
    console.print(table)
    for line in LEGEND:
        console.print(line, highlight=False, soft_wrap=True)


def _run(detector: Detector, paths: Sequence[Path], failed: list[tuple[Path, str]], progress: bool) -> None:
    with eval_mode(detector), torch.inference_mode(), progress_bar(disable=not progress) as bar:
        task = bar.add_task("measuring", total=len(paths))
        for path in paths:
            try:
                batch = detector.prepare(path)
            except GCNetError as error:
                bar.console.print(f"skipped: {error}", markup=False, highlight=False, soft_wrap=True)
                failed.append((path, str(error)))
            else:
                detector.features(batch)
            bar.advance(task)


def _show(value: float | None) -> str:
    """Three decimals; small ones with an exponent, so that nearly nothing is not taken for nothing."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}" if value else "0"


def _draw_bars(analysis: Analysis, path: Path) -> None:
    """Distances at the left, the share of the map that attention covers at the right; a group a block."""
    titles = list(block_titles(analysis.blocks).values())
    blocks = list(analysis.blocks.values())
    # Bars of five distances need room: the figure grows with the number of blocks.
    figure = Figure(figsize=(4 + 0.85 * len(blocks) + 3, 4), layout="constrained")
    FigureCanvasAgg(figure)  # no display needed
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    width = 0.8 / len(DISTANCES)
    highest = max((getattr(block, field) or 0 for block in blocks for field, _, _ in DISTANCES), default=0)
    for k, (field, heading, color) in enumerate(DISTANCES):
        values = [getattr(block, field) for block in blocks]
        places = [i + (k - (len(DISTANCES) - 1) / 2) * width for i in range(len(blocks))]
        left.bar(places, [value or 0 for value in values], width, label=heading, color=color)
        for place, value in zip(places, values, strict=True):
            if value is None or value < 0.02 * highest:  # hardly a bar: the number stands there
                above = (value or 0) + 0.01 * highest
                left.text(place, above, _show(value), ha="center", fontsize=7, color=color, rotation=90)
    left.set_ylabel("mean distance between positions")
    left.legend(
        fontsize=8, ncols=len(DISTANCES), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False
    )
    right.bar(range(len(blocks)), [100 * (block.share or 0) for block in blocks], 0.6, color="#e08a1e")
    right.set_ylabel("share of the map that attention covers [%]")
    for axes in (left, right):
        axes.set_xticks(range(len(blocks)), titles, rotation=0 if len(blocks) < 8 else 90)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    figure.suptitle(f"{analysis.model}, {analysis.images} images", fontsize=11)
    write_atomically(path, lambda file: figure.savefig(file, dpi=120, format="png"))
