"""The optimizer; the learning rate and random numbers of an iteration, as functions of its number alone.

Nothing here keeps state, so that a resumed run has exactly the rates and random numbers of an unbroken one.
An iteration is one step of the optimizer.

COCO's schedule is also adapted to small data sets here. It has 12 epochs in batches of 16, 90,000 iterations;
with a hundred images it would be some eighty iterations, all of them warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from gcnet.engine.schedule_free import ScheduleFreeAdamW
from gcnet.recipe import Recipe

SHORT = 1500  # iterations: three warm-ups of the 1x schedule. Longer runs are left alone.
ENOUGH = 1000
SMALL_BATCH = 4  # fits into the memory of most GPUs
VALIDATIONS = 12  # as many as the 1x schedule has
TIMED_FIELDS = ("epochs", "warmup_iterations", "validate_every")  # what a recipe's `time` decides
ONE_CYCLE_RISE = 0.3  # share of a one-cycle run in which the rate rises


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over the parameters that are trained, at its scaled rate.

    Groups of parameters have the `share` of the rate that they are trained at; the last has all of it.
    """
    by_share: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():  # those of the backbone come first
        if parameter.requires_grad:
            share = recipe.backbone_lr if name.startswith("backbone.") else 1.0
            by_share.setdefault(share, []).append(parameter)
    groups = [{"params": parameters, "share": share} for share, parameters in by_share.items()]
    lr, decay = recipe.scaled_lr(), recipe.weight_decay
    if recipe.schedule == "free":
        return ScheduleFreeAdamW(groups, lr=lr, weight_decay=decay)
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=lr, weight_decay=decay, fused=True)
    return SGD(groups, lr=lr, momentum=recipe.momentum, weight_decay=decay, fused=True)


def lr_factor(iteration: int, recipe: Recipe, iterations_per_epoch: int) -> float:
    """The factor on the learning rate at `iteration` (0-based): warm-up times schedule."""
    total, warmup, falls_from = recipe.epochs * iterations_per_epoch, recipe.warmup_iterations, 0.0
    if recipe.schedule == "onecycle":
        warmup = falls_from = ONE_CYCLE_RISE * total
    factor = 1.0
    if iteration < warmup:
        factor = recipe.warmup_factor + (1.0 - recipe.warmup_factor) * (iteration / warmup)
    if recipe.schedule == "step":
        epoch = iteration // iterations_per_epoch
        return factor * 0.1 ** sum(epoch >= step for step in recipe.step_epochs())
    if recipe.schedule == "free":
        return factor
    progress = min(max(iteration - falls_from, 0.0) / (total - falls_from), 1.0)
    return factor * 0.5 * (1.0 + math.cos(math.pi * progress))


def seed_iteration(seed: int, iteration: int, rank: int = 0) -> None:
    """Seeds torch (anchor and region sampling) for one iteration on one process."""
    torch.manual_seed((seed * 1_000_003 + iteration) * 4096 + rank)


def for_few_images(recipe: Recipe, images: int, given: Collection[str], *, devices: int = 1) -> Recipe:
    """`recipe` with smaller batches, more epochs and less warm-up if it is too short.

    Only runs of fewer than `SHORT` iterations change: batches of 4 at a rate in proportion (0.005 of the 1x
    schedule), epochs for at least `ENOUGH` iterations, a warm-up of at most a tenth of them, at most 12
    validations. These are customary figures for fine-tuning, not measured optima.

    Args:
        given: names of fields that the user chose; they stay, as do those that a `time` decides later.
        devices: that share a batch.
    """
    given = {*given, *TIMED_FIELDS} if recipe.time else given
    own = recipe.batch_size
    usual = recipe.lr_batch_size or SMALL_BATCH if own == "auto" else own
    if recipe.epochs * _per_epoch(images, usual) >= SHORT:
        return recipe
    batch_size = min(usual, max(SMALL_BATCH, devices * recipe.accumulate))
    if "batch_size" in given and own != "auto":
        batch_size = own
    per_epoch = _per_epoch(images, batch_size)
    epochs = recipe.epochs if "epochs" in given else max(recipe.epochs, -(-ENOUGH // per_epoch))
    changes = {
        "batch_size": batch_size,
        "epochs": epochs,
        "warmup_iterations": min(recipe.warmup_iterations, epochs * per_epoch // 10),
        "validate_every": max(recipe.validate_every, -(-epochs // VALIDATIONS)),
    }
    return replace(recipe, **{name: value for name, value in changes.items() if name not in given})


def describe_changes(before: Recipe, after: Recipe, images: int) -> str | None:
    """One line on what `for_few_images` changed, or None."""
    names = ("batch_size", "epochs", "warmup_iterations", "validate_every")
    changed = [f"{n} {getattr(after, n)}" for n in names if getattr(after, n) != getattr(before, n)]
    if not changed:
        return None
    rate = "" if after.batch_size == "auto" else f" (rate {after.scaled_lr():g})"
    return (
        f"schedule: {images} images are few, so {', '.join(changed)}{rate}; options of these names overrule"
    )


def _per_epoch(images: int, batch_size: int) -> int:
    return max(1, -(-images // batch_size))
