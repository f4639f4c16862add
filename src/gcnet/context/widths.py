"""Finds the number of channels of a module's maps before a block is inserted, and checks it afterwards.

N images, C channels, `...` positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from gcnet.console import one_line
from gcnet.context.inspection import undone
from gcnet.errors import GCNetError

TRIED_SIDES = ((56, 112), (48, 96))  # height and width that windows of attention divide
WIDTHS = ("out_channels", "num_features", "num_channels", "out_features")


class Expect:
    """A forward pre-hook that marks an inserted block, and refuses maps that it was not made for."""

    def __init__(self, site: str, channels: int, channel_dim: int) -> None:
        self.site, self.channels, self.channel_dim = site, channels, channel_dim

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        (x,) = inputs
        if not isinstance(x, Tensor):
            raise _no_tensor(self.site, type(x).__name__)
        there = -x.dim() <= self.channel_dim < x.dim()
        if not there or x.shape[self.channel_dim] != self.channels:
            raise GCNetError(
                f"{shown(self.site)} returns a map of shape {tuple(x.shape)}, but its block was made for "
                f"{self.channels} channels in dimension {self.channel_dim}: insert it with channels= or "
                "example=, and channel_dim="
            )


def is_inserted(module: nn.Module) -> bool:
    """Whether `gcnet.context.insert` added this block."""
    return any(isinstance(hook, Expect) for hook in module._forward_pre_hooks.values())


def shown(path: str) -> str:
    """A module's name in quotes, for messages."""
    return f'"{path}"' if path else "the model"


def output_channels(module: nn.Module) -> int | None:
    """C of what `module` returns, as its last convolution, norm or linear layer tells; None if none does."""
    layer = _last_layer(module)
    return None if layer is None else _width(layer)


def layout(holder: nn.Module, site: str) -> tuple[int | None, int]:
    """C of what `site` in `holder` returns, None if it is not known, and which dimension that is.

    Where `holder` cannot be run by itself, the last layer tells; stochastic depth and attention along the
    channels do not, and then the last one around them does. C is last after a linear layer, and in a module
    of linear layers without convolutions.
    """
    if found := _run_alone(holder, site):
        return found
    own = _last_layer(holder.get_submodule(site))
    last = own or _last_layer(holder)
    kinds = {type(part) for part in holder.modules()}
    linear = nn.Linear in kinds and not any(issubclass(kind, _ConvNd) for kind in kinds)
    tokens = linear or isinstance(own, nn.Linear)
    return (None if last is None else _width(last)), (-1 if tokens else 1)


def probed_channels(
    model: nn.Module, dims: Mapping[str, int], example: Tensor | tuple[Any, ...]
) -> dict[str, int]:
    """C, in dimension `dims`, of what modules return in one forward pass of `model`, in eval mode."""
    try:
        with undone(model), _outputs(model, dims) as found, torch.no_grad():
            model.eval()(*(example if isinstance(example, tuple) else (example,)))
    except GCNetError:
        raise
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}", 140)
        raise GCNetError(f"the model does not run on the example ({reason}): pass another") from error
    channels = {}
    for site, outputs in found.items():
        for output in outputs:
            if isinstance(output, str):
                raise _no_tensor(site, output)
            if not -len(output) <= dims[site] < len(output):
                raise GCNetError(f"{shown(site)} returns a map of shape {output}: pass another channel_dim=")
        widths = {output[dims[site]] for output in outputs}
        if len(widths) != 1:
            seen = f"returns {sorted(widths)} channels at different calls" if widths else "is not called"
            raise GCNetError(f"{shown(site)} {seen} when the model runs on the example: name another module")
        (channels[site],) = widths
    return channels


@contextmanager
def _outputs(model: nn.Module, sites: Iterable[str]) -> Iterator[dict[str, list[Any]]]:
    """The shapes of what modules return while the model runs; of what is no tensor, the name of its class."""
    found: dict[str, list[Any]] = {site: [] for site in sites}

    def see(site: str, _: nn.Module, inputs: object, output: Any) -> None:
        found[site].append(tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__)

    with ExitStack() as hooks:
        for site in found:
            hook = partial(see, site)
            hooks.enter_context(model.get_submodule(site).register_forward_hook(hook))
        yield found


def _run_alone(module: nn.Module, site: str) -> tuple[int, int] | None:
    """C, and its dimension, of what `site` in `module` returns when that runs on a map or on tokens.

    It runs without memory for its numbers. Blocks of tokens may want the map's height and width too. None if
    its input is something else.
    """
    width = next((width for part in module.modules() if (width := _input_width(part))), None)
    if width is None:
        return None
    high, wide = next(sides for sides in TRIED_SIDES if width not in sides)
    tensors = itertools.chain(module.parameters(), module.buffers())
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
    sizes: tuple[tuple[Any, ...], ...] = ((), (high, wide), ((high, wide),))
    shapes = ((width, high, wide), (high * wide, width), (high, wide, width))
    for shape, size in itertools.product(shapes, sizes):
        try:
            with undone(module, meta=True), _outputs(module, [site]) as found, torch.no_grad():
                module(torch.zeros(1, *shape, dtype=dtype, device="meta"), *size)
        except Exception:  # whatever it cannot be run on
            continue
        (out,) = set(found[site]) if len(set(found[site])) == 1 else ((),)
        if isinstance(out, str):
            continue
        if len(out) == 4 and out[3] == 2 * out[2]:
            return out[1], 1
        if len(out) == 3 or (len(out) == 4 and out[2] == 2 * out[1]):
            return out[-1], -1
    return None


def _last_layer(module: nn.Module) -> nn.Module | None:
    """The last layer of a module that has a number of channels."""
    if _width(module) is not None:
        return module
    layers = (_last_layer(child) for child in reversed(list(module.children())) if not is_inserted(child))
    return next((layer for layer in layers if layer is not None), None)


def _width(layer: nn.Module) -> int | None:
    for attribute in WIDTHS:
        width = getattr(layer, attribute, None)
        # 1 is a gate that slides over the channels (efficient channel attention), not a width.
        if isinstance(width, int) and width > 1:
            return width
    shape = getattr(layer, "normalized_shape", None)
    return shape[0] if isinstance(shape, tuple) and len(shape) == 1 else None


def _input_width(layer: nn.Module) -> int | None:
    width = getattr(layer, "in_channels", None) or getattr(layer, "in_features", None) or _width(layer)
    return width if isinstance(width, int) else None


def _no_tensor(site: str, kind: str) -> GCNetError:
    return GCNetError(f"{shown(site)} returns a {kind}, not a tensor: name a module inside it")
