"""The learning rate and the random numbers of every iteration, as functions of its number alone.

Nothing here keeps state, so a resumed run takes exactly the rates and draws of an unbroken one.
"""

from __future__ import annotations

import math

import torch

from gcnet.recipe import Recipe


def lr_factor(iteration: int, recipe: Recipe, iterations_per_epoch: int) -> float:
    """What the learning rate is multiplied by at `iteration` (0-based): warm-up times schedule."""
    factor = 1.0
    if iteration < recipe.warmup_iterations:
        share = iteration / recipe.warmup_iterations
        factor = recipe.warmup_factor + (1.0 - recipe.warmup_factor) * share
    if recipe.schedule == "step":
        epoch = iteration // iterations_per_epoch
        return factor * 0.1 ** sum(epoch >= step for step in recipe.step_epochs())
    progress = min(iteration / (recipe.epochs * iterations_per_epoch), 1.0)
    return factor * 0.5 * (1.0 + math.cos(math.pi * progress))


def seed_iteration(seed: int, iteration: int, rank: int = 0) -> None:
    """Seeds torch (anchor and region sampling) for one iteration on one process."""
    torch.manual_seed((seed * 1_000_003 + iteration) * 4096 + rank)
