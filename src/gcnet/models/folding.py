"""A convolution and the norm after it as one convolution, where the norm's statistics are fixed.

D output channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.models.deformable import DeformableConv2d

_CONVOLUTIONS = (nn.Conv2d, DeformableConv2d)
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def fold(
    conv: nn.Conv2d, norm: nn.BatchNorm2d | nn.SyncBatchNorm
) -> tuple[Float[Tensor, "D _c _k _l"], Float[Tensor, " D"]]:
    """Weight and bias of a convolution that does what `conv` and then `norm` in eval mode do.

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
    """Whether `fold` may take these two: not if something was made of them that it does not know of.

    A parametrised convolution, for one, has a class of its own.
    """
    return (
        type(conv) in _CONVOLUTIONS
        and type(norm) in _NORMS
        and not norm.training
        and isinstance(norm.weight, Tensor)
        and isinstance(norm.running_mean, Tensor)
    )
