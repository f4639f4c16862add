"""The norms that a spec can ask for."""

from __future__ import annotations

from torch import nn

from gcnet.models.spec import Norm


def make_norm(norm: Norm, channels: int) -> nn.BatchNorm2d | nn.GroupNorm:
    """Batch norm (whoever trains decides whether to synchronise it), or group norm in groups of 8 or more."""
    if norm == "group":
        return nn.GroupNorm(min(32, channels // 8), channels)
    return nn.BatchNorm2d(channels)


def make_norms(norm: Norm | None, channels: int, count: int) -> nn.ModuleList:
    """One norm for each of `count` convolutions; without a `norm`, modules that do nothing."""
    return nn.ModuleList(nn.Identity() if norm is None else make_norm(norm, channels) for _ in range(count))
