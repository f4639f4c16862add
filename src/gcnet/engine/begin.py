"""Prepares a run: the model as its recipe says, and the state of a checkpoint if the run is resumed."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from gcnet.console import printable
from gcnet.data.dataset import DataSet, LabelledImage
from gcnet.data.loader import iterations_per_epoch
from gcnet.engine.checkpoint import changed_fields, restore_model, restore_moments
from gcnet.engine.class_weights import weigh_classes
from gcnet.engine.frozen import freeze
from gcnet.engine.processes import Place
from gcnet.engine.run import Model, Run
from gcnet.engine.runfolder import recorded
from gcnet.engine.schedule import make_optimizer
from gcnet.engine.task import Task
from gcnet.models.modes import recompute_activations
from gcnet.recipe import Recipe
from gcnet.types import Batch


def begin_run(
    model: Model,
    task: Task,
    train_set: DataSet,
    recipe: Recipe,
    out: Path,
    place: Place,
    state: dict[str, Any] | None,
    data: Mapping[str, str] | None,
) -> Run:
    """The run on its device, at the iteration of the checkpoint `state` if there is one."""
    images = _describe_images(train_set)
    per_epoch = iterations_per_epoch(train_set, recipe, masks=task.masks)
    if state is None:
        origin = {"fine_tuned_from": model.provenance} if model.provenance else {}
        found = [data[name] for name in ("data", "annotations") if data and name in data]
        where = {"trained_on": Path(found[0]).resolve().name} if found else {}  # the name, as files travel
        model.provenance = {**where, "train_images": len(train_set), **origin}
    else:
        state.setdefault("class_names", recorded(out, "class_names") or [])  # older checkpoints have none
        restore_model(model, state, out / "last.ckpt", recipe, model.spec.class_names)
        model.provenance = state.get("provenance") or {}
        if place.leads:
            print(f"resuming {out} after iteration {state['iteration']} of {recipe.epochs * per_epoch}")
            if changed := changed_fields(state["recipe"], recipe):
                print(f"note: the recipe differs from that of the checkpoint in {', '.join(changed)}")
            before = state.get("images") or images
            if before != images:
                print(
                    f"note: the training images or their annotations have changed since the checkpoint "
                    f"({before['count']} images then, {images['count']} now)"
                )
    freeze(model, recipe.freeze)
    if (weighed := weigh_classes(model, train_set, recipe, masks=task.masks)) and place.leads:
        print(printable(weighed))
    model.train().to(place.device)
    if place.device.type == "cuda":
        model.to(memory_format=torch.channels_last)  # as the maps are: cuDNN need not turn them around
    scaler = torch.amp.GradScaler(place.device.type, enabled=recipe.precision == "fp16")
    run = Run(model, task, recipe, out, place, per_epoch, images, make_optimizer(model, recipe), scaler)
    if state is not None:
        restore_moments(run.optimizer, state, out / "last.ckpt")
        run.iteration = run.saved = state["iteration"]
        run.sums = state.get("sums") or {}
        if state.get("scaler"):
            scaler.load_state_dict(state["scaler"])
    return run


def _describe_images(dataset: DataSet) -> dict[str, Any]:
    """A digest of the training images for checkpoints, to notice whether they have changed."""
    lines = [
        f"{record.path.name} {record.label if isinstance(record, LabelledImage) else len(record.instances)}"
        for record in dataset.records
    ]
    names = "\n".join(lines).encode("utf-8", "surrogateescape")
    return {"count": len(lines), "digest": hashlib.sha256(names).hexdigest()}


class Losses(nn.Module):
    """The model's losses as a forward pass, which DistributedDataParallel needs."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, targets: Any) -> dict[str, Tensor]:
        return self.model.losses(batch, targets)


@contextlib.contextmanager
def prepared(run: Run, state: dict[str, Any] | None) -> Iterator[nn.Module]:
    """The run's losses as a module that averages gradients over all processes."""
    model, place = run.model, run.place
    norms: dict[str, nn.Module] = {}
    if place.world > 1 and place.device.type == "cuda" and "sync" in model.spec.norms:
        norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    losses_of: nn.Module = Losses(model)
    if place.world > 1:
        losses_of = DistributedDataParallel(losses_of)  # gives all processes the weights of the first
    if run.recipe.ema:
        run.average = copy.deepcopy(model).requires_grad_(False)
        if state is not None and state.get("ema"):
            run.average.load_state_dict(state["ema"])
    saves_memory = run.recipe.recompute_activations
    with recompute_activations(model) if saves_memory else contextlib.nullcontext():
        yield losses_of
    for name, norm in norms.items():  # they share parameters and statistics with those that took their place
        model.set_submodule(name, norm)
