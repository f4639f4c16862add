"""Metrics as tables that fit a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gcnet.console import make_table
from gcnet.evaluation.classify import TOP, ClassMetrics
from gcnet.evaluation.coco_ap import NONE, Metrics

_AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_CLASS = ("AP", "AP50", "AP75")


def print_metrics(metrics: Metrics, console: Console | None = None) -> None:
    """Prints the overall tables, and the one by class unless there is only one class."""
    console = console or Console()
    console.print(_overall_table(metrics, _AP, f"COCO average precision, {metrics.images} images"))
    if metrics.best is not None:
        best = metrics.best
        line = f"best F1 {best.f1:.3f} from score {best.score:.2f} on: precision {best.precision:.3f}, "
        console.print(f"{line}recall {best.recall:.3f} (boxes, IoU 0.5)", highlight=False)
    recalls = tuple(name for name in metrics.box if name.startswith("AR"))
    console.print(_overall_table(metrics, recalls, "COCO average recall"))
    if len(metrics.per_class) > 1:
        console.print(_class_table(metrics))


def print_class_metrics(metrics: ClassMetrics, console: Console | None = None) -> None:
    """Prints the overall line and the table by class."""
    console = console or Console()
    top5 = f"top-5 {metrics.top5:.3f}, " if len(metrics.per_class) > TOP else ""  # else it is 1
    line = f"{metrics.images} images: top-1 {metrics.top1:.3f}, {top5}cross-entropy {metrics.loss:.3f}"
    console.print(line, highlight=False)
    table = make_table("by class", ["class", "images", "top-1"], width=32)
    table.add_column("most often taken for", max_width=32, no_wrap=True, overflow="ellipsis")
    for name, values in metrics.per_class.items():
        taken_for = Text(values["taken_for"] or "")
        table.add_row(Text(name), str(values["images"]), f"{values['top1']:.3f}", taken_for)
    console.print(table)


def _overall_table(metrics: Metrics, names: Sequence[str], title: str) -> Table:
    """A row for boxes and one for masks, if there are any; a column for each name."""
    both = (("box", metrics.box), ("mask", metrics.mask))
    rows = [[kind, *(_show(values[name]) for name in names)] for kind, values in both if values]
    return make_table(title, ["", *names], rows)


def _class_table(metrics: Metrics) -> Table:
    """A row for each class. Classes without annotations show "-" and count in no average."""
    kinds = ("box", "mask") if metrics.mask else ("box",)
    columns = [f"{kind} {name}" if name == "AP" else name for kind in kinds for name in _CLASS]
    rows = [
        [name, f"{values['instances']:.0f}"]
        + [_show(values[f"{kind}_{column}"]) for kind in kinds for column in _CLASS]
        for name, values in metrics.per_class.items()
    ]
    return make_table("by class", ["class", "objects", *columns], rows, width=24)


def _show(value: float) -> str:
    return "-" if value == NONE else f"{value:.3f}"
