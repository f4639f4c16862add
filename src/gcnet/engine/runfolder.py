"""The files that a run writes beside its checkpoints: the recipe to repeat it, versions, and curves."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from gcnet.engine.loggers import has_number, read_metrics
from gcnet.files import alone_in, check_unused, prepare_folder, write_atomically, write_bytes, write_json
from gcnet.models.spec import ClassifierSpec, ModelSpec
from gcnet.recipe import Recipe

SPLIT_FILE = "split.json"  # which images were held out of an undivided set
RECORDED = ("gcnet", "torch", "torchvision", "numpy", "opencv-python-headless", "pycocotools")


@contextlib.contextmanager
def claimed(out: Path, *, resume: bool) -> Iterator[None]:
    """A context in which only this run writes to `out`.

    Raises:
        GCNetError: it cannot be written to, another run is writing there, or it holds something already and
            the run is not resumed.
    """
    if not resume:
        prepare_folder(out)
    with alone_in(out) if out.is_dir() else contextlib.nullcontext():
        if not resume:
            check_unused(out)
        yield


def write_recipe(
    out: Path,
    recipe: Recipe,
    *,
    spec: ModelSpec | ClassifierSpec,
    data: Mapping[str, str],
    weights: str | None,
) -> None:
    """Writes `recipe.yaml`: the options of `gcnet train`, so that `--config` reruns it."""
    options: dict[str, Any] = {"model": spec.name, "data": None, **data, "weights": weights or "none"}
    options |= {"out": str(out), "class_names": spec.class_names, **asdict(recipe)}
    lines = [
        f"# Train again with: gcnet train --config {out / 'recipe.yaml'} --out ANOTHER_FOLDER",
        yaml.safe_dump(options, sort_keys=False, default_flow_style=None, allow_unicode=True),
    ]
    write_bytes(out / "recipe.yaml", "\n".join(lines).encode("utf-8", "backslashreplace"))


def amend_recipe(out: Path, **changes: int) -> None:
    """Changes numbers in the `recipe.yaml` of a run."""
    path = out / "recipe.yaml"
    text = path.read_text(encoding="utf-8")
    for name, value in changes.items():
        text = re.sub(rf"^{name}: .*", f"{name}: {value}", text, flags=re.MULTILINE)
    write_bytes(path, text.encode())


def recorded(out: Path, name: str) -> Any:
    """An option in the `recipe.yaml` of a run; None if it is absent or cannot be read."""
    try:
        return yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))[name]
    except (OSError, yaml.YAMLError, ValueError, RecursionError, LookupError, TypeError):
        return None


def own_split(model: Path, data: Path) -> Path | None:
    """The split.json of a run folder or a model in it, if the run was trained on `data`."""
    if not model.exists():  # a name
        return None
    out = model if model.is_dir() else model.parent
    words = [recorded(out, name) for name in ("data", "annotations")]
    trained = any(isinstance(word, str) and Path(word).resolve() == data.resolve() for word in words)
    return out / SPLIT_FILE if trained and (out / SPLIT_FILE).is_file() else None


def write_versions(out: Path) -> None:
    """Writes `versions.json`: the versions of the libraries."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in RECORDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    write_json(out / "versions.json", versions)


def draw_curves(metrics_csv: Path, image: Path, scores: Sequence[str]) -> None:
    """Draws `metrics.csv` as a PNG: losses at the left, `scores` (if there was a validation) at the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(metrics_csv)
    names = list(rows[0]) if rows else []
    losses = sorted(name for name in names if name.startswith("loss"))
    losses = losses if len(losses) > 2 else losses[:1]  # the sum alone where it is of one
    panels = [
        ("loss", [*losses, *(name for name in names if name == "valid_loss")]),
        ("validation", [name for name in scores if name in names and name != "valid_loss"]),
    ]
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)  # no display needed
    for axes, (title, columns) in zip(figure.subplots(1, 2), panels, strict=True):
        for name in columns:
            points = [(row["iteration"], row[name]) for row in rows if has_number(row, name)]
            if points:
                mark = "" if name.startswith("loss") else "."
                label = name.replace("_", " ")
                axes.plot(*zip(*points, strict=True), label=label, marker=mark, linewidth=1.2)
        axes.set_xlabel("iteration")
        axes.set_ylim(bottom=0, top=None if title == "loss" else 1.02)
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    write_atomically(image, lambda file: figure.savefig(file, dpi=120, format="png"))
