"""How much each class counts in the classification loss. K classes; background always counts once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gcnet.console import did_you_mean, listed
from gcnet.data.dataset import DataSet
from gcnet.engine.run import Model
from gcnet.errors import GCNetError
from gcnet.models.heads import BoxHead
from gcnet.recipe import Recipe


def weigh_classes(model: Model, train_set: DataSet, recipe: Recipe, *, masks: bool) -> str:
    """Puts the recipe's `class_weights` into the losses of `model`; returns a line for people.

    Raises GCNetError for a class that the model does not know.
    """
    names, given = model.spec.class_names, recipe.parsed_class_weights()
    for name in given or ():
        if name not in names:
            hint = did_you_mean(name, names, f"there are {listed(names)}")
            raise GCNetError(f"recipe: class_weights has no class {name!r}; {hint}")
    if given is None:
        weights = by_frequency(_counts(train_set, len(names), masks))
    else:
        weights = torch.tensor([given.get(name, 1.0) for name in names])
    alike = bool((weights == 1).all())
    modules: Any = model.modules()
    for module in modules:
        if hasattr(module, "class_weights"):
            background = torch.ones(1 if isinstance(module, BoxHead) else 0)
            module.class_weights = None if alike else torch.cat([weights, background])
    shown = [f"{name} {weight:.3g}" for name, weight in zip(names, weights.tolist(), strict=True)]
    return "" if alike else f"class weights: {listed(shown, 12)}"


def by_frequency(counts: list[int]) -> Float[Tensor, " K"]:
    """One over the square root of each class's number of objects, with a mean of 1; 1 for a class without."""
    numbers = torch.tensor(counts, dtype=torch.float64)
    present = numbers > 0
    weights = numbers.clamp(min=1).rsqrt()
    return (weights / weights[present].mean()).where(present, 1.0).float()


def _counts(train_set: DataSet, classes: int, masks: bool) -> list[int]:
    """The number of objects (for a classifier, images) of each class in training."""
    if train_set.has_labels:
        found = Counter(record.label for record in train_set.records)
    else:
        found = Counter(item.label for record in train_set.records for item in record.objects(masks=masks))
    return [found[label] for label in range(classes)]
