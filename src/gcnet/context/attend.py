"""Attention pooling with its own backward pass, which writes one map in memory where autograd writes two.

N images, C channels, P positions of a map.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.jit._trace import is_tracing


def positions(x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C P"]:
    """A view of a map, contiguous or channels-last, with all its positions in one row.

    `flatten(2)` is one as well, but of a single channels-last image its strides make bmm copy the map; the
    other way round those of a contiguous one would.
    """
    return x.movedim(1, -1).flatten(1, -2).transpose(1, 2) if x.stride(1) == 1 else x.flatten(2)


def attention_weights(
    flat: Float[Tensor, "N C P"], weight: Float[Tensor, " C"], bias: Float[Tensor, " 1"] | None
) -> Float[Tensor, "N P"]:
    """A softmax over positions of one linear function of the channels."""
    # bmm reads contiguous and channels-last maps in place; matmul with a vector would copy a contiguous one.
    # shape[0], not len: torch.export would take the batch size for a constant.
    logits = torch.bmm(weight.to(flat.dtype).expand(flat.shape[0], 1, -1), flat).squeeze(1)
    return (logits if bias is None else logits + bias).softmax(dim=1)


def attend(
    flat: Float[Tensor, "N C P"], weight: Float[Tensor, " C"], bias: Float[Tensor, " 1"] | None
) -> Float[Tensor, "N C"]:
    """The mean over positions, weighted by `attention_weights`. Saves only `flat` for backward."""
    # A compiler fuses more without it, and torch.jit.trace takes each of its calls for another graph.
    if (
        torch.is_grad_enabled()
        and bias is not None
        and not torch.compiler.is_compiling()
        and not is_tracing()
    ):
        return _Attend.apply(flat, weight, bias)[0]
    return _weighted(flat, attention_weights(flat, weight, bias))


def attend_normed(
    z: Float[Tensor, "N C P"],
    u: Float[Tensor, "N C P"],
    scale: Float[Tensor, " C"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " 1"],
) -> Float[Tensor, "N C"]:
    """`attend(z, weight, bias)` for z = scale * u + a shift of each channel. Saves u, not z.

    The norm saves its input u in any case, so z costs no memory and may be overwritten. No gradients of
    gradients, and none for u and scale: the norm's backward pass has them.
    """
    return _AttendNormed.apply(z, u, scale, weight, bias)


def _weighted(flat: Tensor, weights: Tensor) -> Tensor:
    # The vector comes first in a product: as a right-hand side a column takes the CPU ten times as long.
    return torch.bmm(weights.to(flat.dtype).unsqueeze(1), flat.transpose(1, 2)).squeeze(1)


class _Attend(torch.autograd.Function):
    """Also returns the weights, so that second derivatives are right."""

    generate_vmap_rule = True

    @staticmethod
    def forward(flat: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        weights = attention_weights(flat, weight, bias)
        return _weighted(flat, weights), weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:2], output[1])
        ctx.save_for_forward(*inputs[:2], output[1])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, Tensor]:
        along_flat, along_weight, along_bias = tangents
        flat, weight, weights = ctx.saved_tensors
        logits = torch.bmm(weight.expand(len(flat), 1, -1), along_flat).squeeze(1) + along_bias
        logits = logits + torch.bmm(along_weight.expand(len(flat), 1, -1), flat).squeeze(1)
        along_weights = _grad_logits(weights, logits)
        return _weighted(along_flat, weights) + _weighted(flat, along_weights), along_weights

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad, grad_weights = grad_outputs
        flat, weight, weights = ctx.saved_tensors
        grad = grad.to(flat.dtype)  # under autocast it may differ
        grad_weights = grad_weights + torch.bmm(grad.unsqueeze(1), flat).squeeze(1)
        grad_logits = _grad_logits(weights, grad_weights)
        grad_flat = _grad_map(flat, grad, weight, weights, grad_logits) if ctx.needs_input_grad[0] else None
        grad_weight = _weighted(flat, grad_logits).sum(dim=0)
        return grad_flat, grad_weight.to(weight.dtype), grad_logits.sum().view(1).to(weight.dtype)


class _AttendNormed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, u: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        weights = attention_weights(z, weight, bias)
        ctx.save_for_backward(u, scale, weight, weights)
        return _weighted(z, weights)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] (torch's decorator hides the names)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        # The shift adds the same to all of an image's `grad_weights`, which the softmax does not see, and its
        # part of `grad_weight` is multiplied by the sum of `grad_logits`, which is zero.
        u, scale, weight, weights = ctx.saved_tensors
        grad = grad.to(u.dtype)
        grad_weights = torch.bmm((grad * scale).to(u.dtype).unsqueeze(1), u).squeeze(1)
        grad_logits = _grad_logits(weights, grad_weights)
        grad_z = _grad_map(u, grad, weight, weights, grad_logits)
        grad_weight = scale * _weighted(u, grad_logits).sum(dim=0)
        return grad_z, None, None, grad_weight.to(weight.dtype), grad_logits.sum().view(1).to(weight.dtype)


def _grad_logits(weights: Tensor, grad_weights: Tensor) -> Tensor:
    """The gradient of the logits. It sums to zero, so the gradient of their bias is zero."""
    return weights * (grad_weights - (weights * grad_weights).sum(1, keepdim=True))


def _grad_map(like: Tensor, grad: Tensor, weight: Tensor, weights: Tensor, grad_logits: Tensor) -> Tensor:
    """The gradient of the pooled map, laid out in memory as `like`: one product, (C, 2) x (2, P)."""
    channels = torch.stack([grad, weight.to(grad.dtype).expand_as(grad)], dim=2)
    positions = torch.stack([weights, grad_logits], dim=1).to(grad.dtype)
    if like.stride(1) == 1:
        return torch.bmm(positions.transpose(1, 2), channels.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(channels, positions)
