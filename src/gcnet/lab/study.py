"""Trainings that are compared, the folder of their runs, and the paper's studies of the context block.

A *cell* is a variant that is compared with others; in the paper's studies (arXiv 1904.11492, section 5.1) it
is a context block. A *run* is one training of a cell with one seed. Everything else is the same for all runs
of a folder; studies share the runs of cells that are equal.

This does not import torch, so that `gcnet ablate --help` is quick.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gcnet.console import did_you_mean
from gcnet.context_spec import BLOCKS
from gcnet.errors import GCNetError
from gcnet.files import prepare_folder, write_json
from gcnet.models.spec import ContextSpec, ModelSpec
from gcnet.recipe import Recipe
from gcnet.weights.catalog import Row, find_detector

ALL = (False, True, True, True)
STAGES = {
    "c3": (False, True, False, False),
    "c4": (False, False, True, False),
    "c5": (False, False, False, True),
    "c4-c5": (False, False, True, True),
    "c3-c5": ALL,
}

# Recipe fields that may differ between runs that are compared: they change no result, or are each run's own.
FREE = ("seed", "workers", "checkpoint_every", "validate_every", "validation_loss", "loggers")


@dataclass(frozen=True)
class Grid:
    """A question, and for each cell the fields that it changes in the model's own context block.

    Beside its cells every study has the cell "none", a model without blocks.
    """

    question: str
    cells: Mapping[str, Mapping[str, Any]]


GRIDS: dict[str, Grid] = {
    "block": Grid(
        "which block, and in one stage or in all",
        {
            f"{block.upper()} {place}": {"block": block, "stages": stages}
            for place, stages in (("c4", STAGES["c4"]), ("all", ALL))
            for block in BLOCKS
        },
    ),
    "position": Grid(
        "before or after the sum with the shortcut",
        {position: {"position": position} for position in ("after1x1", "after_add")},
    ),
    "stage": Grid(
        "in which stages of the backbone",
        {name: {"stages": stages} for name, stages in STAGES.items()},
    ),
    "ratio": Grid(
        "how narrow the bottleneck may be",
        {f"1/{divisor}": {"ratio": 1 / divisor} for divisor in (4, 8, 16, 32)},
    ),
    "pooling_fusion": Grid(
        "what context modelling and what fusion contribute",
        {
            f"{pooling}, {fusion}": {"pooling": pooling, "fusion": (fusion,)}
            for pooling in ("average", "attention")
            for fusion in ("scale", "add")
        },
    ),
    "context": Grid("does the model's own block help", {"with block": {}}),
}


def find_grid(name: str) -> Grid:
    """The grid of that name. Raises GCNetError, with the nearest name, if there is none."""
    if name in GRIDS:
        return GRIDS[name]
    hint = did_you_mean(name, GRIDS, otherwise=f"there are {', '.join(GRIDS)}")
    raise GCNetError(f"there is no study {name!r}; {hint}")


def context_name(context: ContextSpec | None) -> str:
    """A folder name for a block: equal blocks have equal names, whichever study they are in."""
    if context is None:
        return "none"
    stages = "".join(f"c{i}" for i, used in enumerate(context.stages, 2) if used)
    words = [context.block, stages, context.position]
    for name, value in context.options.items():
        short = f"r{1 / value:g}" if name == "ratio" else value
        words += map(str, short if isinstance(short, tuple) else [short])
    return "-".join(words)


def with_context(spec: ModelSpec, context: ContextSpec | None) -> ModelSpec:
    """`spec` with another block, under a name that says so and that no model of the catalog has."""
    name = f"{spec.name}+{context_name(context)}"
    return replace(spec, name=name, backbone=replace(spec.backbone, context=context))


@dataclass(frozen=True)
class Run:
    """One training: `folder` holds what it is (`run.json`), its log, its training and its `result.json`.

    `values` are what a process needs to make it, as JSON has them.
    """

    cell: str
    seed: int
    folder: Path
    values: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.cell}, seed {self.seed}"

    @property
    def result(self) -> dict[str, Any] | None:
        """The scores of a finished run."""
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.is_file() else None


@dataclass(frozen=True)
class Study:
    """The options of `gcnet ablate` and `gcnet curve`.

    Attributes:
        out: a folder for runs, tables and plots.
        model: a name of the catalog. One without a context block lends cells the default one.
        recipe: of every run; its seed is the first of `seeds` seeds.
        data: a data set with images to train and to validate on; None stands for context shapes, drawn in
            `out`/data.
        imagenet: start backbones from ImageNet weights.
        seeds: number of seeds, counted from --seed on; each variant is trained with each of them.
        jobs: trainings at a time, a process each.
        grid: of an ablation, a name in `GRIDS`.
        report_only: make no runs, only the report on those that are finished.
    """

    out: Path
    model: str
    recipe: Recipe
    data: Path | None = None
    imagenet: bool = False
    seeds: int = 3
    jobs: int = 1
    grid: str = ""
    report_only: bool = False

    @property
    def data_folder(self) -> Path:
        """The folder of the data set."""
        return self.data or self.out / "data"

    @property
    def all_seeds(self) -> range:
        return range(self.recipe.seed, self.recipe.seed + self.seeds)

    def specs(self) -> dict[str, ModelSpec]:
        """The model of each cell of an ablation; its classes are those of the catalog."""
        spec = find_detector(self.model).spec
        base = spec.backbone.context or ContextSpec()
        contexts = {name: base.changed(**change) for name, change in find_grid(self.grid).cells.items()}
        return {name: with_context(spec, context) for name, context in {"none": None, **contexts}.items()}

    def cell_folder(self, spec: ModelSpec) -> Path:
        """Where the runs of a cell's model are, one folder a seed."""
        return self.out / "runs" / context_name(spec.backbone.context)

    def runs(self) -> list[Run]:
        """All runs of an ablation, seed by seed: what is there after an interruption compares all cells."""
        specs = self.specs().items()
        return [
            self.run(cell, self.cell_folder(spec), seed, spec)
            for seed in self.all_seeds
            for cell, spec in specs
        ]

    def run(self, cell: str, folder: Path, seed: int, spec: ModelSpec, share: float | None = None) -> Run:
        """A run; on a share of the training images it makes as many iterations as on all."""
        epochs = round(self.recipe.epochs / (share or 1))
        # The one validation that counts is that of the final model.
        recipe = replace(self.recipe, seed=seed, epochs=epochs, validate_every=epochs)
        values = {"spec": asdict(spec), "recipe": asdict(recipe)}
        values |= {"data": str(self.data_folder), "imagenet": self.imagenet}
        values |= {} if share is None else {"share": share}
        # Lists for tuples, as they are read.
        return Run(cell, seed, folder / f"seed-{seed}", json.loads(json.dumps(values)))

    def claim(self, runs: Sequence[Run]) -> None:
        """Writes `run.json` for each run, after checking those that exist.

        Raises:
            GCNetError: `out` cannot be written to, holds something else, or runs that would not compare.
        """
        if self.out.is_dir() and any(self.out.iterdir()) and not (self.out / "runs").is_dir():
            raise GCNetError(f"{self.out} holds something that is no study: give another --out")
        for folder, one in {run.folder.parent: run for run in runs}.items():  # all that differs is the seed
            for path in sorted(folder.glob("seed-*/run.json")):
                _check_alike(path.parent, json.loads(path.read_text()), one.values)
        for run in runs:
            write_json(prepare_folder(run.folder) / "run.json", run.values)


