"""A picture of a run: its losses and its validation AP over the iterations."""

from __future__ import annotations

import math
from pathlib import Path

from gcnet.engine.runfolder import read_metrics


def draw_curves(metrics_csv: Path, picture: Path) -> None:
    """Draws `metrics.csv` as a PNG: losses at the left, AP (if there was a validation) at the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(metrics_csv)
    names = list(rows[0]) if rows else []
    panels = [
        ("loss", sorted(name for name in names if name.startswith("loss"))),
        ("validation AP", [name for name in ("box_AP", "box_AP50", "mask_AP", "mask_AP50") if name in names]),
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
        axes.set_ylim(bottom=0, top=None if title == "loss" else 1)
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(picture, dpi=120)
