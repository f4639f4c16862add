"""The global context block (arXiv 1904.11492, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gcnet.context.block import ContextBlock, bottleneck_width
from gcnet.context.modelling import AttentionPool, AveragePool
from gcnet.context.transform import BottleneckTransform

Fusion = Literal["add", "scale"]


class GlobalContext(ContextBlock):
    """Pools the whole map into one vector, transforms it, and fuses it into every position.

    Args:
        channels: C of the map.
        ratio: bottleneck width as a share of `channels`, in (0, 1].
        pooling: "attention" (the paper's) or "average" (as in squeeze-excitation).
        fusion: "add" adds a term per channel, "scale" multiplies by a sigmoid gate; both: scale, then add.
        layer_norm: whether the bottleneck has LayerNorm, which eases its optimisation (section 4.3).

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
        layer_norm: bool = True,
    ) -> None:
        bottleneck = bottleneck_width(channels, ratio)
        if pooling not in ("attention", "average"):
            raise ValueError(f'pooling is "attention" or "average", not {pooling!r}')
        if isinstance(fusion, str) or not fusion or not set(fusion) <= {"add", "scale"}:
            raise ValueError(f'fusion is a sequence of "add" and "scale", not {fusion!r}')

        def transform(kind: Fusion) -> BottleneckTransform | None:
            return (
                BottleneckTransform(channels, bottleneck, layer_norm=layer_norm) if kind in fusion else None
            )

        super().__init__(
            AttentionPool(channels) if pooling == "attention" else AveragePool(),
            scale=transform("scale"),
            add=transform("add"),
        )
