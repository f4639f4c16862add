"""Attention whose weights also depend on where a key lies, seen from the query (arXiv 1904.05873).

N images, C channels, H x W map of P queries, h x w map of M keys, A heads of D = C // A channels.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gcnet.context.blocks import ContextBlock, LinearTransform
from gcnet.context.pairwise import softmax_attention, tokens_of
from gcnet.errors import GCNetError

WAVE_LENGTH = 1000.0  # the longest of the sines that tell a distance


class GeneralizedAttention(ContextBlock):
    """Adds to each position a sum over all keys, in several heads: the block of "empirical attention".

    It agrees with mmcv's GeneralizedAttention without a `spatial_range`, up to the order of sums; for terms
    such as "0100" only if it is `mirrored`.

    Args:
        channels: C of the map.
        heads: A.
        terms: a "1" or "0" for each term of a key's logit: "query and key content", "query content and
            relative position", "key content", "relative position". "0010" has one map for all queries.
        key_stride: every so many rows and columns of the map are keys.
        mirrored: rows of keys are compared with the query at (column, row) in place of that at (row, column).
            So does mmcv if position counts for the query alone, of square maps only.

    The factor of its result starts at zero: a fresh block changes nothing.

    Raises:
        ValueError: `terms` is no such word, there are more heads than channels, or positions are to be
            compared and the number of channels cannot be divided by 4.
    """

    pool: RelativeAttention

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        terms: str = "1111",
        key_stride: int = 2,
        mirrored: bool = False,
    ) -> None:
        pool = RelativeAttention(channels, heads, terms, key_stride, mirrored)
        super().__init__(pool, add=ScaledTransform(pool.width, channels))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        if x.dim() != 4:
            raise GCNetError(f"generalized attention takes maps of shape (N, C, H, W), not {tuple(x.shape)}")
        if self.pool.mirrored and x.shape[2] != x.shape[3]:
            raise GCNetError(f"mirrored generalized attention takes square maps, not {tuple(x.shape[2:])}")
        return super().forward(x)

    def attention(self, x: Float[Tensor, "N C H W"], queries: Int[Tensor, " Q"]) -> Float[Tensor, "N Q h w"]:
        """See `RelativeAttention.attention`."""
        return self.pool.attention(x, queries)


class RelativeAttention(nn.Module):
    """A sum over keys for each query and head, with a softmax over keys of up to four terms.

    Of query q_i, key k_j, an embedding r_ij of where the key lies from the query, and learnt vectors u and v:
    q_i . k_j, q_i . r_ij, u . k_j and v . r_ij. The embedding is a sum of one of columns and one of rows, so
    that a query compares itself with W + H places and not with all keys; that is put beside its channels, and
    PyTorch's fused attention computes all terms as one product. Memory grows with P and M, not with P x M.
    """

    key_bias: nn.Parameter | None
    place_bias: nn.Parameter | None

    def __init__(self, channels: int, heads: int, terms: str, key_stride: int, mirrored: bool) -> None:
        super().__init__()
        if len(terms) != 4 or not set(terms) <= {"0", "1"} or "1" not in terms:
            raise ValueError(f'terms are four digits "0" or "1", at least one of them "1", not {terms!r}')
        self.terms = tuple(digit == "1" for digit in terms)
        content, query_and_place, key, place = self.terms
        if not 1 <= heads <= channels or key_stride < 1:
            raise ValueError(f"{heads} heads and a key_stride of {key_stride} for {channels} channels")
        if (query_and_place or place) and channels % 4:
            raise ValueError(f"{channels} channels: positions are compared by a multiple of 4")
        self.heads, self.key_stride, self.channels, self.mirrored = heads, key_stride, channels, mirrored
        self.width = channels // heads * heads
        self.to_value = self._layer(channels)
        self.to_query = self._layer(channels) if content or query_and_place else None
        self.to_key = self._layer(channels) if content or key else None
        self.across, self.down = (
            self._layer(channels // 2) if query_and_place or place else None for _ in range(2)
        )
        bound = (2 * (channels // heads)) ** -0.5
        for name, has in (("key_bias", key), ("place_bias", place)):
            bias = nn.Parameter(torch.empty(self.width).uniform_(-bound, bound)) if has else None
            self.register_parameter(name, bias)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N AD ..."]:
        keys = self._keys(x)
        value = self._heads(self.to_value(tokens_of(keys))).flatten(0, 1)
        query, key = self._pairs(x, keys)
        out = softmax_attention(query.flatten(0, 1), key.flatten(0, 1), value, 1.0)
        out = out.transpose(1, 2).unflatten(0, (-1, self.heads)).flatten(1, 2)
        return out[:, :, 0] if self._is_shared else out.unflatten(2, x.shape[2:])

    def attention(self, x: Float[Tensor, "N C H W"], queries: Int[Tensor, " Q"]) -> Float[Tensor, "N Q h w"]:
        """The weights of all keys for the positions `queries`, flat row-major indices into the map.

        They are the mean of all heads, and sum to 1.
        """
        keys = self._keys(x)
        query, key = self._pairs(x, keys)
        if self._is_shared:
            query = query.expand(-1, -1, prod(x.shape[2:]), -1)
        weights = (query[:, :, queries] @ key.transpose(2, 3)).softmax(dim=3).mean(dim=1)
        return weights.unflatten(2, keys.shape[2:])

    def extra_repr(self) -> str:
        terms = "".join(str(int(term)) for term in self.terms)
        mirrored = ", mirrored" if self.mirrored else ""
        return f"heads={self.heads}, terms={terms}, key_stride={self.key_stride}{mirrored}"

    @property
    def _is_shared(self) -> bool:
        """Whether all queries have the same weights, so that one stands for all."""
        return self.terms == (False, False, True, False)

    def _layer(self, channels: int) -> nn.Linear:
        layer = nn.Linear(channels, self.width, bias=False)
        nn.init.kaiming_uniform_(layer.weight)
        return layer

    def _keys(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        return x[:, :, :: self.key_stride, :: self.key_stride]

    def _heads(self, tokens: Float[Tensor, "N P AD"]) -> Float[Tensor, "N A P D"]:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _pairs(
        self, x: Float[Tensor, "N C H W"], keys: Float[Tensor, "N C h w"]
    ) -> tuple[Float[Tensor, "N A P E"], Float[Tensor, "N A M E"]]:
        """Queries and keys whose products are the logits; a single query where all are alike."""
        at_query, at_key = self._zeros(x), self._zeros(keys)
        query = None if self.to_query is None else self._heads(self.to_query(tokens_of(x)))
        queries, compared = [], []
        if self.to_key is not None:
            own = at_query[:, :, :1] if self._is_shared else at_query
            queries.append(self._asked(query if self.terms[0] else None, self.key_bias, own))
            compared.append(self._heads(self.to_key(tokens_of(keys))))
        if self.across is not None and self.down is not None:
            (height, width), (rows, columns) = x.shape[2:], keys.shape[2:]
            asked = self._asked(query if self.terms[1] else None, self.place_bias, at_query)
            asked = asked.unflatten(2, (height, width))
            across = self._places(self.across, width, columns, x)
            down = self._places(self.down, height, rows, x)
            queries.append(torch.einsum("nahwd,awkd->nahwk", asked, across).flatten(2, 3))
            asked = asked.transpose(2, 3) if self.mirrored else asked
            queries.append(torch.einsum("nahwd,ahkd->nahwk", asked, down).flatten(2, 3))
            grid = at_key.unflatten(2, (rows, columns))
            row, column = (torch.arange(count, device=x.device) for count in (rows, columns))
            own_column = (column[:, None] == column).to(x.dtype)
            own_row = (row[:, None, None] == row).to(x.dtype)
            compared += [(own + grid).flatten(2, 3) for own in (own_column, own_row)]
        dtype = compared[0].dtype  # under autocast they differ
        query, key = (torch.cat([one.to(dtype) for one in parts], 3) for parts in (queries, compared))
        return query, key

    def _zeros(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N A P 1"]:
        """What spreads over heads and positions; ONNX Runtime has no `expand` to sizes that are computed."""
        return torch.zeros_like(tokens_of(x)[..., : self.heads]).transpose(1, 2).unsqueeze(3)

    def _asked(
        self, query: Tensor | None, bias: Tensor | None, zeros: Float[Tensor, "N A P 1"]
    ) -> Float[Tensor, "N A P D"]:
        """What keys or places are compared with: the query, the learnt vector, or their sum."""
        base = zeros if query is None else query
        return base if bias is None else base + bias.to(zeros.dtype).view(1, self.heads, 1, -1)

    def _places(self, layer: nn.Linear, side: Any, count: Any, x: Tensor) -> Float[Tensor, "A S K D"]:
        """The embeddings of `count` keys along a side, seen from each of its `side` positions.

        Both are tensors while torch.jit.trace runs.
        """
        like: Any = {"device": x.device, "dtype": torch.promote_types(layer.weight.dtype, torch.float32)}
        distance = torch.arange(side, **like)[:, None] - self.key_stride * torch.arange(count, **like)
        waves = WAVE_LENGTH ** (4 / self.channels * torch.arange(self.channels // 4, **like))
        turns = distance[:, :, None] / waves
        embedded = layer(torch.cat([turns.sin(), turns.cos()], dim=2).to(layer.weight.dtype)) / 2**0.5
        return embedded.to(x.dtype).unflatten(2, (self.heads, -1)).movedim(2, 0)


class ScaledTransform(nn.Module):
    """D -> C by one 1x1 convolution, times a learnt factor that is zero at first."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.project = LinearTransform(in_channels, channels)
        nn.init.kaiming_uniform_(self.project.linear.weight)
        self.factor = nn.Parameter(torch.zeros(1))

    def forward(self, context: Float[Tensor, "N D ..."]) -> Float[Tensor, "N C ..."]:
        return self.factor * self.project(context)
