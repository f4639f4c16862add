"""The training step: losses, optimiser and rate, and the stop when a loss is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import torch
import torch.distributed
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gcnet.engine.schedule import lr_factor, seed_iteration
from gcnet.errors import GCNetError
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.recipe import Recipe
from gcnet.types import Batch

Loader = Iterable[tuple[Batch, Any]]  # with the targets that the model's `losses` takes


class NotFiniteError(GCNetError):
    """A loss or gradient became NaN or infinite; the weights are still those of the iteration before."""


class TrainingModule(LightningModule):
    """Trains a model by its `losses(batch, targets)`, from iteration `start` on.

    `make_loader(start_iteration, rank, world_size)` gives the endless stream of batches. After each
    iteration `losses` holds its values by name (with their sum as "loss") and `grad_norm` the norm of the
    gradient before clipping. `stop_requested` ends the run after the current iteration, on all devices; while
    `validating`, no iteration is under way.
    """

    def __init__(
        self,
        model: Detector | Classifier,
        recipe: Recipe,
        *,
        iterations_per_epoch: int,
        make_loader: Callable[[int, int, int], Loader],
        start: int = 0,
        optimizer_state: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model: Detector | Classifier = model
        self.recipe = recipe
        self.iterations_per_epoch = iterations_per_epoch
        self.total = recipe.epochs * iterations_per_epoch
        self.start = start
        self.losses: dict[str, float] = {}
        self.grad_norm = math.nan
        self.stop_requested = False
        self.validating = False
        self.optimizer: Optimizer | None = None
        self._make_loader = make_loader
        self._optimizer_state = optimizer_state
        self._image_ids: list[int | str] = []
        self._names: list[str] = []
        self._terms = torch.zeros(0)

    @property
    def iteration(self) -> int:
        """Iterations done since the run first began; while one is under way, its 0-based number."""
        return self.start + self.trainer.global_step

    @property
    def lr(self) -> float:
        assert self.optimizer is not None
        return self.optimizer.param_groups[0]["lr"]

    def train_dataloader(self) -> Loader:
        return self._make_loader(self.start, self.global_rank, self.trainer.world_size)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        images, targets = batch
        if isinstance(targets, list):  # one for each image
            return images.to(device), [target.to(device) for target in targets]
        return images.to(device), targets.to(device)

    def training_step(self, batch: tuple[Batch, Any], batch_idx: int) -> Tensor:
        images, targets = batch
        self._image_ids = list(images.image_ids)
        seed_iteration(self.recipe.seed, self.iteration, self.global_rank)
        losses: dict[str, Tensor] = self.model.losses(images, targets)
        terms = torch.stack([loss.float() for loss in losses.values()])
        total = terms.sum()
        self._names, self._terms = [*losses, "loss"], torch.cat([terms, total[None]]).detach()
        return total

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Ours instead of Lightning's, which refuses fused optimisers under bf16; the norm is logged anyway.
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.recipe.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, self.recipe.clip_norm, norm)
        self._look(norm)

    def configure_optimizers(self) -> Any:
        self.optimizer = make_optimizer(self.model, self.recipe)
        if self._optimizer_state is not None:
            # Only the moments: rates come from the recipe and the iteration.
            fresh = self.optimizer.state_dict()
            self.optimizer.load_state_dict(fresh | {"state": self._optimizer_state["state"]})
        schedule = LambdaLR(
            self.optimizer,
            lambda i: lr_factor(self.start + i, self.recipe, self.iterations_per_epoch),
        )
        return {
            "optimizer": self.optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _look(self, norm: Tensor) -> None:
        """Reads losses and norm, for the log and the check that they are finite, before the weights change.

        One copy from the device tells all, also what happened on others: none may go on when another stops.
        """
        stop = torch.full((), self.stop_requested, device=norm.device)
        flags = torch.stack([~self._terms.isfinite().all(), stop]).float()
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        *terms, self.grad_norm, any_bad, any_stop = torch.cat([self._terms, norm[None], flags]).tolist()
        self.losses = dict(zip(self._names, terms, strict=True))
        if any_stop:
            self.stop_requested = self.trainer.should_stop = True
        bad = [name for name, value in self.losses.items() if not math.isfinite(value)]
        if any_bad:
            self._fail(bad if bad == ["loss"] else bad[:-1])
        if not math.isfinite(self.grad_norm):  # the same on every device: gradients are averages by now
            self._fail(["the gradient"])

    def _fail(self, bad: list[str]) -> NoReturn:
        reports: list[Any] = [(bad, self._image_ids)]
        if self.trainer.world_size > 1:
            reports *= self.trainer.world_size
            torch.distributed.all_gather_object(reports, (bad, self._image_ids))
        names = ", ".join(sorted({name for names, _ in reports for name in names}))
        ids = ", ".join(str(image_id) for names, ids in reports if names for image_id in ids)
        raise NotFiniteError(
            f"{names} became NaN or infinite at iteration {self.iteration + 1}, on the images with id {ids}"
        )


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """SGD or AdamW over the parameters that are trained, at the recipe's scaled rate."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    lr, decay = recipe.scaled_lr(), recipe.weight_decay
    if recipe.optimizer == "adamw":
        return AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
    return SGD(parameters, lr=lr, momentum=recipe.momentum, weight_decay=decay, fused=True)
