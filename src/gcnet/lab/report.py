"""The results of a study: tables, JSON and a plot of AP against the FLOPs of a block.

A multiply-add is two operations; what is counted is said in `gcnet.models.complexity`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from rich.console import Console

from gcnet.console import listed, make_table
from gcnet.files import write_atomically, write_bytes, write_json
from gcnet.lab.sureness import Difference

TITLES = {"box_AP": "box AP", "box_AP50": "box AP50", "mask_AP": "mask AP", "mask_AP50": "mask AP50"}
ON_TERMINAL = ("cell", "seeds", "box AP", "box AP50", "mask AP", "Δ box AP", "+k params", "+MFLOP")
IN_MARKDOWN = (
    "cell",
    "seeds",
    *(f"{title} (range)" for title in TITLES.values()),
    "Δ box AP",
    "Δ mask AP",
    "parameters",
    "GFLOP",
    "added parameters, k",
    "added MFLOP",
)
COLORS = (
    *("#1b6ca8", "#d1495b", "#2e933c", "#8d5a97", "#e08e1b", "#3aa6a6", "#7a6c5d", "#c2559d"),
    *("#0b3954", "#f28482", "#84a98c", "#c9ada7", "#ffca3a", "#5e548e"),
)
LEAST_FLOPS = 1000  # of a block in the plot; less is drawn there


@dataclass(frozen=True)
class Spread:
    """A figure over several seeds; `std` is the sample standard deviation, None for a single seed."""

    mean: float
    std: float | None
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of one value or more."""
        std = statistics.stdev(values) if len(values) > 1 else None
        return Spread(statistics.fmean(values), std, min(values), max(values))

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.std is None else f" ± {self.std:.3f}")


@dataclass(frozen=True)
class Cell:
    """A cell of a study: its size, and for each finished run its scores."""

    name: str
    parameters: int
    flops: int
    scores: tuple[Mapping[str, float], ...]

    def values(self, score: str) -> list[float]:
        """One score of all seeds, such as "box_AP50"; detectors of boxes alone have none of masks."""
        return [scores[score] for scores in self.scores if score in scores]

    def spread(self, score: str) -> Spread | None:
        """Mean and spread of a score; None without one."""
        values = self.values(score)
        return Spread.of(values) if values else None


def write_report(
    out: Path,
    grid: str,
    cells: Sequence[Cell],
    *,
    title: str,
    study: Mapping[str, Any],
    differences: Mapping[str, Mapping[str, Difference]],
) -> None:
    """Prints a table and writes `GRID.json`, `GRID.md` and the plot `GRID.png`.

    The first cell is what the others are compared with. `differences` say by how much a cell is better than
    each other one, and how surely. The JSON has everything in the tables and the scores of each run.
    """
    entries = [_entry(cell, differences.get(cell.name, {})) for cell in cells]
    write_json(out / f"{grid}.json", {"grid": grid, "study": dict(study), "cells": entries})
    rows = [table_row(cell, cells[0]) for cell in cells]
    verdicts = _verdicts(cells[0].name, differences)
    lines = "\n".join(["", *(f"- {line}" for line in verdicts), ""]) if verdicts else ""
    write_bytes(out / f"{grid}.md", f"# {title}\n\n{markdown_table(rows)}{lines}".encode())
    draw_plot(cells, out / f"{grid}.png", title=title)
    shown = ([row[column] for column in ON_TERMINAL] for row in rows)
    Console(width=max(Console().width, 110)).print(make_table(title, ON_TERMINAL, shown))
    for line in verdicts:
        print(line)
    print(f"wrote {out / grid}.md, .json and .png (AP against the FLOPs that the block adds)")


def _entry(cell: Cell, differences: Mapping[str, Difference]) -> dict[str, Any]:
    """A cell as JSON."""
    spreads = {score: cell.spread(score) for score in TITLES}
    return {
        "cell": cell.name,
        "parameters": cell.parameters,
        "flops": cell.flops,
        "runs": [dict(scores) for scores in cell.scores],
        "better by": {name: asdict(one) for name, one in differences.items()},
        **{score: asdict(spread) if spread else None for score, spread in spreads.items()},
    }


