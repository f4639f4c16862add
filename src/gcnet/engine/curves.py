"""A picture of a run: its losses and its validation scores over the iterations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gcnet.engine.runfolder import read_metrics


def draw_curves(metrics_csv: Path, picture: Path, scores: Sequence[str]) -> None:
    """Draws `metrics.csv` as a PNG: losses at the left, `scores` (if there was a validation) at the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(metrics_csv)
    names = list(rows[0]) if rows else []
    losses = sorted(name for name in names if name.startswith("loss"))
    panels = [
        ("loss", losses if len(losses) > 2 else losses[:1]),  # the sum alone where it is of one
        ("validation", [name for name in scores if name in names]),
    ]
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)  # no display needed
    for axes, (title, columns) in zip(figure.subplots(1, 2), panels, strict=True):
        for name in columns:
            points = [(row["iteration"], row[name]) for row in rows if not math.isnan(row[name])]
            if points:
                mark = "" if title == "loss" else "."
                label = name.replace("_", " ")
                axes.plot(*zip(*points, strict=True), label=label, marker=mark, linewidth=1.2)
        axes.set_xlabel("iteration")
        axes.set_ylim(bottom=0, top=None if title == "loss" else 1.02)
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(picture, dpi=120)
