"""The end of a residual block, relu(z + shortcut + shift), in one pass over the map each way.

N images, C channels, H x W map.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
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

    On CUDA each direction is one kernel (`gcnet.ops.add_relu_triton`), where Triton works. The
    gradient of `shift`, a sum over positions, is taken in float32 at least.
    """
    if torch.compiler.is_compiling():  # a compiler fuses this itself
        out = z + shortcut
        return (out if shift is None else out + shift[:, :, None, None]).relu()
    return _AddReLU.apply(z, shortcut, shift)


class _AddReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, shortcut: Tensor, shift: Tensor | None) -> Tensor:
        kernels = _kernels(z, shortcut)
        if kernels is not None:
            kernels.add_relu_(z, shortcut, shift)
        else:
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
        (grad,) = grad_outputs
        (out,) = ctx.saved_tensors
        of_shortcut, of_shift = ctx.dtypes
        wanted = ctx.needs_input_grad[2]
        kernels = None if torch.is_grad_enabled() else _kernels(out, grad)
        if kernels is not None:
            grad, total = kernels.add_relu_backward(grad, out, wanted)
        else:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
            total = grad.sum((2, 3), dtype=torch.promote_types(grad.dtype, torch.float32)) if wanted else None
        return grad, grad.to(of_shortcut), None if total is None else total.to(of_shift)


def _kernels(z: Tensor, other: Tensor) -> Any:
    """The module of kernels, if they take maps such as these."""
    dense = z.is_contiguous() or z.is_contiguous(memory_format=torch.channels_last)
    if not z.is_cuda or not dense or other.stride() != z.stride() or z.dtype == torch.float64 or not len(z):
        return None
    return _kernels_for(z.device, z.dtype)


@cache
def _kernels_for(device: torch.device, dtype: torch.dtype) -> Any:
    """The module of kernels, if they run on this GPU: found out by running them, once.

    Triton compiles them there and then, for which it wants a C compiler, Python's headers, and a GPU that is
    not too old for it. Training can do without all of these.
    """
    if find_spec("triton") is None:  # PyTorch's wheels for Linux bring it, others do not
        return None
    try:
        kernels = import_module("gcnet.ops.add_relu_triton")
        probe = torch.zeros(1, 1, 1, 1, device=device, dtype=dtype)
        kernels.add_relu_(probe, probe.clone(), probe[:, :, 0, 0])
        kernels.add_relu_backward(probe, probe, True)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        warnings.warn(
            f"Triton's kernels do not run on {device} ({reason}): training goes on without, more slowly",
            stacklevel=2,
        )
        return None
    return kernels
