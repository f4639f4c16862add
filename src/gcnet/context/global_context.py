"""The global context block (arXiv 1904.11492, section 4.3).

N images, C channels, `...` positions: a sequence, an H x W map or a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from gcnet.context.modelling import AttentionPool, AveragePool
from gcnet.context.transform import BottleneckTransform

Fusion = Literal["add", "scale"]


class GlobalContext(nn.Module):
    """Pools the whole map into one vector, transforms it, and fuses it into every position.

    Args:
        channels: C of the map.
        ratio: bottleneck width as a share of `channels`, in (0, 1].
        pooling: "attention" (the paper's) or "average" (as in squeeze-excitation).
        fusion: "add" adds a term per channel, "scale" multiplies by a sigmoid gate; both: scale, then add.

    The last layer of each transform is zero: with `("add",)` a fresh block changes nothing, so it can go
    into a trained network.

    Raises:
        ValueError: `ratio` leaves no bottleneck channel, or `pooling` or `fusion` is unknown.
    """

    def __init__(
        self,
        channels: int,
        *,
        ratio: float = 1 / 16,
        pooling: Literal["attention", "average"] = "attention",
        fusion: Sequence[Fusion] = ("add",),
    ) -> None:
        super().__init__()
        bottleneck = int(channels * ratio)
        if not 1 <= bottleneck <= channels:
            raise ValueError(f"ratio {ratio} of {channels} channels gives a bottleneck of {bottleneck}")
        if pooling not in ("attention", "average"):
            raise ValueError(f'pooling is "attention" or "average", not {pooling!r}')
        if isinstance(fusion, str) or not fusion or not set(fusion) <= {"add", "scale"}:
            raise ValueError(f'fusion is a sequence of "add" and "scale", not {fusion!r}')
        self.pool = AttentionPool(channels) if pooling == "attention" else AveragePool()
        self.scale = BottleneckTransform(channels, bottleneck) if "scale" in fusion else None
        self.add = BottleneckTransform(channels, bottleneck) if "add" in fusion else None

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C ..."]:
        context = self.pool(x)
        per_channel = (*context.shape, *[1] * (x.dim() - 2))
        if self.scale is not None:
            x = x * self.scale(context).sigmoid().view(per_channel)
        if self.add is not None:
            x = x + self.add(context).view(per_channel)
        return x
