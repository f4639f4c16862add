"""What keeps an inserted block running where it was put.

Modules and hooks are plain picklable objects: copies and saved models keep them. C channels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gcnet.errors import GCNetError


def is_inserted(module: nn.Module) -> bool:
    """Whether `module` is a block that `gcnet.context.insert` put there."""
    return any(isinstance(hook, Expect) for hook in module._forward_pre_hooks.values())


def shown(name: str) -> str:
    """What messages call a module: its name in quotes; the whole model has none."""
    return f'"{name}"' if name else "the model"


class ChannelsFirst(nn.Module):
    """A block for maps that have C elsewhere than in dimension 1."""

    def __init__(self, block: nn.Module, channel_dim: int) -> None:
        super().__init__()
        self.block, self.channel_dim = block, channel_dim

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.movedim(self.channel_dim, 1)).movedim(1, self.channel_dim)


class RunBlock:
    """Forward hook: the hooked module's output goes through the block that `holder`, or itself, holds."""

    def __init__(self, name: str, holder: nn.Module | None) -> None:
        self.name, self.holder = name, holder

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
        holder = module if self.holder is None else self.holder
        return getattr(holder, self.name)(output)


class Follow:
    """Forward pre-hook of the module that contains a place: the block stays at the place's name.

    Converting to SyncBatchNorm or folding norms puts another module there, which has no hook of ours.
    """

    def __init__(self, name: str, path: str, run: RunBlock, site: nn.Module) -> None:
        self.name, self.path, self.run = name, path, run
        self._hook(site)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        site = module.get_submodule(self.path)
        if site is not self.site:
            self._hook(site)

    def _hook(self, site: nn.Module) -> None:
        self.site = site
        if self.run not in site._forward_hooks.values():
            site.register_forward_hook(self.run)


class Expect:
    """Forward pre-hook of an inserted block, and its mark: refuses what the block was not made for."""

    def __init__(self, site: str, channels: int, channel_dim: int) -> None:
        self.site, self.channels, self.channel_dim = site, channels, channel_dim

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        (x,) = inputs
        if not isinstance(x, Tensor):
            raise GCNetError(
                f"{shown(self.site)} returns a {type(x).__name__}, not a tensor: name a module inside it"
            )
        if x.shape[self.channel_dim] != self.channels:
            raise GCNetError(
                f"{shown(self.site)} returns a map of shape {tuple(x.shape)}, but its block was made for "
                f"{self.channels} channels in dimension {self.channel_dim}: insert it with channels= or "
                "example=, and channel_dim="
            )
