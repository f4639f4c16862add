"""The state of a run, and one iteration of it: losses, gradients, and the step of the optimizer."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from gcnet.data.dataset import DataSet
from gcnet.data.loader import train_loader
from gcnet.engine.checkpoint import save_checkpoint
from gcnet.engine.processes import Place
from gcnet.engine.schedule import lr_factor, make_optimizer, seed_iteration
from gcnet.engine.schedule_free import ScheduleFreeAdamW
from gcnet.engine.stop import Stop
from gcnet.engine.task import Task
from gcnet.errors import GCNetError
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.recipe import Recipe
from gcnet.types import Batch

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
QUICK = 60.0  # seconds; after shorter epochs no checkpoint is written
SMALLEST_SCALE = 1.0  # of an fp16 loss; an infinite gradient at this scale is an error, not an overflow

Model = Detector | Classifier


class NotFiniteError(GCNetError):
    """A loss or gradient became NaN or infinite; the weights are still those of the iteration before."""


@dataclass
class Run:
    """A run between two iterations.

    `average` is the model with the moving average of the weights, if the recipe has `ema`; `sums` are sum and
    count of each number of the row of metrics.csv that is not complete yet.
    """

    model: Model
    task: Task
    recipe: Recipe
    out: Path
    place: Place
    per_epoch: int
    images: dict[str, Any]
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    average: Model | None = None
    iteration: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)
    stepping: bool = False  # whether weights may be half changed
    saved: int = -1  # the iteration that last.ckpt is of; -1 if it could not be written
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def total(self) -> int:
        return self.recipe.epochs * self.per_epoch

    def result(self) -> Model:
        """The model that is validated: with the average of the weights, if the recipe has one."""
        if isinstance(self.optimizer, ScheduleFreeAdamW):
            return self.optimizer.average(self.model)
        return self.average or self.model

    @property
    def validation_is_due(self) -> bool:
        """Whether there is a validation after this iteration."""
        every = self.recipe.validate_every * self.per_epoch
        return self.iteration > 0 and (self.iteration % every == 0 or self.iteration == self.total)

    def loader(self, dataset: DataSet, recipe: Recipe, start: int) -> Any:
        return train_loader(
            dataset,
            masks=self.task.masks,
            image_size=self.model.spec.image_size,
            recipe=recipe,
            start_iteration=start,
            rank=self.place.rank,
            world_size=self.place.world,
        )

    def write_checkpoint(self) -> None:
        """Writes last.ckpt. Raises OSError if it cannot be written."""
        self.saved, self.saved_at = -1, time.monotonic()
        save_checkpoint(
            self.out / "last.ckpt",
            self.model,
            self.recipe,
            iteration=self.iteration,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            ema=None if self.average is None else self.average.state_dict(),
            sums=self.sums,
            class_names=list(self.model.spec.class_names),
            images=self.images,
        )
        self.saved = self.iteration

    def save(self) -> None:
        """Writes last.ckpt. If that fails, a warning is given and the old checkpoint is kept."""
        try:
            self.write_checkpoint()
        except OSError as error:
            print(
                f"warning: {self.out / 'last.ckpt'} not written at iteration {self.iteration} "
                f"({error.strerror or error}); the one before is kept and training goes on",
                flush=True,
            )

    def save_if_due(self, *, now: bool | int) -> None:
        elapsed, interval = time.monotonic() - self.saved_at, self.recipe.checkpoint_every * 60
        if now or elapsed >= (min(interval, QUICK) if self.iteration % self.per_epoch == 0 else interval):
            self.save()

    def stage(self) -> dict[str, Any]:
        """The facts about the run that its model files record, beside the scores."""
        return {"iteration": self.iteration} | ({"ema": self.recipe.ema} if self.recipe.ema else {})


def take_step(
    run: Run, losses_of: nn.Module, images: Batch, targets: Any, stop: Stop
) -> tuple[dict[str, float], float, int]:
    """Trains on one batch: its losses by name (their sum is "loss"), the norm of the gradient, and a signal.

    The norm is that before clipping. The losses are the means over the parts that the batch is divided into.
    The signal is the number of one that any process has received, or 0.

    Raises:
        NotFiniteError: in all processes, if a loss or the gradient is not finite in one.
    """
    recipe, device = run.recipe, run.place.device
    for group in run.optimizer.param_groups:
        group["lr"] = group["share"] * recipe.scaled_lr() * lr_factor(run.iteration, recipe, run.per_epoch)
    seed_iteration(recipe.seed, run.iteration, run.place.rank)
    run.optimizer.zero_grad()
    size, half = len(images) // recipe.accumulate, HALF.get(recipe.precision)
    terms, names = torch.zeros((), device=device), [""]
    for start in range(0, len(images), size):
        part, last = slice(start, start + size), start + size == len(images)
        with _gradients_stay(losses_of) if not last else contextlib.nullcontext():
            with torch.autocast(device.type, half, enabled=half is not None):
                losses = losses_of(images[part].to(device), to_device(targets[part], device))
                each = torch.stack([loss.float() for loss in losses.values()])
                total = each.sum()
            run.scaler.scale(total / recipe.accumulate).backward()
        names = [*losses, "loss"]
        terms = terms + torch.cat([each, total[None]]).detach() / recipe.accumulate
    run.scaler.unscale_(run.optimizer)
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if recipe.clip_norm:
        nn.utils.clip_grads_with_norm_(parameters, recipe.clip_norm, norm)
    values, grad_norm, signal = _read(run, dict(zip(names, terms, strict=True)), norm, stop, images)
    if math.isfinite(grad_norm):  # else SGD's fused kernel leaves its momenta uninitialised
        run.scaler.step(run.optimizer)
    run.scaler.update()
    return values, grad_norm, signal


@contextlib.contextmanager
def taken_back(run: Run) -> Iterator[None]:
    """A context whose steps are undone at its end: model, optimizer and loss scale."""
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    try:
        yield
    finally:
        run.model.load_state_dict(before)
        run.model.zero_grad()
        run.optimizer = make_optimizer(run.model, run.recipe)
        run.scaler = torch.amp.GradScaler(run.place.device.type, enabled=run.scaler.is_enabled())


def to_device(targets: Any, device: torch.device) -> Any:
    """Targets of a detector, one for each image, or of a classifier."""
    return [target.to(device) for target in targets] if isinstance(targets, list) else targets.to(device)


def _gradients_stay(losses_of: nn.Module) -> contextlib.AbstractContextManager[None]:
    """A context in which gradients are accumulated and not exchanged with other processes."""
    several = isinstance(losses_of, DistributedDataParallel)
    return losses_of.no_sync() if several else contextlib.nullcontext()


def _read(
    run: Run, losses: dict[str, Tensor], norm: Tensor, stop: Stop, images: Batch
) -> tuple[dict[str, float], float, int]:
    """Reads losses and gradient norm before the weights change, to log them and check them for NaN.

    Everything is read in one copy from the device. Flags are combined over all processes first, so that all
    of them stop at the same iteration.
    """
    terms = torch.stack(list(losses.values()))
    bad_here = (~terms.isfinite().all()).float()
    flags = torch.stack([bad_here, torch.full_like(bad_here, stop.number)])
    if run.place.world > 1:
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    *values, grad_norm, any_bad, signal = torch.cat([terms, norm[None], flags]).tolist()
    if any_bad:
        bad = [name for name, value in zip(losses, values, strict=True) if not math.isfinite(value)]
        _fail(run, bad if bad == ["loss"] else bad[:-1], images)
    # The same in every process: gradients are averages by now.
    overflows = run.scaler.is_enabled() and run.scaler.get_scale() > SMALLEST_SCALE  # such a step is skipped
    if not math.isfinite(grad_norm) and not overflows:
        _fail(run, ["the gradient"], images)
    return dict(zip(losses, values, strict=True)), grad_norm, int(signal)


def _fail(run: Run, bad: list[str], images: Batch) -> NoReturn:
    report = (bad, list(images.image_ids))
    reports: list[Any] = [report] * run.place.world
    if run.place.world > 1:
        distributed.all_gather_object(reports, report)
    names = ", ".join(sorted({name for names, _ in reports for name in names}))
    ids = ", ".join(str(image_id) for names, ids in reports if names for image_id in ids)
    raise NotFiniteError(
        f"{names} became NaN or infinite at iteration {run.iteration + 1}, on the images with id {ids}"
    )


def update_average(average: Model, model: Model, decay: float, iteration: int) -> None:
    """Moves the average towards the weights. The decay grows, so that the first weights fade soon."""
    own, new = average.state_dict(), model.state_dict()
    floats = [name for name, value in own.items() if value.is_floating_point()]
    move = get_ema_multi_avg_fn(min(decay, (1 + iteration) / (10 + iteration)))
    move([own[name] for name in floats], [new[name] for name in floats], None)
    for name in own.keys() - set(floats):
        own[name].copy_(new[name])
