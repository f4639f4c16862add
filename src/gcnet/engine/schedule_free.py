"""AdamW without a falling rate: what is learnt is an average of the weights (arXiv 2405.15682, algorithm 1).

Ours, and not the authors' package `schedulefree`, because its state lies partly outside of the parameters'
moments, which are all that a checkpoint holds.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

NEAR = 0.95  # how near the point of the gradient is to the average, 1, and not to the last step, 0
SQUARES, EPSILON = 0.999, 1e-8  # Adam's second beta, and epsilon

Model = TypeVar("Model", bound=nn.Module)


class ScheduleFreeAdamW(Optimizer):
    """The parameters are where gradients are taken; `average` gives the model that has been learnt.

    A step has the square of its rate as its weight in the average, so that those of a warm-up count little.
    """

    def __init__(self, params: Any, *, lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Takes one step with the gradients that are there."""
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for point in group["params"]:
                if point.grad is None:
                    continue
                state = self.state[point]
                if not state:
                    state |= {"steps": 0, "weights": 0.0}
                    state |= {"last": point.clone(), "squares": torch.zeros_like(point)}
                state["steps"] += 1
                state["weights"] += rate**2
                share = rate**2 / state["weights"] if rate else 0.0
                last, squares = state["last"], state["squares"]
                squares.mul_(SQUARES).addcmul_(point.grad, point.grad, value=1 - SQUARES)
                size = (squares / (1 - SQUARES ** state["steps"])).sqrt_().add_(EPSILON)
                move = (point.grad / size).add_(point, alpha=decay)
                point.lerp_(last, share).add_(move, alpha=rate * (NEAR * (1 - share) - 1))
                last.sub_(move, alpha=rate)

    @torch.no_grad()
    def average(self, model: Model) -> Model:
        """A copy of the model that is trained, with the average of its weights."""
        average = copy.deepcopy(model).requires_grad_(False)
        for own, point in zip(average.parameters(), model.parameters(), strict=True):
            if state := self.state.get(point):
                own.lerp_(state["last"], 1 - 1 / NEAR)
        return average
