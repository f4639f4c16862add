"""Runs a study of the context block, from its data to its report; `gcnet.lab.runs` trains its models."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.data.loader import iterations_per_epoch
from gcnet.errors import GCNetError
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.lab.report import Cell, write_report
from gcnet.lab.runs import failed_runs, load_data, make_runs, start_process
from gcnet.lab.study import FREE, Run, Study, find_grid
from gcnet.lab.sureness import Difference, difference, score_runs
from gcnet.models.complexity import count_complexity
from gcnet.models.spec import ModelSpec
from gcnet.ops.images import fit_size, padded_size

TRAIN_IMAGES, VALID_IMAGES = 800, 100  # of context shapes


def ablate(study: Study, *, start: Callable[[Run], subprocess.Popen] | None = None) -> None:
    """Trains the missing runs of the study, then writes its table and plot in `study.out`.

    Raises:
        GCNetError: the folder belongs to another study, the data cannot be used, a cell cannot be built, or
            runs failed (the report on the others is written).
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    specs = study.specs()
    for cell, spec in specs.items():
        _check_buildable(cell, spec)
    failed: list[tuple[Run, str]] = []
    if not study.report_only:
        failed = _make_missing(study, start or start_process)
    made = [path for spec in specs.values() for path in study.cell_folder(spec).glob("seed-*/result.json")]
    if failed and not made:
        raise failed_runs(failed, len(study.runs()))
    if not made:
        raise GCNetError(f"{study.out} holds no ablation with a finished run; run it first")
    known = json.loads(made[0].with_name("run.json").read_text())
    valid_set = load_data(Path(known["data"]))["valid"]
    first = valid_set.records[0]
    long, short = known["recipe"]["image_size"] or specs["none"].image_size
    size = padded_size(fit_size((first.height, first.width), (long, short)))
    cells = [_collect(study, cell, spec, size) for cell, spec in specs.items()]
    title = f"{study.grid}: {find_grid(study.grid).question} ({study.model})"
    shared = {name: value for name, value in known["recipe"].items() if name not in FREE}
    about = {"model": study.model, "data": known["data"], "imagenet": known["imagenet"], "recipe": shared}
    differences = _differences(study, specs, valid_set)
    write_report(study.out, study.grid, cells, title=title, study=about, differences=differences)
    if failed:
        raise failed_runs(failed, len(study.runs()))


def _check_buildable(cell: str, spec: ModelSpec) -> None:
    try:
        count_complexity(spec, (64, 64))
    except ValueError as error:
        raise GCNetError(f"cell {cell} cannot be built from {spec.name}: {error}") from None


def _make_missing(study: Study, start: Callable[[Run], subprocess.Popen]) -> list[tuple[Run, str]]:
    runs = study.runs()
    if study.data is None:
        study.claim(runs)  # the data lies in its folder
        write_context_shapes(study.data_folder, train=TRAIN_IMAGES, valid=VALID_IMAGES)
    train_set = load_data(study.data_folder)["train"]
    iterations = study.recipe.epochs * iterations_per_epoch(train_set, study.recipe)
    study.claim(runs)
    amount = f"{len(runs) // study.seeds} cells x {study.seeds} seeds, {iterations} iterations each"
    print(f"{study.grid}: {amount}, in {study.out}", flush=True)
    try:
        return make_runs(runs, start, jobs=study.jobs)
    except KeyboardInterrupt:
        print("stopped; the same command goes on, with --report it shows what is there", flush=True)
        raise


def _collect(study: Study, cell: str, spec: ModelSpec, size: tuple[int, int]) -> Cell:
    """A cell with its finished runs; FLOPs are counted for an image of `size`."""
    paths = study.cell_folder(spec).glob("seed-*/result.json")
    paths = sorted(paths, key=lambda path: int(path.parent.name.removeprefix("seed-")))
    complexity = count_complexity(spec, size)
    scores = tuple(json.loads(path.read_text()) for path in paths)
    return Cell(cell, complexity.parameters, complexity.total_flops, scores)


def _differences(
    study: Study, specs: Mapping[str, ModelSpec], valid_set: DataSet[ImageRecord]
) -> dict[str, dict[str, Difference]]:
    """By how much each cell is better than each other one, of those that have finished runs."""
    found = {
        cell: [
            path
            for path in sorted(study.cell_folder(spec).glob("seed-*/train/results.json"))
            if (path.parents[1] / "result.json").is_file()
        ]
        for cell, spec in specs.items()
    }
    scored = {cell: score_runs(paths, valid_set) for cell, paths in found.items() if paths}
    return {
        cell: {other: difference(own, scored[other]) for other in scored if other != cell}
        for cell, own in scored.items()
    }
