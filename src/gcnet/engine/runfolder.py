"""What a run leaves beside its checkpoints: the recipe it can be rerun from, versions, and the logs."""

from __future__ import annotations

import csv
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from gcnet.errors import GCNetError
from gcnet.files import prepare_folder, write_bytes, write_json
from gcnet.recipe import Recipe

RECORDED = (
    "gcnet",
    "torch",
    "torchvision",
    "lightning",
    "numpy",
    "opencv-python-headless",
    "pycocotools",
)


def prepare_run_folder(out: Path, *, resume: bool) -> None:
    """Makes `out` ready to be written to.

    Raises:
        GCNetError: it cannot be written to, or holds something already and the run is not resumed.
    """
    if not resume and out.is_dir() and any(out.iterdir()):
        raise GCNetError(f"{out} is not empty: go on with its run by --resume, or give another --out")
    if not resume:
        prepare_folder(out)


def write_recipe(
    out: Path,
    recipe: Recipe,
    *,
    model: str,
    data: str | None,
    weights: str | None,
    class_names: tuple[str, ...],
) -> None:
    """Writes `recipe.yaml`: the options of `gcnet train`, so that `--config` reruns it."""
    options: dict[str, Any] = {"model": model, "data": data, "weights": weights or "none", "out": str(out)}
    options["class_names"] = list(class_names)
    for name, value in asdict(recipe).items():
        options[name] = list(value) if isinstance(value, tuple) else value
    lines = [
        f"# Train again with: gcnet train --config {out / 'recipe.yaml'} --out ANOTHER_FOLDER",
        yaml.safe_dump(options, sort_keys=False, default_flow_style=None, allow_unicode=True),
    ]
    write_bytes(out / "recipe.yaml", "\n".join(lines).encode())


def recorded_weights(out: Path) -> str | None:
    """The `weights` in the `recipe.yaml` of a run; None if there is none or it cannot be read."""
    try:
        return yaml.safe_load((out / "recipe.yaml").read_text())["weights"]
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return None


def write_versions(out: Path) -> None:
    """Writes `versions.json`: what the run was computed with."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in RECORDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    write_json(out / "versions.json", versions)


class RunLog:
    """The numbers of a run in `metrics.csv`, one row for a stretch of iterations or a validation.

    `scores` are the names of a validation's numbers. The same numbers go to TensorBoard files in
    `tensorboard/`. Rows later than `start`, left by a run that
    was killed after its last checkpoint, are dropped. A full disk costs rows, not the run.
    """

    def __init__(self, out: Path, *, scores: Sequence[str], start: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = out / "metrics.csv"
        self.rows = [row for row in read_metrics(self.path) if row["iteration"] <= start]
        self._scores = tuple(scores)
        self._columns: list[str] = []
        self._warned = False
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1 if start else None)
        if self.rows:
            self._columns = list(self.rows[0])
            write_bytes(self.path, self._as_csv(self.rows, header=True).encode())
        else:
            self.path.unlink(missing_ok=True)

    def training(self, iteration: int, values: Mapping[str, float]) -> None:
        """Adds a row of training numbers (losses, lr, ...)."""
        if not self._columns:
            self._columns = ["iteration", *values, *self._scores]
        self._add(iteration, values, "train")

    def validation(self, iteration: int, values: Mapping[str, float]) -> None:
        """Adds a row of scores; a value of -1 (no such objects) is left empty."""
        if not self._columns:
            self._columns = ["iteration", *self._scores]
        self._add(iteration, {k: v for k, v in values.items() if v >= 0}, "valid")

    def validated(self, iteration: int) -> bool:
        there = set(self._scores)
        return any(row["iteration"] == iteration and there & _present(row).keys() for row in self.rows)

    def best(self, name: str) -> float:
        """The largest value of a column so far, -1 if there is none."""
        return max((row[name] for row in self.rows if name in _present(row)), default=-1.0)

    def close(self) -> None:
        self._guard(self._board.close)

    def _add(self, iteration: int, values: Mapping[str, float], group: str) -> None:
        row = dict.fromkeys(self._columns, math.nan) | {"iteration": iteration, **values}
        first = not self.rows
        self.rows.append(row)

        def write() -> None:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(self._as_csv([row], header=first))
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, iteration)

        self._guard(write)

    def _as_csv(self, rows: list[dict[str, float]], *, header: bool) -> str:
        lines = [",".join(self._columns)] if header else []
        for row in rows:
            cells = (_present(row).get(name, "") for name in self._columns)
            lines.append(",".join(cell if isinstance(cell, str) else f"{cell:.6g}" for cell in cells))
        return "".join(line + "\n" for line in lines)

    def _guard(self, write: Any) -> None:
        try:
            write()
        except OSError as error:
            if not self._warned:
                print(f"warning: {self.path} not written ({error.strerror or error}); training goes on")
            self._warned = True


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv` (an empty cell is NaN), without a torn last line; none without a file."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    rows = []
    for cells in table[1:]:
        if len(cells) == len(table[0]):
            rows.append({n: float(c) if c else math.nan for n, c in zip(table[0], cells, strict=True)})
    return rows


def _present(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if not math.isnan(value)}
