"""The loggers of a run: `metrics.csv`, and those that the recipe names.

To add a logger, write a class here and a line in LOGGERS.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gcnet.console import one_line
from gcnet.data.dataset import DataSet
from gcnet.errors import GCNetError
from gcnet.files import write_bytes
from gcnet.recipe import Recipe


@runtime_checkable
class Logger(Protocol):
    """Takes the numbers of an iteration; `group` is "train" or "valid"."""

    def write(self, iteration: int, group: str, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Page(Logger, Protocol):
    """A logger that also shows the results on some images of a validation."""

    def begin(self) -> None: ...

    def show(self, dataset: DataSet, found: Sequence[Any], threshold: float) -> None: ...


class MetricsFile:
    """`metrics.csv`: a row for some iterations or a validation, and what a resumed run knows of both.

    Rows later than `start`, left by a run that was killed after its last checkpoint, are dropped. `scores`
    are the names of a validation's numbers. Numbers have six digits, in memory too: a resumed run compares
    the same ones as an unbroken run.
    """

    def __init__(self, path: Path, *, scores: Sequence[str], start: int = 0) -> None:
        self.path = path
        rows, damaged = _parse(path)
        self.rows = [row for row in rows if row["iteration"] <= start]
        if damaged:
            os.replace(path, path.with_name(f"{path.name}.damaged"))
            print(f"warning: {path} has {damaged} lines that are no rows; it is kept as {path.name}.damaged")
        self._scores = tuple(scores)
        self._behind = False  # whether the disk did not take a row
        self._columns: list[str] = []
        if self.rows:
            self._columns = list(dict.fromkeys([*self.rows[0], *scores]))
            self._write_all()
        else:
            path.unlink(missing_ok=True)

    def write(self, iteration: int, group: str, values: Mapping[str, float]) -> None:
        """Adds a row. A score of -1 (no such objects) is left empty."""
        present = {k: rounded(v) for k, v in values.items() if group == "train" or v >= 0}
        if not self._columns:
            self._columns = ["iteration", *(values if group == "train" else ()), *self._scores]
        row = dict.fromkeys(self._columns, math.nan) | {"iteration": iteration, **present}
        self.rows.append(row)
        anew = self._behind or len(self.rows) == 1
        self._behind = True  # unless the next lines come to their end
        if anew:
            self._write_all()
        else:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(self._row(row))
        self._behind = False

    def close(self) -> None:
        """Writes rows that could not be written before, for example because the disk was full."""
        if self._behind:
            self._write_all()

    def _write_all(self) -> None:
        lines = [",".join(self._columns) + "\n", *map(self._row, self.rows)]
        write_bytes(self.path, "".join(lines).encode())

    def validated(self, iteration: int) -> bool:
        return any(row["iteration"] == iteration and self._is_validation(row) for row in self.rows)

    def best(self, name: str) -> float:
        """The largest value of a column so far, -1 if there is none."""
        return max((row[name] for row in self.rows if has_number(row, name)), default=-1.0)

    def since_best(self, name: str) -> int:
        """The number of validations after the best one; 0 if none has a value."""
        values = [row[name] for row in self.rows if self._is_validation(row) and has_number(row, name)]
        return len(values) - 1 - values.index(max(values)) if values else 0

    def _is_validation(self, row: Mapping[str, float]) -> bool:
        return any(has_number(row, name) for name in self._scores)

    def _row(self, row: Mapping[str, float]) -> str:
        cells = [f"{row[name]:.6g}" if has_number(row, name) else "" for name in self._columns]
        return ",".join(cells) + "\n"


def rounded(value: float) -> float:
    """A number as it is written to `metrics.csv`."""
    return float(f"{value:.6g}")


def has_number(row: Mapping[str, float], name: str) -> bool:
    """Whether the cell of a row in the column `name` is there and not empty."""
    return not math.isnan(row.get(name, math.nan))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv` (an empty cell is NaN), without a torn last line; none without a file."""
    return _parse(path)[0]


