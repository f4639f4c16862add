"""The non-local block (arXiv 1711.07971) and its simplification (arXiv 1904.11492, section 4.1).

N images, C channels, `...` positions: a sequence, an H x W map or a volume.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from gcnet.context.block import ContextBlock, bottleneck_width
from gcnet.context.modelling import AttentionPool
from gcnet.context.pairwise import Mode, PairwiseAttention
from gcnet.context.transform import LinearTransform


class NonLocal(ContextBlock):
    """Adds to each position a sum over all positions with weights of its own.

    Its cost in time is quadratic in the number of positions for the two gaussian modes; its memory is linear
    in all four (see `PairwiseAttention`).

    Args:
        channels: C of the map.
        ratio: inner width as a share of `channels`, in (0, 1].
        mode: how two positions are compared: "embedded_gaussian", "gaussian", "dot_product" or
            "concatenation" (section 3.2 of arXiv 1711.07971).
        use_scale: divide the scores of "embedded_gaussian" by the root of the inner width.
        sub_sample: halve each side of the map of keys and values by max-pooling.
        batch_norm: batch norm on the output.

    The last layer starts at zero: a fresh block changes nothing.

    Raises:
        ValueError: `ratio` leaves no inner channel, or `mode` is unknown.
    """

    pool: PairwiseAttention
    add: LinearTransform

    def __init__(
        self,
        channels: int,
        *,
        ratio: float = 1 / 2,
        mode: Mode = "embedded_gaussian",
        use_scale: bool = True,
        sub_sample: bool = False,
        batch_norm: bool = False,
    ) -> None:
        inner = bottleneck_width(channels, ratio)
        super().__init__(
            PairwiseAttention(channels, inner, mode=mode, use_scale=use_scale, sub_sample=sub_sample),
            add=LinearTransform(inner, channels, batch_norm=batch_norm),
        )

    def attention(self, x: Float[Tensor, "N C ..."], queries: Int[Tensor, " Q"]) -> Float[Tensor, "N Q ..."]:
        """The attention map of each position in `queries`; see `PairwiseAttention.attention`."""
        return self.pool.attention(x, queries)


class SimplifiedNonLocal(ContextBlock):
    """Adds one attention-pooled vector, after a C x C linear layer, to every position (section 4.1, eq. 4).

    The weights of eq. 3 do not depend on the query; so the value layer may come after the sum, where it works
    on one vector. It starts at zero: a fresh block changes nothing.

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(AttentionPool(channels), add=LinearTransform(channels, channels))
