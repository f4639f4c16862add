"""A folder of runs that can be compared: what they have in common, and which are to be made.

No torch here. A run is a block and a seed; everything else is the same for all runs of a folder. Cells of
different grids that mean the same block share their runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gcnet.errors import GCNetError
from gcnet.files import prepare_folder, write_json
from gcnet.lab.ablation.grids import cell_contexts, context_name, find_grid, with_context
from gcnet.models.spec import ContextSpec, ModelSpec
from gcnet.recipe import Recipe
from gcnet.weights.catalog import find_detector

# What may differ between the runs of a folder: it changes no number, or is each run's own.
_FREE = ("seed", "workers", "checkpoint_every", "validate_every")


@dataclass(frozen=True)
class Study:
    """What all runs of a folder have in common. `recipe.seed` is the first of the seeds.

    `data` is the folder of a COCO-format data set; None stands for context shapes, drawn in the study's own
    folder. `imagenet` starts backbones from ImageNet weights.
    """

    model: str
    data: Path | None
    recipe: Recipe
    imagenet: bool = False

    def data_folder(self, out: Path) -> Path:
        """Where the pictures are, for a study in `out`."""
        return self.data or out / "data"

    def spec(self, context: ContextSpec | None) -> ModelSpec:
        """The study's model with another block; its classes are those of the catalog."""
        return with_context(find_detector(self.model).spec, context)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with all of the recipe that decides on the numbers."""
        recipe = {name: value for name, value in asdict(self.recipe).items() if name not in _FREE}
        data = str(self.data.absolute()) if self.data else None
        values = {"model": self.model, "data": data, "imagenet": self.imagenet, "recipe": recipe}
        return json.loads(json.dumps(values))


@dataclass(frozen=True)
class Run:
    """One training: `folder` holds what it is (`run.json`), its log, its training and its `result.json`."""

    cell: str
    seed: int
    folder: Path

    @property
    def label(self) -> str:
        return f"{self.cell}, seed {self.seed}"

    @property
    def result(self) -> dict[str, Any] | None:
        """What came out, once it has."""
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.is_file() else None


def grid_specs(study: Study, grid: str) -> dict[str, ModelSpec]:
    """The model of each cell. A model without a block lends the cells the default one."""
    base = find_detector(study.model).spec.backbone.context or ContextSpec()
    return {name: study.spec(context) for name, context in cell_contexts(find_grid(grid), base).items()}


def cell_folder(out: Path, spec: ModelSpec) -> Path:
    """Where the runs of a model are, one folder a seed."""
    return out / "runs" / context_name(spec.backbone.context)


def plan_runs(out: Path, specs: Mapping[str, ModelSpec], seeds: list[int]) -> list[Run]:
    """All runs, seed by seed: what is there after an interruption compares all cells."""
    return [
        Run(cell, seed, cell_folder(out, spec) / f"seed-{seed}")
        for seed in seeds
        for cell, spec in specs.items()
    ]


def claim_folder(out: Path, study: Study) -> None:
    """Makes `out` the study's folder, or checks that it is.

    Raises:
        GCNetError: `out` cannot be written to, or holds something else or a study of another recipe.
    """
    path = out / "ablation.json"
    if not path.exists():
        if out.is_dir() and any(out.iterdir()):
            raise GCNetError(f"{out} holds something that is no ablation: give another --out")
        write_json(prepare_folder(out) / path.name, study.as_dict())
        return
    theirs, ours = (_flat(each.as_dict()) for each in (read_study(out), study))
    for name, value in ours.items():
        if theirs[name] != value:
            raise GCNetError(
                f"{out} was made with {name} {theirs[name]}, not {value}, and runs would not compare: "
                "keep to that or give another --out"
            )


def read_study(out: Path) -> Study:
    """What `claim_folder` wrote. Raises GCNetError if `out` is no folder of an ablation."""
    try:
        values = json.loads((out / "ablation.json").read_text())
        data = Path(values["data"]) if values["data"] else None
        return Study(values["model"], data, _recipe(values["recipe"]), values["imagenet"])
    except (OSError, ValueError, TypeError, KeyError):
        raise GCNetError(f"{out} holds no ablation (no readable ablation.json); run it first") from None


def write_run(run: Run, study: Study, spec: ModelSpec, data: Path) -> None:
    """Writes `run.json`, all that a process needs to make the run. `data` is the folder of pictures.

    Raises:
        GCNetError: the folder holds a run of another model, made before the catalog or the grid changed.
    """
    path = prepare_folder(run.folder) / "run.json"
    if path.exists():
        before = ModelSpec.from_dict(json.loads(path.read_text())["spec"])
        if before != spec:
            raise GCNetError(f"{run.folder} holds a run of another {spec.name}: remove it and run again")
    # The one validation that counts is that of the final model.
    recipe = replace(study.recipe, seed=run.seed, validate_every=study.recipe.epochs)
    values = {
        "spec": asdict(spec),
        "recipe": asdict(recipe),
        "data": str(data),
        "imagenet": study.imagenet,
    }
    write_json(path, values)


def read_run(folder: Path) -> tuple[ModelSpec, Recipe, Path, bool]:
    """Spec, recipe, data and ImageNet start of the run in `folder`."""
    values = json.loads((folder / "run.json").read_text())
    spec, recipe = ModelSpec.from_dict(values["spec"]), _recipe(values["recipe"])
    return spec, recipe, Path(values["data"]), values["imagenet"]


def _recipe(values: Mapping[str, Any]) -> Recipe:
    plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return Recipe(**plain)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "recipe"} | values["recipe"]
