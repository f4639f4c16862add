"""AP against what a block costs, every seed a dot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gcnet.files import write_bytes
from gcnet.lab.ablation.report import TITLES, Cell

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
    places = _places(drawn, baseline)
    for x, cell, color in zip(places, drawn, _cycle(len(drawn)), strict=True):
        spread = cell.spread(score)
        assert spread is not None
        bar = {"fmt": "o", "color": color, "markersize": 7, "capsize": 5, "label": cell.name}
        axes.errorbar([x], [spread.mean], yerr=[spread.std or 0.0], **bar)
        values = cell.values(score)
        axes.scatter([x * 1.09] * len(values), values, s=14, color=color, alpha=0.6, linewidths=0)
    axes.set_xscale("log")
    axes.set_xlim(*_limits(places))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("FLOPs added by the blocks, millions a picture (equals side by side)")
    axes.set_ylabel(TITLES[score])
    axes.grid(alpha=0.3, which="both", linewidth=0.5)


def _places(cells: Sequence[Cell], baseline: Cell) -> list[float]:
    """Added FLOPs in millions; cells that cost nearly the same stand side by side."""
    places: list[float] = []
    for cell in cells:
        x = max(cell.flops - baseline.flops, 1) / 1e6
        while any(abs(x / other - 1) < 0.15 for other in places):
            x *= 1.2
        places.append(x)
    return places


def _limits(places: Sequence[float]) -> tuple[float, float]:
    """At least one and a half decades, so that a step to the side does not look like a difference."""
    low, high = min(places, default=1.0), max(places, default=1.0)
    margin = max(1.7, (30 * low / high) ** 0.5)
    return low / margin, high * margin


def _cycle(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]
