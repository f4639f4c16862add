"""Chooses the number of epochs that end within a given time, from measured iterations and validations.

The iterations that are timed are undone, so that a run with a `time` equals, to the bit, a run with the
number of epochs that was chosen. Checkpoints and recipe.yaml hold this number in place of the time, so that a
resumed run has it too.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from torch import nn

from gcnet.data.dataset import DataSet
from gcnet.engine.processes import agree
from gcnet.engine.run import Run, take_step, taken_back
from gcnet.engine.runfolder import amend_recipe
from gcnet.engine.schedule import VALIDATIONS
from gcnet.engine.stop import Stop, end_by
from gcnet.engine.validation import validation_losses
from gcnet.errors import GCNetError
from gcnet.evaluation.evaluate import predict_all
from gcnet.recipe import MOST_EPOCHS, Recipe, seconds_of

UNTIMED = 2  # iterations in which readers start and memory is taken
FEWEST, MOST = 3, 20  # iterations that are timed
TRIAL = 0.02  # share of the time that they may take, beyond the fewest
SAMPLE = 16  # images of a validation that are timed
SPARE = 0.05  # share of the time that is not planned with
VALIDATING = 0.2  # largest share of the time for validations; at least one is made


@dataclass(frozen=True)
class Costs:
    """Seconds of an iteration, and of a validation."""

    iteration: float
    validation: float


@dataclass(frozen=True)
class TimeLimit:
    """The time at which a run must end, and that of its first iteration, by `time.monotonic`."""

    until: float
    since: float

    def keep(self, run: Run) -> bool:
        """Call after a validation: takes epochs away if the run would end too late. Whether it did."""
        done, now = run.iteration // run.per_epoch, time.monotonic()
        pace = (now - self.since) / done
        epochs = agree(run.place, done + max(0, int((self.until - now) / pace)))
        if epochs >= run.recipe.epochs:
            return False
        run.recipe = replace(run.recipe, epochs=epochs)
        if run.place.leads:
            print(f"time: an epoch takes {pace:.2g} s, more than at first, so {epochs} epochs", flush=True)
            amend_recipe(run.out, epochs=epochs)
            run.save()
        return True


def fit_schedule(
    run: Run, losses_of: nn.Module, train_set: DataSet, valid_set: DataSet | None, stop: Stop, began: float
) -> TimeLimit:
    """Puts the schedule that ends `time` after `began` into the run's recipe.

    All processes take part, and take what the first decides.

    Raises:
        GCNetError: not even one epoch fits, or an image cannot be read.
    """
    seconds = seconds_of(run.recipe.time)
    if run.place.leads:
        print("time: first it is measured what an iteration takes", flush=True)
    costs = Costs(
        _time_iterations(run, losses_of, train_set, seconds * TRIAL, stop),
        0.0 if valid_set is None else _time_validation(run, valid_set, stop),
    )
    costs, left = agree(run.place, (costs, began + seconds * (1 - SPARE) - time.monotonic()))
    run.recipe = plan(run.recipe, run.per_epoch, costs, left)
    if run.place.leads:
        print(describe(run.recipe, run.per_epoch, costs, seconds, valid_set is not None), flush=True)
    return TimeLimit(began + seconds, time.monotonic())


def plan(recipe: Recipe, per_epoch: int, costs: Costs, left: float) -> Recipe:
    """`recipe` with as many epochs as end within `left` seconds, and a warm-up of at most a tenth.

    There are `VALIDATIONS`, fewer where they would take more than `VALIDATING` of the time.

    Raises GCNetError where not even one epoch and its validation fit.
    """
    epoch, validation = per_epoch * costs.iteration, costs.validation
    if epoch + validation > left:
        needed = seconds_of(recipe.time) + epoch + validation - left
        raise GCNetError(
            f"--time {recipe.time} is too short: {max(left, 0):.0f} s of it are left, and one epoch of "
            f"{per_epoch} iterations takes about {epoch:.2g} s, a validation {validation:.2g} s; give --time "
            f"{math.ceil(needed / 60)}m, fewer images, or a smaller --image-size"
        )
    validations = VALIDATIONS
    if validation:
        validations = max(1, int(min(VALIDATIONS, VALIDATING * left / validation)))
    epochs = int(max(1, min(MOST_EPOCHS, (left - validations * validation) / epoch)))
    return replace(
        recipe,
        time="",
        epochs=epochs,
        warmup_iterations=min(recipe.warmup_iterations, epochs * per_epoch // 10),
        validate_every=math.ceil(epochs / validations),
    )


def describe(recipe: Recipe, per_epoch: int, costs: Costs, seconds: float, validates: bool) -> str:
    """The line that says what was decided."""
    measured = f"{costs.iteration:.2g} s an iteration"
    planned = recipe.epochs * per_epoch * costs.iteration
    decided = f"{recipe.epochs} epochs of {per_epoch} iterations"
    if validates:
        validations = math.ceil(recipe.epochs / recipe.validate_every)
        measured += f" and {costs.validation:.2g} s a validation"
        decided += f" with {validations} validation{'s' if validations > 1 else ''}"
        planned += validations * costs.validation
    return f"time: {measured}, so {decided}: about {planned / 60:.1f} of {seconds / 60:g} min"


def _time_iterations(
    run: Run, losses_of: nn.Module, train_set: DataSet, most_seconds: float, stop: Stop
) -> float:
    """Seconds of an iteration, including reading; the run is restored afterwards."""
    batches = iter(run.loader(train_set, run.recipe, 0))
    times: list[float] = []
    count = UNTIMED + FEWEST
    with taken_back(run):
        while len(times) < count:
            started = time.monotonic()
            images, targets = next(batches)
            if signal := take_step(run, losses_of, images, targets, stop)[2]:
                end_by(signal)
            times.append(time.monotonic() - started)
            if len(times) == UNTIMED:
                count += agree(run.place, min(MOST - FEWEST, int(most_seconds / times[-1])))
    timed = times[UNTIMED:]
    return sum(timed) / len(timed)


def _time_validation(run: Run, valid_set: DataSet, stop: Stop) -> float:
    """Seconds of a validation, estimated from its first images."""
    share = range(run.place.rank, len(valid_set), run.place.world)
    sample = share[:SAMPLE]
    started = time.monotonic()
    with stop.at_once():
        predict_all(
            run.task.optimized(run.model), valid_set, sample, workers=run.recipe.workers, progress=False
        )
        if run.recipe.validation_loss:
            validation_losses(run, run.model, valid_set, most=max(len(sample), 1))
    return (time.monotonic() - started) * len(share) / max(len(sample), 1)
