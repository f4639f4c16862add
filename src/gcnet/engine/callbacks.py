"""What happens between iterations: the state is saved, the model validated, the numbers logged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gcnet.engine.checkpoint import save_checkpoint
from gcnet.engine.module import TrainingModule
from gcnet.engine.progress import ProgressLine, memory_gb
from gcnet.engine.runfolder import RunLog
from gcnet.engine.task import Task
from gcnet.errors import GCNetError
from gcnet.evaluation.evaluate import write_results
from gcnet.weights.files import save_model

LOG_EVERY = 10  # iterations in a row of metrics.csv
QUICK = 60.0  # seconds; an epoch shorter than this is not worth a checkpoint of its own


class Checkpoints(Callback):
    """Keeps `last.ckpt` up to date: every `checkpoint_every` minutes, at the end of epochs and of the run.

    A write that fails costs a warning; the checkpoint before stays, and `failed` tells how it went last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failed = False
        self._written = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = _training(pl_module)
        if trainer.is_global_zero and module.iteration == 0:
            # So that there is always one to resume from, and a full disk shows before the work.
            self._save(module)
            if self.failed:
                raise GCNetError(f"cannot write in {self.path.parent}; free space or give another --out")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        module = _training(pl_module)
        elapsed = time.monotonic() - self._written
        interval = module.recipe.checkpoint_every * 60
        epoch_ends = module.iteration % module.iterations_per_epoch == 0
        last = module.stop_requested or module.iteration == module.total
        if trainer.is_global_zero and (last or elapsed >= (min(interval, QUICK) if epoch_ends else interval)):
            self._save(module)

    def _save(self, module: TrainingModule) -> None:
        assert module.optimizer is not None
        try:
            save_checkpoint(self.path, module.model, module.optimizer, module.iteration, module.recipe)
            self.failed = False
        except OSError as error:
            self.failed = True
            print(
                f"warning: {self.path} not written at iteration {module.iteration} "
                f"({error.strerror or error}); the one before is kept and training goes on",
                flush=True,
            )
        self._written = time.monotonic()


class Validation(Callback):
    """Scores the model every `validate_every` epochs and at the end, and keeps the best.

    `validate(model)` gives metrics and results; the latest are written to `out`. `task` says which numbers
    of them are logged and which one decides.
    """

    def __init__(
        self,
        out: Path,
        log: RunLog,
        line: ProgressLine,
        validate: Callable[[Any], tuple[Any, Sequence[dict[str, Any]]]],
        task: Task,
    ) -> None:
        self.out = out
        self.task = task
        self.run_log = log
        self.line = line
        self.metrics: Any = None
        self._validate = validate

    @property
    def best(self) -> Path:
        return self.out / "best.safetensors"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that was killed in the midst of a validation does it now.
        self._run_if_due(trainer, _training(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._run_if_due(trainer, _training(pl_module))

    def run(self, module: TrainingModule, iteration: int) -> None:
        """Validates now, whatever the iteration."""
        self.line.pause()
        metrics, results = self._validate(module.model)
        values, best_by = self.task.scores(metrics), self.task.best_by
        if values[best_by] > self.run_log.best(best_by) or not self.best.exists():
            provenance = {"iteration": iteration} | {name: values[name] for name in self.task.recorded}
            _keep_going(lambda: save_model(module.model, self.best, provenance=provenance))
        self.run_log.validation(iteration, values)
        _keep_going(lambda: write_results(self.out, metrics, results))
        self.metrics = metrics
        self.line.resume()
        print(
            f"iteration {iteration}/{module.total}: "
            + ", ".join(f"{name.replace('_', ' ')} {max(value, 0):.3f}" for name, value in values.items()),
            flush=True,
        )

    def _run_if_due(self, trainer: Trainer, module: TrainingModule) -> None:
        iteration = module.iteration
        if (
            module.stop_requested
            or not validation_is_due(module, iteration)
            or self.run_log.validated(iteration)
        ):
            return
        module.validating = True
        try:
            self.run(module, iteration)
        except KeyboardInterrupt:  # the state of this iteration is saved already
            module.stop_requested = trainer.should_stop = True
        finally:
            module.validating = False


class Meet(Callback):
    """Has the other devices wait for the one that validates. Goes behind `Validation`."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_batch_end(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        module = _training(pl_module)
        if validation_is_due(module, module.iteration):
            trainer.strategy.barrier("validation")


def validation_is_due(module: TrainingModule, iteration: int) -> bool:
    """Whether the model is scored after `iteration` iterations."""
    every = module.recipe.validate_every * module.iterations_per_epoch
    return iteration > 0 and (iteration % every == 0 or iteration == module.total)


class Logging(Callback):
    """Averages losses over stretches of iterations into the run's log, and shows how far it is."""

    def __init__(self, log: RunLog, line: ProgressLine) -> None:
        self.run_log = log
        self.line = line
        self._sums: dict[str, float] = {}
        self._count = 0
        self._since = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._lr = _training(pl_module).lr

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        module = _training(pl_module)
        for name, value in {**module.losses, "grad_norm": module.grad_norm}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self.line.update(module.iteration, module.losses, self._lr, module.device)
        boundary = module.iteration % module.iterations_per_epoch == 0
        if self._count == LOG_EVERY or boundary or module.stop_requested:
            seconds = (time.monotonic() - self._since) / self._count
            means = {name: value / self._count for name, value in self._sums.items()}
            extra = {"seconds": seconds, "memory_gb": memory_gb(module.device)}
            epoch = module.iteration / module.iterations_per_epoch
            self.run_log.training(module.iteration, {"epoch": epoch, "lr": self._lr, **means, **extra})
            self._sums, self._count, self._since = {}, 0, time.monotonic()


def _training(module: LightningModule) -> TrainingModule:
    assert isinstance(module, TrainingModule)
    return module


def _keep_going(write: Callable[[], object]) -> None:
    """A disk that is full for the moment is no reason to lose the training."""
    try:
        write()
    except (GCNetError, OSError) as error:
        print(f"warning: {error}; training goes on", flush=True)
