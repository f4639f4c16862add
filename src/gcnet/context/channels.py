"""How many channels the output of a module has. C channels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.context.hooks import is_inserted, shown
from gcnet.errors import GCNetError

WIDTHS = ("out_channels", "num_features", "num_channels", "out_features")


def known_channels(name: str, module: nn.Module, holder: nn.Module) -> int:
    """C of the output of `module`, as its last convolution, norm or linear layer tells.

    Stochastic depth and attention along the channels have none; then it is the last of `holder`, around it.

    Raises:
        GCNetError: neither tells.
    """
    channels = _told(module) or _told(holder)
    if channels is None:
        raise GCNetError(
            f"{shown(name)} does not tell how many channels it returns: pass channels=, or example= an input"
        )
    return channels


def probed_channels(
    model: nn.Module, modules: Mapping[str, nn.Module], example: Tensor | tuple[Any, ...], channel_dim: int
) -> dict[str, int]:
    """C of the outputs of `modules` in one forward pass of `model`, which is in eval mode meanwhile.

    Raises:
        GCNetError: a module is not called, returns no tensor, or returns different C at different calls.
    """
    found: dict[str, set[int]] = {name: set() for name in modules}

    def look(name: str, module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if not isinstance(output, Tensor):
            raise GCNetError(
                f"{shown(name)} returns a {type(output).__name__}, not a tensor: name a module inside it"
            )
        found[name].add(output.shape[channel_dim])

    modes = [(module, module.training) for module in model.modules()]
    handles = [module.register_forward_hook(partial(look, name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            model.eval()(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    for name, widths in found.items():
        if len(widths) != 1:
            seen = f"returns {sorted(widths)} channels at different calls" if widths else "is not called"
            raise GCNetError(f"{shown(name)} {seen} when the model runs on the example: name another module")
    return {name: widths.pop() for name, widths in found.items()}


def _told(module: nn.Module) -> int | None:
    for attribute in WIDTHS:
        width = getattr(module, attribute, None)
        # 1 is a gate that slides over the channels (efficient channel attention), not a width.
        if isinstance(width, int) and width > 1:
            return width
    shape = getattr(module, "normalized_shape", None)
    if isinstance(shape, tuple) and len(shape) == 1:
        return shape[0]
    for child in reversed(list(module.children())):
        width = None if is_inserted(child) else _told(child)
        if width is not None:
            return width
    return None
