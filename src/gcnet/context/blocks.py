"""The paper's blocks: context modelling -> transform -> fusion (arXiv 1904.11492, section 4.2).

N images, C channels, D channels of the context, `...` positions: a sequence, an H x W map or a volume.

- Context modelling gathers from all positions: `AttentionPool` and `AveragePool` into one vector for the
  whole map, `PairwiseAttention` into one for each position.
- The transform says what the context means to each channel: `BottleneckTransform`, `LinearTransform`. Its
  last layer starts at zero, so that a block that adds its result starts as the identity.
- Fusion puts that into every position: add, scale (a sigmoid gate), or both.

The named blocks are choices of parts: `GlobalContext`, `SimplifiedNonLocal`, `NonLocal`, `SqueezeExcitation`.
`gcnet.context.gates` has blocks of other papers, and `gcnet.context_spec` lists all of them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gcnet.context.attend import attend, attention_weights, positions
from gcnet.context.pairwise import Mode, PairwiseAttention
from gcnet.context_spec import find_block

Fusion = Literal["add", "scale"]


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
            x = x * _spread(self.gate(self.scale(context)), x)
        if self.add is not None:
            x = x + _spread(self.add(context), x)
        return x

    @staticmethod
    def gate(term: Tensor) -> Tensor:
        """What the map is multiplied by, from what `scale` returns."""
        return term.sigmoid()


def _spread(term: Tensor, x: Tensor) -> Tensor:
    """One vector for the map is shared by all its positions; a map stays as it is."""
    return term.view(*term.shape, *[1] * (x.dim() - term.dim()))


class AttentionPool(nn.Module):
    """A weighted mean over all positions; the weights are a softmax over one learnt 1x1 convolution.

    The one attention map is shared by all queries: that is the paper's simplification of non-local blocks.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.zeros(1))
        nn.init.normal_(self.weight, std=(2 / channels) ** 0.5)  # Kaiming, fan-in

    def attention(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N ..."]:
        """The map of weights; they sum to 1 over the positions of an image."""
        weights = attention_weights(positions(x), self.weight, self.bias)
        return weights.reshape(x.shape[0], *x.shape[2:])

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C"]:
        return attend(positions(x), self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"channels={len(self.weight)}"


class AveragePool(nn.Module):
    """The plain mean over all positions, as in squeeze-excitation (arXiv 1709.01507)."""

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C"]:
        return x.flatten(2).mean(dim=2)


class BottleneckTransform(nn.Module):
    """C -> bottleneck -> C with LayerNorm and ReLU between (section 4.3). One vector for the whole map.

    Without `layer_norm` it is that of squeeze-excitation (arXiv 1709.01507, section 3.2).
    """

    def __init__(self, channels: int, bottleneck: int, *, layer_norm: bool = True) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, bottleneck)
        self.norm = nn.LayerNorm(bottleneck) if layer_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.expand = nn.Linear(bottleneck, channels)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, context: Float[Tensor, "... C"]) -> Float[Tensor, "... C"]:
        return self.expand(self.relu(self.norm(self.reduce(context))))


class LinearTransform(nn.Module):
    """D -> C by one 1x1 convolution, of one vector or of a map of them.

    With `batch_norm` the convolution has no bias, and it is the norm's scale that starts at zero.
    """

    def __init__(self, in_channels: int, channels: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, channels, bias=not batch_norm)
        self.norm = nn.BatchNorm1d(channels) if batch_norm else nn.Identity()
        last = self.norm if isinstance(self.norm, nn.BatchNorm1d) else self.linear
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, context: Float[Tensor, "N D ..."]) -> Float[Tensor, "N C ..."]:
        if context.dim() == 2:
            return self.norm(self.linear(context))
        out = self.linear(context.flatten(2).transpose(1, 2)).transpose(1, 2)
        return self.norm(out).reshape(*out.shape[:2], *context.shape[2:])


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


class SimplifiedNonLocal(ContextBlock):
    """Adds one attention-pooled vector, after a C x C linear layer, to every position (section 4.1, eq. 4).

    The weights of eq. 3 do not depend on the query; so the value layer may come after the sum, where it works
    on one vector. It starts at zero: a fresh block changes nothing.

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(AttentionPool(channels), add=LinearTransform(channels, channels))


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


class SqueezeExcitation(ContextBlock):
    """Scales each channel by a sigmoid gate that is computed from the mean of the map.

    The last layer starts at zero, so a fresh block halves the map: a gate in (0, 1) cannot start as the
    identity. In a trained network it has to be trained from there.

    Args:
        channels: C of the map.
        ratio: bottleneck width as a share of `channels`, in (0, 1].

    Raises:
        ValueError: `ratio` leaves no bottleneck channel.
    """

    def __init__(self, channels: int, *, ratio: float = 1 / 16) -> None:
        bottleneck = bottleneck_width(channels, ratio)
        super().__init__(AveragePool(), scale=BottleneckTransform(channels, bottleneck, layer_norm=False))


def bottleneck_width(channels: int, ratio: float) -> int:
    """`channels * ratio`, rounded down.

    Raises:
        ValueError: that is less than one channel, or more than `channels`.
    """
    width = int(channels * ratio)
    if not 1 <= width <= channels:
        raise ValueError(f"ratio {ratio} of {channels} channels gives a bottleneck of {width}")
    return width


def make_block(name: str, channels: int, **options: Any) -> ContextBlock:
    """The block that `gcnet.context_spec.BLOCKS` has under that name, for a map of `channels`.

    Raises:
        GCNetError: there is no such block, or it has no such option.
    """
    return resolve_name(find_block(name, options).made_by)(channels, **options)
