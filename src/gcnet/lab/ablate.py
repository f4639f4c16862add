"""Runs a study of the context block, from its data to its report; `gcnet.lab.runs` trains its models."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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


def ablate(study: Study, *, start: Callable[[Run], subprocess.Popen] = start_process) -> None:
    """Trains the missing runs of the study, then writes its table and plot in `study.out`.

    Raises:
        GCNetError: the folder belongs to another study, the data cannot be used, a cell cannot be built, or
            runs failed (the report on the others is written).
        KeyboardInterrupt, SystemExit: a signal; the same command goes on.
    """
    if study.recipe.batch_size == "auto":
        raise GCNetError(
            "batch_size auto may come to another number in each cell, and runs would not compare: give one"
        )
    specs = study.specs()
    for cell, spec in specs.items():
        _check_buildable(cell, spec)
    failed: list[tuple[Run, str]] = []
    if not study.report_only:
        failed = _make_missing(study, start)
    finished = {cell: _finished_runs(study.cell_folder(spec)) for cell, spec in specs.items()}
    first = next(itertools.chain.from_iterable(finished.values()), None)
    if first is not None:
        _report(study, specs, finished, json.loads((first / "run.json").read_text()))
    elif not failed:
        raise GCNetError(f"{study.out} holds no study with a finished run; run it first")
    if failed:
        raise failed_runs(failed, len(study.runs()))


def _check_buildable(cell: str, spec: ModelSpec) -> None:
    try:
        count_complexity(spec, (64, 64))
    except ValueError as error:
        raise GCNetError(f"cell {cell} cannot be built from {spec.name}: {error}") from None


def _make_missing(study: Study, start: Callable[[Run], subprocess.Popen]) -> list[tuple[Run, str]]:
    """Trains the runs that are not finished; those that failed, and why."""
    runs, recipe = study.runs(), study.recipe
    if study.data is None:
        study.claim(runs)  # the data lies in its folder
        write_context_shapes(study.data_folder, train=TRAIN_IMAGES, valid=VALID_IMAGES)
    train_set = load_data(study.data_folder)["train"]
    study.claim(runs)
    length = recipe.time or f"{recipe.epochs * iterations_per_epoch(train_set, recipe)} iterations"
    amount = f"{len(runs) // study.seeds} cells x {study.seeds} seeds, {length} each"
    print(f"{study.grid}: {amount}, in {study.out}", flush=True)
    try:
        return make_runs(runs, start, jobs=study.jobs)
    except (KeyboardInterrupt, SystemExit):
        print("stopped; the same command goes on, with --report it shows what is there", flush=True)
        raise


def _finished_runs(folder: Path) -> list[Path]:
    """The folders of a cell's finished runs, by their seeds."""
    folders = [path.parent for path in folder.glob("seed-*/result.json")]
    return sorted(folders, key=lambda run: int(run.name.removeprefix("seed-")))


def _report(
    study: Study,
    specs: Mapping[str, ModelSpec],
    finished: Mapping[str, Sequence[Path]],
    made: Mapping[str, Any],
) -> None:
    """Writes the report on finished runs, one of which was `made` so; FLOPs are of the first image."""
    valid_set = load_data(Path(made["data"]))["valid"]
    first = valid_set.records[0]
    size = made["recipe"]["image_size"] or specs["none"].image_size
    size = padded_size(fit_size((first.height, first.width), (size[0], size[1])))
    cells = []
    for cell, spec in specs.items():
        complexity = count_complexity(spec, size)
        scores = tuple(json.loads((run / "result.json").read_text()) for run in finished[cell])
        cells.append(Cell(cell, complexity.parameters, complexity.total_flops, scores))
    title = f"{study.grid}: {find_grid(study.grid).question} ({study.model})"
    shared = {name: value for name, value in made["recipe"].items() if name not in FREE}
    about = {"model": study.model, "data": made["data"], "imagenet": made["imagenet"], "recipe": shared}
    differences = _differences(finished, valid_set)
    write_report(study.out, study.grid, cells, title=title, study=about, differences=differences)


def _differences(
    finished: Mapping[str, Sequence[Path]], valid_set: DataSet[ImageRecord]
) -> dict[str, dict[str, Difference]]:
    """By how much each cell is better than each other one, of those that have finished runs."""
    paths = {cell: [run / "train" / "results.json" for run in runs] for cell, runs in finished.items()}
    there = {cell: [path for path in own if path.is_file()] for cell, own in paths.items()}
    scored = {cell: score_runs(own, valid_set) for cell, own in there.items() if own}
    return {
        cell: {other: difference(own, scored[other]) for other in scored if other != cell}
        for cell, own in scored.items()
    }
