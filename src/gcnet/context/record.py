"""Attention maps out of a running model.

N images, H x W map.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from gcnet.context.modelling import AttentionPool


@contextmanager
def record(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collects the attention map of every block while the model runs.

    Yields a dict from module name to the (N, H, W) map of the latest forward pass, on the CPU; a map sums
    to 1 over its positions. Blocks that pool by average have no map.

        with record(detector) as maps:
            detector.predict_images("photo.jpg")
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str, module: AttentionPool, inputs: tuple[Tensor], _: Tensor) -> None:
        with torch.no_grad():
            maps[name] = module.attention(inputs[0]).float().cpu()

    pools = {name: module for name, module in model.named_modules() if isinstance(module, AttentionPool)}
    handles = [pool.register_forward_hook(partial(keep, name)) for name, pool in pools.items()]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
