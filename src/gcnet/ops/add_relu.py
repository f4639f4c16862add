"""The end of a residual block, relu(z + shortcut + shift), written into z.

N images, C channels, H x W map.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def add_relu_(
    z: Float[Tensor, "N C H W"],
    shortcut: Float[Tensor, "N C H W"],
    shift: Float[Tensor, "N C"] | None = None,
) -> Float[Tensor, "N C H W"]:
    """relu(z + shortcut + shift), written into `z`; only the result is kept for the backward pass.

    The gradient of `shift`, a sum over positions, is taken in float32 at least.
    """
    if torch.compiler.is_compiling():  # a compiler fuses this itself
        out = z + shortcut
        return (out if shift is None else out + shift[:, :, None, None]).relu()
    return _AddReLU.apply(z, shortcut, shift)


class _AddReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, shortcut: Tensor, shift: Tensor | None) -> Tensor:
        z.add_(shortcut)
        if shift is not None:
            z.add_(shift[:, :, None, None])
        z.relu_()
        ctx.mark_dirty(z)
        ctx.save_for_backward(z)
        ctx.dtypes = shortcut.dtype, None if shift is None else shift.dtype
        return z

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_out,) = grad_outputs
        (out,) = ctx.saved_tensors
        shortcut_type, shift_type = ctx.dtypes
        grad = torch.ops.aten.threshold_backward(grad_out, out, 0)
        grad_shift = None
        if ctx.needs_input_grad[2]:
            exact = torch.promote_types(grad.dtype, torch.float32)
            grad_shift = grad.sum((2, 3), dtype=exact).to(shift_type)
        return grad, grad.to(shortcut_type), grad_shift