def _verdicts(first: str, differences: Mapping[str, Mapping[str, Difference]]) -> list[str]:
    """By how much each cell is better than the first one, and which others it surely is better than."""
    lines = [others[first].in_words(cell, first) for cell, others in differences.items() if first in others]
    for cell, others in differences.items():
        if better := [name for name, one in others.items() if one.low > 0 and name != first]:
            lines.append(f"{cell}: surely better than {listed(better)}")
    return lines


def table_row(cell: Cell, baseline: Cell) -> dict[str, str]:
    """The cell in words, by column; "+" and "Δ" are its difference from the baseline."""
    added = f"{(cell.parameters - baseline.parameters) / 1e3:.1f}"
    flops = f"{(cell.flops - baseline.flops) / 1e6:.2f}"
    row = {
        "cell": cell.name,
        "seeds": str(len(cell.scores)),
        "parameters": f"{cell.parameters:,}",
        "GFLOP": f"{cell.flops / 1e9:.4f}",
    }
    row |= {"added parameters, k": added, "added MFLOP": flops, "+k params": added, "+MFLOP": flops}
    for score, title in TITLES.items():
        own, other = cell.spread(score), baseline.spread(score)
        row[title] = str(own or "-")
        row[f"{title} (range)"] = f"{own} ({own.low:.3f} to {own.high:.3f})" if own else "-"
        row[f"Δ {title}"] = f"{own.mean - other.mean:+.3f}" if own and other else "-"
    return row


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A line for each row, with the range over seeds and the sizes of the whole models."""
    lines = [IN_MARKDOWN, ["---", *["---:"] * (len(IN_MARKDOWN) - 1)]]
    lines += [[row[column] for column in IN_MARKDOWN] for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def draw_plot(cells: Sequence[Cell], path: Path, *, title: str) -> None:
    """Draws a panel of box AP, and one of mask AP where there is such.

    It has mean and sample standard deviation of each cell, and each seed's dot. The horizontal axis is the
    FLOPs that a cell adds to the first one, which has no block and is drawn as a line with its standard
    deviation as a band.
    """
    scores = ["box_AP", *(["mask_AP"] if any(cell.values("mask_AP") for cell in cells) else [])]
    figure = Figure(figsize=(6.2 * len(scores), 4.6), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        _draw_panel(axes, cells, score)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


def _draw_panel(axes: Any, cells: Sequence[Cell], score: str) -> None:
    baseline, *others = cells
    if spread := baseline.spread(score):
        axes.axhline(spread.mean, color="0.45", linestyle="--", linewidth=1.2, label=baseline.name)
        margin = spread.std or 0.0
        axes.axhspan(spread.mean - margin, spread.mean + margin, color="0.45", alpha=0.15, linewidth=0)
    drawn = [cell for cell in others if cell.values(score)]
    places = _places([max(cell.flops - baseline.flops, LEAST_FLOPS) / 1e6 for cell in drawn])
    for x, cell, color in zip(places, drawn, cycle(COLORS), strict=False):
        values = cell.values(score)
        spread = Spread.of(values)
        bar = {"fmt": "o", "color": color, "markersize": 7, "capsize": 5, "label": cell.name}
        axes.errorbar([x], [spread.mean], yerr=[spread.std or 0.0], **bar)
        axes.scatter([x * 1.09] * len(values), values, s=14, color=color, alpha=0.6, linewidths=0)
    # At least one and a half decades, so that dots moved apart do not look like different costs.
    low, high = min(places, default=1.0), max(places, default=1.0)
    margin = max(1.7, (30 * low / high) ** 0.5)
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("FLOPs added by the blocks, millions an image (equals side by side)")
    axes.set_ylabel(TITLES[score])
    axes.grid(alpha=0.3, which="both", linewidth=0.5)


def _places(flops: Sequence[float]) -> list[float]:
    """`flops` on the axis; cells that cost nearly the same stand side by side."""
    places: list[float] = []
    for x in flops:
        while any(abs(x / other - 1) < 0.15 for other in places):
            x *= 1.2
        places.append(x)
    return places
