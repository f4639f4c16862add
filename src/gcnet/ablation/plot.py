"""AP against what a block costs, every seed a dot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gcnet.ablation.report import TITLES, Cell
from gcnet.files import write_bytes

COLORS = ("#1b6ca8", "#d1495b", "#2e933c", "#8d5a97", "#e08e1b", "#3aa6a6", "#7a6c5d", "#c2559d")


def draw_plot(
    cells: Sequence[Cell], path: Path, *, title: str, scores: Sequence[str] = ("box_AP", "mask_AP")
) -> None:
    """Draws a panel for each score: mean and sample standard deviation of each cell, and each seed's dot.

    The horizontal axis is the FLOPs that a cell adds to the first one, which has no block and is drawn as a
    line with its standard deviation as a band.
    """
    figure = Figure(figsize=(6.2 * len(scores), 4.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        _draw_panel(axes, cells, score)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    picture = io.BytesIO()
    canvas.print_png(picture)
    write_bytes(path, picture.getvalue())


def _draw_panel(axes: Any, cells: Sequence[Cell], score: str) -> None:
    baseline, *others = cells
    if spread := baseline.spread(score):
        axes.axhline(spread.mean, color="0.45", linestyle="--", linewidth=1.2, label=baseline.name)
        margin = spread.std or 0.0
        axes.axhspan(spread.mean - margin, spread.mean + margin, color="0.45", alpha=0.15, linewidth=0)
    drawn = [cell for cell in others if cell.scores]
    for x, cell, color in zip(_places(drawn, baseline), drawn, _cycle(len(drawn)), strict=True):
        spread = cell.spread(score)
        assert spread is not None
        bar = {"fmt": "o", "color": color, "markersize": 7, "capsize": 4, "label": cell.name}
        axes.errorbar([x], [spread.mean], yerr=[spread.std or 0.0], **bar)
        values = cell.values(score)
        axes.scatter([x * 1.06] * len(values), values, s=12, color=color, alpha=0.55, linewidths=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("FLOPs added by the blocks, millions a picture")
    axes.set_ylabel(TITLES[score])
    axes.grid(alpha=0.3, which="both", linewidth=0.5)


def _places(cells: Sequence[Cell], baseline: Cell) -> list[float]:
    """Added FLOPs in millions; cells that cost the same stand side by side, in steps of a few percent."""
    places: list[float] = []
    for cell in cells:
        x = max(cell.flops - baseline.flops, 1) / 1e6
        while any(abs(x / other - 1) < 0.1 for other in places):
            x *= 1.15
        places.append(x)
    return places


def _cycle(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]
