"""What the runs of a grid come to: mean and spread over seeds beside parameters and FLOPs.

A multiply-add is two operations; what is counted is said in `gcnet.models.complexity`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from gcnet.errors import GCNetError
from gcnet.files import write_bytes, write_json
from gcnet.lab.ablation.study import cell_folder
from gcnet.models.complexity import count_complexity
from gcnet.models.spec import ModelSpec

SHOWN = ("box_AP", "box_AP50", "mask_AP", "mask_AP50")
TITLES = {"box_AP": "box AP", "box_AP50": "box AP50", "mask_AP": "mask AP", "mask_AP50": "mask AP50"}


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

    @property
    def range(self) -> str:
        """From the lowest to the highest."""
        return f"{self.low:.3f} to {self.high:.3f}"


@dataclass(frozen=True)
class Cell:
    """A cell of a grid: its size, and for each seed the scores of its run."""

    name: str
    parameters: int
    flops: int
    scores: tuple[Mapping[str, float], ...]

    @property
    def seeds(self) -> int:
        return len(self.scores)

    def values(self, name: str) -> list[float]:
        """One score of all seeds, such as "box_AP50"."""
        return [scores[name] for scores in self.scores]

    def spread(self, name: str) -> Spread | None:
        """Mean and spread of a score; None without a run."""
        return Spread.of(self.values(name)) if self.scores else None


def collect(out: Path, specs: Mapping[str, ModelSpec], size: tuple[int, int]) -> list[Cell]:
    """The cells with whatever runs have a result; `size` is the (height, width) FLOPs are counted for.

    Raises:
        GCNetError: no run of the grid has a result.
    """
    cells = []
    for name, spec in specs.items():
        paths = sorted(cell_folder(out, spec).glob("seed-*/result.json"), key=_seed)
        scores = tuple(json.loads(path.read_text()) for path in paths)
        size_of = count_complexity(spec, size)
        cells.append(Cell(name, size_of.parameters, size_of.total_flops, scores))
    if not any(cell.scores for cell in cells):
        raise GCNetError(f"{out} has no finished run of this ablation to report on")
    return cells


def _seed(result: Path) -> int:
    return int(result.parent.name.removeprefix("seed-"))


def difference(cell: Cell, baseline: Cell, name: str) -> float | None:
    """How much higher the mean of a score is than that of the baseline; None without both."""
    own, other = cell.spread(name), baseline.spread(name)
    return own.mean - other.mean if own and other else None


def console_table(cells: Sequence[Cell], title: str) -> Table:
    """For a terminal of 110 columns. The first cell is what the others are compared with."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("cell", no_wrap=True)
    shown = SHOWN[:3]
    for name in ("seeds", *(TITLES[name] for name in shown), "Δ box AP", "+k params", "+MFLOP"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in cells:
        scores = [str(cell.spread(name) or "-") for name in shown]
        delta = _signed(difference(cell, cells[0], "box_AP"))
        table.add_row(cell.name, str(cell.seeds), *scores, delta, *_added(cell, cells[0]))
    return table


def markdown_table(cells: Sequence[Cell]) -> str:
    """The same, with the range over seeds and the sizes of the whole models."""
    names = [
        "cell",
        "seeds",
        *(f"{TITLES[name]} (range)" for name in SHOWN),
        "Δ box AP",
        "Δ mask AP",
        "parameters",
        "GFLOP",
        "added parameters, k",
        "added MFLOP",
    ]
    lines = [_row(names), _row(["---", *["---:"] * (len(names) - 1)])]
    for cell in cells:
        spreads = [cell.spread(name) for name in SHOWN]
        scores = [f"{spread} ({spread.range})" if spread else "-" for spread in spreads]
        deltas = [_signed(difference(cell, cells[0], name)) for name in ("box_AP", "mask_AP")]
        sizes = [f"{cell.parameters:,}", f"{cell.flops / 1e9:.4f}"]
        lines.append(_row([cell.name, str(cell.seeds), *scores, *deltas, *sizes, *_added(cell, cells[0])]))
    return "\n".join(lines) + "\n"


def as_json(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Everything in the tables, and the scores of each run."""
    entries = []
    for cell in cells:
        spreads = {name: cell.spread(name) for name in SHOWN}
        entries.append(
            {
                "cell": cell.name,
                "parameters": cell.parameters,
                "flops": cell.flops,
                "runs": [dict(scores) for scores in cell.scores],
                **{name: vars(spread) if spread else None for name, spread in spreads.items()},
            }
        )
    return entries


def write_report(
    out: Path, grid: str, cells: Sequence[Cell], *, title: str, study: Mapping[str, Any]
) -> None:
    """Prints the table and writes it as `GRID.json`, `GRID.md` and, as a plot, `GRID.png`."""
    from gcnet.lab.ablation.plot import draw_plot

    write_json(out / f"{grid}.json", {"grid": grid, "study": dict(study), "cells": as_json(cells)})
    write_bytes(out / f"{grid}.md", f"# {title}\n\n{markdown_table(cells)}".encode())
    draw_plot(cells, out / f"{grid}.png", title=title)
    Console(width=max(Console().width, 110)).print(console_table(cells, title))
    print(f"wrote {out / grid}.md, .json and .png (AP against the FLOPs that the block adds)")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _added(cell: Cell, baseline: Cell) -> list[str]:
    """Parameters in thousands and FLOPs in millions that the cell has more than the baseline."""
    parameters, flops = cell.parameters - baseline.parameters, cell.flops - baseline.flops
    return [f"{parameters / 1e3:.1f}", f"{flops / 1e6:.2f}"]
