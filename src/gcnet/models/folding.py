"""Batch norm with known statistics as a factor and a shift for each channel.

N images, D channels, H x W map. If they are fixed, a convolution and its norm become one convolution.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from gcnet.models.layers import DeformableConv2d

_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def fold(
    conv: nn.Conv2d, norm: nn.BatchNorm2d | nn.SyncBatchNorm
) -> tuple[Float[Tensor, "D _c _k _l"], Float[Tensor, " D"]]:
    """Weight and bias of one convolution that equals `conv` followed by `norm` in eval mode.

    Both are differentiable: gradients of the folded layer are those of the two, exactly.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    start = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    return conv.weight * scale.view(-1, 1, 1, 1), norm.bias - start * scale


@torch.no_grad()
def folded(
    conv: nn.Conv2d, norm: nn.Module | None
) -> tuple[Float[Tensor, "D _c _k _l"], Float[Tensor, " D"]]:
    """Copies of what `fold` gives, or, without a norm, of the convolution's own weight and bias."""
    if norm is not None:
        return fold(conv, norm)  # type: ignore[arg-type]
    weight = conv.weight.detach().clone()
    return weight, weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().clone()


def can_fold(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether `fold` supports these two."""
    return is_plain(conv) and _has_statistics(norm) and not norm.training


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is of exactly its class; parametrised layers have another class."""
    return type(layer) in (nn.Conv2d, DeformableConv2d, nn.GroupNorm, *_BATCH_NORMS)


def normalise(norm: nn.Module, u: Float[Tensor, "N D H W"]) -> tuple[Tensor, Float[Tensor, " D"]]:
    """norm(u) with statistics of the batch, or of all processes', and the factor that u was multiplied by.

    Norms do not tell the factor; but with a momentum of 1 their running statistics are those of the batch.
    The true ones are moved as the norm's momentum says. `has_factor` must hold.
    """
    assert isinstance(norm, _BATCH_NORMS)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    means, variances, momentum = norm.running_mean, norm.running_var, norm.momentum
    mean, variance = torch.zeros_like(means), torch.ones_like(variances)
    norm.running_mean, norm.running_var, norm.momentum = mean, variance, 1.0
    try:
        z = norm(u)
    finally:
        norm.running_mean, norm.running_var, norm.momentum = means, variances, momentum
    with torch.no_grad():
        means.lerp_(mean, momentum)  # type: ignore[arg-type]
        variances.lerp_(variance, momentum)  # type: ignore[arg-type]
        count = variance.new_full((), u.numel() // u.shape[1])
        if isinstance(norm, nn.SyncBatchNorm) and distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(count, group=norm.process_group)  # others' maps may be of another size
        # Running variances are those of a sample; the norm divides by that of the batch.
        scale = norm.weight * (variance * (1 - 1 / count) + norm.eps).rsqrt()
    return z, scale


def has_factor(norm: nn.Module) -> bool:
    """Whether `normalise` supports this norm; compilers cannot follow it."""
    usable = not torch.compiler.is_compiling() and _has_statistics(norm)
    return usable and norm.training and norm.momentum is not None


def _has_statistics(norm: nn.Module) -> bool:
    """Whether this is a batch norm with weights and running statistics, which it may be without."""
    own = type(norm) in _BATCH_NORMS
    return own and isinstance(norm.weight, Tensor) and isinstance(norm.running_mean, Tensor)
