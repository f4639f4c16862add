"""A model in eval mode that shares the tensors of one in training; activation checkpointing.

Checkpointing is that of arXiv 1604.06174.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from gcnet.models.heads import BoxHead, MaskHead
from gcnet.models.resnet import ResidualBlock

Model = TypeVar("Model", bound=nn.Module)


def in_eval_mode(model: Model) -> Model:
    """`model` if all of it is in eval mode, else a copy in eval mode with the same tensors and hooks.

    The model itself stays as it is, so that any number of threads can predict with it.
    """
    if not any(module.training for module in model.modules()):
        return model
    shared: list[Any] = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        shared += [value for name, value in vars(module).items() if name.endswith("_hooks")]
    return copy.deepcopy(model, {id(one): one for one in shared}).eval()


def fingerprint(model: nn.Module) -> str:
    """Hex digits that identify the model's weights."""
    digest = hashlib.sha256()
    for tensor in (*model.parameters(), *model.buffers()):
        plain = tensor.detach().to_dense() if tensor.is_mkldnn else tensor.detach()
        digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        digest.update(plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@contextmanager
def recompute_activations(model: nn.Module) -> Iterator[None]:
    """A context in which residual blocks and heads save only inputs, and run again in backward.

    Losses, gradients and norm statistics are the same to the bit. Parts that are not trained keep nothing
    anyway.
    """
    parts: list[Any] = [
        module
        for module in model.modules()
        if isinstance(module, ResidualBlock | BoxHead | MaskHead)
        and any(parameter.requires_grad for parameter in module.parameters())
    ]
    for part in parts:
        # A partial of a method, not a closure: in a copy of the model it belongs to the copy.
        part.forward = partial(_forward, part.forward)
    try:
        yield
    finally:
        for part in parts:
            del part.forward


def _forward(forward: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    part = forward.__self__  # type: ignore[attr-defined]
    return checkpoint(
        forward,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,  # no part draws random numbers
        context_fn=lambda: (nullcontext(), _statistics_rest(part)),  # around the first and second computation
    )


@contextmanager
def _statistics_rest(part: nn.Module) -> Iterator[None]:
    """Keeps trained norms from counting the same images twice."""
    norms = [m for m in part.modules() if isinstance(m, _BatchNorm) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # A copy is counted, and the new statistics have no weight: the same operations as the first time.
        norm.momentum = 0.0
        norm.num_batches_tracked = (
            None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        )
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted
