"""A residual block in training that computes and saves less than its layers one by one.

N images, C channels, c = C / 4 channels inside a block, H x W map.

- Norms with frozen statistics are folded into their convolutions: the map between the two is neither computed
  nor saved.
- The context is computed from the input y of the last convolution, z = W y + b, which autograd saves anyway.
  Pooling commutes with it, sum_p a_p z_p = W sum_p a_p y_p + b, and the logits w' z_p are (W' w)' y_p up to a
  constant, which does not change the softmax. So the block saves no map of its own, and reads c channels, not
  C.
- After a norm that is trained, z = s u + t. The norm saves u, so the context uses u in place of z.
- Shortcut, context and ReLU are applied to z in place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.jit._trace import is_tracing
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

from gcnet.context import AttentionPool, AveragePool, ContextBlock
from gcnet.context.attend import attend, attend_normed, positions
from gcnet.models.folding import can_fold, fold, has_factor, is_plain, normalise


def can_run(block: Any, x: object) -> bool:
    """Whether `run` computes what a bottleneck does: gradients are on, and nothing observes its layers.

    Hooks on a layer receive its input and output, and torch.fx traces layers with what is no tensor.
    """
    usual = block.depth == 3 and block.contexts in ((), (("context", "after1x1"),))
    if not isinstance(x, Tensor) or not torch.is_grad_enabled() or not usual:
        return False
    if is_tracing() or torch._C._are_functorch_transforms_active():  # do not support in-place functions
        return False
    layers = [block.conv1, block.bn1, block.conv2, block.bn2, block.conv3, block.bn3]
    if block.downsample is not None:
        if type(block.downsample) is not nn.Sequential or len(block.downsample) != 2:
            return False
        layers.extend(block.downsample)
    if block.context is not None:
        known = can_fold(block.conv3, block.bn3) or has_factor(block.bn3)
        if not known or not adds_one_vector(block.context):
            return False
    inner = (module for module in block.modules() if module is not block)  # hooks of the block run either way
    return all(map(is_plain, layers)) and not has_hooks(inner)


def run(block: Any, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
    """The output of a bottleneck that `can_run` allows: equal but for the order of sums."""
    y = _convolve(x, block.conv1, block.bn1).relu_()
    y = _convolve(y, block.conv2, block.bn2).relu_()
    shortcut = x if block.downsample is None else _convolve(x, *block.downsample)
    if block.context is None:
        return add_relu_(_convolve(y, block.conv3, block.bn3), shortcut)
    if can_fold(block.conv3, block.bn3):
        weight, bias = fold(block.conv3, block.bn3)
        shift = context_of(block.context, y, weight.flatten(1), bias) + bias
        return add_relu_(block.conv3._conv_forward(y, weight, None), shortcut, shift)
    u = block.conv3(y)
    z, scale = normalise(block.bn3, u)
    return add_relu_(z, shortcut, _context_of_normed(block.context, z, u, scale))


def adds_one_vector(block: nn.Module | None) -> bool:
    """Whether this is a context block that only adds one vector, pooled from the whole map."""
    return (
        isinstance(block, ContextBlock)
        and type(block).forward is ContextBlock.forward
        and block.scale is None
        and type(block.pool) in (AttentionPool, AveragePool)
    )


def has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Whether one of the modules has hooks."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return bool(torch_module._has_any_global_hook()) or any(
        getattr(module, kind) for module in modules for kind in kinds
    )


def context_of(
    block: Any, y: Float[Tensor, "N c H W"], weight: Float[Tensor, "C c"], bias: Float[Tensor, " C"]
) -> Float[Tensor, "N C"]:
    """The vector that a block with `adds_one_vector` adds to the map weight @ y + bias."""
    flat, pool = positions(y), block.pool
    if isinstance(pool, AttentionPool):
        pooled = attend(flat, pool.weight @ weight, pool.bias)
    else:
        pooled = flat.mean(2)
    return block.add(F.linear(pooled, weight, bias))


def _context_of_normed(
    block: Any, z: Float[Tensor, "N C H W"], u: Float[Tensor, "N C H W"], scale: Float[Tensor, " C"]
) -> Float[Tensor, "N C"]:
    """What a block with `adds_one_vector` adds to z, the norm of u, which may be overwritten then."""
    pool = block.pool
    if not isinstance(pool, AttentionPool):
        return block.add(pool(z))
    return block.add(attend_normed(positions(z), positions(u), scale, pool.weight, pool.bias))


def _convolve(x: Tensor, conv: Any, norm: Any) -> Tensor:
    return conv._conv_forward(x, *fold(conv, norm)) if can_fold(conv, norm) else norm(conv(x))


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
