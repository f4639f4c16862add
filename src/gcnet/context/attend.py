"""Attention pooling with a backward pass of its own: it writes one map, where autograd's writes two.

N images, C channels, P positions of a map.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def attention_weights(
    flat: Float[Tensor, "N C P"], weight: Float[Tensor, " C"], bias: Float[Tensor, " 1"]
) -> Float[Tensor, "N P"]:
    """A softmax over positions of one linear function of the channels."""
    # bmm reads contiguous and channels-last maps in place; matmul with a vector would copy a contiguous one.
    # shape[0], not len: torch.export would take the batch size for a constant.
    logits = torch.bmm(weight.to(flat.dtype).expand(flat.shape[0], 1, -1), flat).squeeze(1) + bias
    return logits.softmax(dim=1)


def attend(
    flat: Float[Tensor, "N C P"], weight: Float[Tensor, " C"], bias: Float[Tensor, " 1"]
) -> Float[Tensor, "N C"]:
    """The mean over positions, weighted by `attention_weights`. Nothing but `flat` is kept of the map."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # a compiler sees more without
        return _Attend.apply(flat, weight, bias)[0]
    return _weighted(flat, attention_weights(flat, weight, bias))


def _weighted(flat: Tensor, weights: Tensor) -> Tensor:
    return torch.bmm(flat, weights.to(flat.dtype).unsqueeze(2)).squeeze(2)


class _Attend(torch.autograd.Function):
    """Returns the weights too, so that their derivatives are known: gradients of gradients come out right."""

    generate_vmap_rule = True

    @staticmethod
    def forward(flat: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        weights = attention_weights(flat, weight, bias)
        return _weighted(flat, weights), weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:2], output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_weights: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, weights = ctx.saved_tensors
        kind = flat.dtype  # under autocast the others may differ
        grad = grad.to(kind)
        of_weights = torch.bmm(grad.unsqueeze(1), flat).squeeze(1) + grad_weights
        of_logits = weights * (of_weights - (weights * of_weights).sum(1, keepdim=True))
        of_flat = None
        if ctx.needs_input_grad[0]:
            channels = torch.stack([grad, weight.to(kind).expand_as(grad)], dim=2)
            positions = torch.stack([weights, of_logits], dim=1).to(kind)
            of_flat = _outer(channels, positions, channels_last=flat.stride(1) == 1)
        of_weight = torch.bmm(flat, of_logits.to(kind).unsqueeze(2)).sum(dim=(0, 2)).to(weight.dtype)
        # A shift of all logits changes no softmax: the bias has a gradient, and it is zero.
        return of_flat, of_weight, of_logits.sum().view(1).to(weight.dtype)


def _outer(channels: Tensor, positions: Tensor, channels_last: bool) -> Tensor:
    """(N, C, 2) times (N, 2, P), in the memory layout of the map."""
    if channels_last:
        return torch.bmm(positions.transpose(1, 2), channels.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(channels, positions)
