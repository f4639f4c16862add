"""Runs parts of a network to learn about them, and leaves the network as it was."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

COPIED = (dict, OrderedDict, defaultdict, Counter, list, deque, set)
HOOKS = ("_forward_pre_hooks", "_forward_hooks")


@contextmanager
def undone(module: nn.Module, *, meta: bool = False) -> Iterator[None]:
    """What is assigned, counted or cached inside by `module` and its parts is gone afterwards.

    Meanwhile they have copies of their containers and buffers. With `meta` they run without memory for their
    numbers, all tensors on the meta device, and without the hooks of others, which would keep such tensors.
    """
    held = [(part, dict(vars(part))) for part in module.modules()]
    copies: dict[int, Any] = {}
    try:
        for part, attributes in held:
            vars(part).update({name: _copied(value, copies, meta) for name, value in attributes.items()})
            for name in HOOKS if meta else ():
                vars(part)[name] = OrderedDict()
        yield
    finally:
        for part, attributes in held:
            vars(part).clear()
            vars(part).update(attributes)


def _copied(value: Any, copies: dict[int, Any], meta: bool) -> Any:
    """A copy of a tensor that is no parameter, or of a container; one for all that share it."""
    if id(value) in copies:
        return copies[id(value)]
    if isinstance(value, Tensor) and meta:
        value = copies[id(value)] = torch.empty_like(value, device="meta")
    elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        value = copies[id(value)] = value.detach().clone()
    elif type(value) in COPIED:
        new: Any = copy.copy(value)
        copies[id(value)] = new
        for key in () if type(value) is set else list(new) if isinstance(new, dict) else range(len(new)):
            new[key] = _copied(new[key], copies, meta)
        return new
    return value