def _check_alike(folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raises GCNetError if a run was made with other options."""
    if ModelSpec.from_dict(theirs["spec"]) != ModelSpec.from_dict(ours["spec"]):
        raise GCNetError(f"{folder} holds a run of another model or block: remove it or give another --out")
    known, own = ({**values["recipe"], **values} for values in (theirs, ours))
    for name, value in own.items():
        if name not in (*FREE, "spec", "recipe") and known.get(name, value) != value:
            raise GCNetError(
                f"{folder} was made with {name} {known[name]}, not {value}, and runs would not compare: keep "
                "to that or give another --out"
            )


def read_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe from JSON, which has lists for tuples."""
    plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return Recipe(**plain)


def context_shapes_recipe(row: Row) -> Recipe:
    """The row's recipe, shortened as far as models still learn to use the lamp (figures: docs/ablations.md).

    In place of an average of weights there is a rate that falls, as in all of those figures. Images are
    generated, all of one size, and there are enough of them: augmentation gains nothing.
    """
    falls = replace(row.recipe, schedule="cosine", lr=2e-3) if row.recipe.schedule == "free" else row.recipe
    return replace(
        falls,
        epochs=2,
        batch_size=4,
        lr_batch_size=4,
        image_size=(128, 128),
        scale_jitter=(1.0, 1.0),
        color_jitter=0.0,
        devices=1,
        workers=0,
    )
