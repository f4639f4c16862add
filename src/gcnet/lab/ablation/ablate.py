"""A study from its options to its table: data, runs, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gcnet.data.coco import CocoDataset
from gcnet.data.loader import iterations_per_epoch
from gcnet.errors import GCNetError
from gcnet.lab.ablation.grids import find_grid
from gcnet.lab.ablation.options import Options
from gcnet.lab.ablation.report import collect, write_report
from gcnet.lab.ablation.run import load_data
from gcnet.lab.ablation.runner import Job, Outcome, make_runs
from gcnet.lab.ablation.study import Run, Study, claim_folder, grid_specs, plan_runs, read_study, write_run
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.models.complexity import count_complexity
from gcnet.models.spec import ModelSpec
from gcnet.ops.images import fit_size, padded_size

TRAIN_PICTURES, VALID_PICTURES = 800, 100  # of context shapes


def ablate(options: Options, *, start: Callable[[Run], Job] | None = None) -> None:
    """Makes what runs of the study are missing, then its table and plot in `options.out`.

    Raises:
        GCNetError: the folder belongs to another study, the data cannot be used, a cell cannot be built, or
            runs failed (the report on the others is written).
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    study = Study(options.model, options.data, options.recipe, options.imagenet)
    if options.report:
        study = read_study(options.out)
    specs = grid_specs(study, options.grid)
    for name, spec in specs.items():
        _check_buildable(name, spec)
    outcome = Outcome()
    if not options.report:
        claim_folder(options.out, study)
        outcome = _make(options, study, specs, start)
    failure = _failure(outcome)
    if failure and not outcome.finished:
        raise failure
    size = picture_size(load_data(study.data_folder(options.out))["valid"], study)
    title = f"{options.grid}: {find_grid(options.grid).question} ({study.model})"
    cells = collect(options.out, specs, size)
    write_report(options.out, options.grid, cells, title=title, study=study.as_dict())
    if failure:
        raise failure


def _failure(outcome: Outcome) -> GCNetError | None:
    if not outcome.failed:
        return None
    run, reason = outcome.failed[0]
    count = f"{len(outcome.failed)} of {len(outcome.failed) + len(outcome.finished)} runs failed"
    return GCNetError(f"{count}, such as {run.label}: {reason}; the same command tries them again")


def _make(
    options: Options,
    study: Study,
    specs: Mapping[str, ModelSpec],
    start: Callable[[Run], Job] | None,
) -> Outcome:
    data = study.data_folder(options.out)
    if study.data is None:
        write_context_shapes(data, train=TRAIN_PICTURES, valid=VALID_PICTURES)
    train_set = load_data(data)["train"]
    first = options.recipe.seed
    runs = plan_runs(options.out, specs, list(range(first, first + options.seeds)))
    for run in runs:
        write_run(run, study, specs[run.cell], data)
    iterations = options.recipe.epochs * iterations_per_epoch(train_set, options.recipe.batch_size)
    amount = f"{len(specs)} cells x {options.seeds} seeds, {iterations} iterations each"
    print(f"{options.grid}: {amount}, in {options.out}", flush=True)
    try:
        return make_runs(runs, jobs=options.jobs, iterations=iterations, start=start)
    except KeyboardInterrupt:
        print("stopped; the same command goes on, with --report it shows what is there", flush=True)
        raise


def picture_size(dataset: CocoDataset, study: Study) -> tuple[int, int]:
    """(height, width) of the first picture as the model sees it: resized and padded."""
    if not dataset.records:
        raise GCNetError(f"{dataset.annotation_file} lists no pictures, and there is nothing to compare on")
    first = dataset.records[0]
    limits = study.recipe.image_size or study.spec(None).image_size
    return padded_size(fit_size((first.height, first.width), limits))


def _check_buildable(cell: str, spec: ModelSpec) -> None:
    try:
        count_complexity(spec, (64, 64))
    except ValueError as error:
        raise GCNetError(f"cell {cell} cannot be built from {spec.name}: {error}") from None
