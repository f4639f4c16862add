"""Metrics as tables that fit a terminal of 80 columns."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gcnet.evaluation.coco_ap import NONE, Metrics

_AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_CLASS = ("AP", "AP50", "AP75")


def print_metrics(metrics: Metrics, console: Console | None = None, *, per_class: bool = True) -> None:
    """Prints the overall tables, and the one by class unless there is only one class or it is not wanted."""
    console = console or Console()
    console.print(overall_table(metrics, _AP, f"COCO average precision, {metrics.images} images"))
    if metrics.best is not None:
        best = metrics.best
        line = f"best F1 {best.f1:.3f} from score {best.score:.2f} on: precision {best.precision:.3f}, "
        console.print(f"{line}recall {best.recall:.3f} (boxes, IoU 0.5)", highlight=False)
    recalls = tuple(name for name in metrics.box if name.startswith("AR"))
    console.print(overall_table(metrics, recalls, "COCO average recall"))
    if per_class and len(metrics.per_class) > 1:
        console.print(class_table(metrics))


def overall_table(metrics: Metrics, names: tuple[str, ...], title: str) -> Table:
    """A row for boxes and one for masks, if there are any; a column for each name."""
    table = _table(title)
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for row, values in (("box", metrics.box), ("mask", metrics.mask)):
        if values:
            table.add_row(row, *(_show(values[name]) for name in names))
    return table


def class_table(metrics: Metrics) -> Table:
    """A row for each class. Classes without annotations show "-" and count in no average."""
    table = _table("by class")
    table.add_column("class", max_width=24, no_wrap=True, overflow="ellipsis")
    table.add_column("objects", justify="right")
    kinds = ("box", "mask") if metrics.mask else ("box",)
    for kind in kinds:
        for i, name in enumerate(_CLASS):
            table.add_column(f"{kind} {name}" if i == 0 else name, justify="right")
    for name, values in metrics.per_class.items():
        columns = (values[f"{kind}_{column}"] for kind in kinds for column in _CLASS)
        table.add_row(Text(name), f"{values['instances']:.0f}", *(_show(value) for value in columns))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)


def _show(value: float) -> str:
    return "-" if value == NONE else f"{value:.3f}"
