"""The framework of the paper: context modelling -> transform -> fusion (arXiv 1904.11492, section 4.2).

N images, C channels, D channels of the context, `...` positions: a sequence, an H x W map or a volume.

- Context modelling gathers from all positions: `AttentionPool` and `AveragePool` into one vector for the
  whole map, `PairwiseAttention` into one for each position.
- The transform says what the context means to each channel: `BottleneckTransform`, `LinearTransform`.
- Fusion puts that into every position: add, scale (a sigmoid gate), or both.

The named blocks are choices of parts: `GlobalContext`, `SimplifiedNonLocal`, `NonLocal`, `SqueezeExcitation`.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class ContextBlock(nn.Module):
    """Gathers context from the whole map and fuses it into every position.

        ContextBlock(AveragePool(), add=LinearTransform(256, 256))

    Args:
        pool: context modelling, from (N, C, ...) to (N, D), one vector for the map, or (N, D, ...).
        add: transform from D to C channels whose result is added to the map.
        scale: transform from D to C channels whose sigmoid multiplies the map. With both: scale, then add.

    A fresh block whose only fusion is `add` changes nothing, since the transforms here start at zero. With
    `scale` the gate starts at one half.

    Raises:
        ValueError: neither `add` nor `scale` is given.
    """

    def __init__(
        self, pool: nn.Module, *, add: nn.Module | None = None, scale: nn.Module | None = None
    ) -> None:
        super().__init__()
        if add is None and scale is None:
            raise ValueError("a context block needs a transform: add, scale or both")
        self.pool = pool
        self.scale = scale
        self.add = add

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C ..."]:
        context = self.pool(x)
        if self.scale is not None:
            x = x * _spread(self.scale(context).sigmoid(), x)
        if self.add is not None:
            x = x + _spread(self.add(context), x)
        return x


def _spread(term: Tensor, x: Tensor) -> Tensor:
    """One vector for the map is shared by all its positions; a map stays as it is."""
    return term.view(*term.shape, *[1] * (x.dim() - term.dim()))


def bottleneck_width(channels: int, ratio: float) -> int:
    """`channels * ratio`, rounded down.

    Raises:
        ValueError: that is less than one channel, or more than `channels`.
    """
    width = int(channels * ratio)
    if not 1 <= width <= channels:
        raise ValueError(f"ratio {ratio} of {channels} channels gives a bottleneck of {width}")
    return width