def _parse(path: Path) -> tuple[list[dict[str, float]], int]:
    """The rows, and the number of damaged lines. A torn last line, without its end, does not count."""
    if not path.is_file():
        return [], 0
    header, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    names, lines = header.split(","), lines[:-1]
    if not lines:
        return [], 0
    if "iteration" not in names:
        return [], len(lines) + 1
    rows = []
    for line in lines:
        cells = line.split(",")
        with contextlib.suppress(ValueError):
            rows.append({n: float(c) if c else math.nan for n, c in zip(names, cells, strict=True)})
    return rows, len(lines) - len(rows)


class TensorBoard:
    """Writes event files in `tensorboard/`."""

    def __init__(self, out: Path, start: int, recipe: Recipe) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1 if start else None)

    def write(self, iteration: int, group: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, iteration)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, named like the folder; its project and account are those of WANDB_*."""

    def __init__(self, out: Path, start: int, recipe: Recipe) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        resume = "auto" if start else None  # it keeps the name of the run in the folder
        self._run = wandb.init(dir=str(out), name=out.name, resume=resume, config=asdict(recipe))

    def write(self, iteration: int, group: str, values: Mapping[str, float]) -> None:
        self._run.log({f"{group}/{name}": value for name, value in values.items()}, step=iteration)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of MLflow at MLFLOW_TRACKING_URI, named like the folder; its id is in `mlflow.txt`."""

    def __init__(self, out: Path, start: int, recipe: Recipe) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        self._mlflow, known = mlflow, out / "mlflow.txt"
        if start and known.exists():
            mlflow.start_run(run_id=known.read_text())
            return
        run = mlflow.start_run(run_name=out.name)
        write_bytes(known, run.info.run_id.encode())
        mlflow.log_params(asdict(recipe))

    def write(self, iteration: int, group: str, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics({f"{group}/{name}": value for name, value in values.items()}, step=iteration)

    def close(self) -> None:
        self._mlflow.end_run()


# By the name of the package that it needs, which is its name in a recipe.
LOGGERS: dict[str, Callable[[Path, int, Recipe], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def check_loggers(names: Sequence[str]) -> None:
    """Raises GCNetError if a logger is unknown or its package not installed."""
    for name in names:
        if name not in LOGGERS:
            raise GCNetError(f"recipe: no logger {name!r}; there are {', '.join(LOGGERS)}")
        if find_spec(name) is None:
            extra = "train" if name == "tensorboard" else name
            raise GCNetError(f"recipe: the logger {name} is not installed; pip install 'gcnet[{extra}]'")


def _start(name: str, out: Path, start: int, recipe: Recipe) -> Logger:
    try:
        return LOGGERS[name](out, start, recipe)
    except Exception as error:  # no account, no server: each has its own kinds
        reason = one_line(str(error)) or type(error).__name__
        raise GCNetError(
            f"recipe: the logger {name} did not start ({reason}); put that right, or leave it out of loggers"
        ) from error


class RunLog:
    """All loggers of a run. If one fails to write, the run continues with a warning.

    Raises GCNetError if one does not even start.
    """

    def __init__(self, out: Path, start: int, recipe: Recipe, *, scores: Sequence[str]) -> None:
        self.metrics = MetricsFile(out / "metrics.csv", scores=scores, start=start)
        self._loggers: list[Logger] = [self.metrics]
        self._loggers += [_start(name, out, start, recipe) for name in recipe.loggers]
        self._warned: set[str] = set()

    def add(self, page: Page) -> None:
        """Adds a page, which is updated from now on."""
        self._loggers.append(page)
        self._guard(page.begin)

    def show(self, dataset: DataSet, found: Sequence[Any], threshold: float) -> None:
        """Shows samples of a validation on the pages."""
        for page in self._loggers:
            if isinstance(page, Page):
                self._guard(page.show, dataset, found, threshold)

    def write(self, iteration: int, group: str, values: Mapping[str, float]) -> None:
        for logger in self._loggers:
            self._guard(logger.write, iteration, group, values)

    def close(self) -> None:
        for logger in self._loggers:
            self._guard(logger.close)

    def _guard(self, act: Any, *values: Any) -> None:
        """Calls a method of a logger."""
        name = type(act.__self__).__name__
        try:
            act(*values)
        except Exception as error:  # a full disk, a server that is gone
            if name not in self._warned:
                print(
                    f"warning: {name} did not take the numbers ({one_line(str(error))}); training goes on",
                    flush=True,
                )
            self._warned.add(name)
