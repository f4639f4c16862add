"""Context modelling as in non-local blocks: every query position has its own weights (arXiv 1711.07971).

N images, C channels, D inner channels, `...` positions: a sequence, an H x W map or a volume. P positions
are queries, M are keys: the same ones, or fewer after sub-sampling.

The weights of all pairs would be a P x M matrix for each image: 15 GB for a 200 x 304 map. None of the
four forms needs it at once; memory grows with P and M, not with their product.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.context.attend import positions

Mode = Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"]


class PairwiseAttention(nn.Module):
    """A sum over all positions for each position, weighted by how well the two match.

    With query q, key k and value v, linear functions of a position's channels (for "gaussian" q and k are
    the channels themselves), the weight of key j for query i is

    - "embedded_gaussian", "gaussian": softmax over j of q_i . k_j; the first divided by sqrt(D) before if
      `use_scale`. Computed by PyTorch's fused attention.
    - "dot_product": q_i . k_j / M. Computed as q_i (K^T V) / M, which is linear in the number of positions.
    - "concatenation": ReLU(a . q_i + b . k_j) / M with learnt vectors a and b. Computed by sorting the keys.

    `sub_sample` halves each side of the map of keys and values by max-pooling. Results agree with mmcv's
    NonLocal2d up to the order of floating-point sums.

    Args:
        channels: C of the map.
        inner: D, of queries, keys and values.

    Raises:
        ValueError: `mode` is unknown.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        *,
        mode: Mode = "embedded_gaussian",
        use_scale: bool = True,
        sub_sample: bool = False,
    ) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise ValueError(f"mode is one of {', '.join(get_args(Mode))}, not {mode!r}")
        self.mode, self.sub_sample = mode, sub_sample
        self.softmax_scale = inner**-0.5 if use_scale and mode == "embedded_gaussian" else 1.0
        embeds = mode != "gaussian"
        self.query = nn.Linear(channels, inner) if embeds else nn.Identity()
        self.key = nn.Linear(channels, inner) if embeds else nn.Identity()
        self.value = nn.Linear(channels, inner)
        self.match = nn.Linear(2 * inner, 1, bias=False) if mode == "concatenation" else None
        for layer in (self.query, self.key, self.value):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N D ..."]:
        query = self.query(tokens_of(x))
        key, value = self._keys(x), self._pooled(self.value(tokens_of(x)), x)
        if self.mode == "dot_product":
            context = _linear_attention(query, key, value)
        elif self.mode == "concatenation":
            context = _additive_attention(*self._matches(query, key), value)
        else:
            context = softmax_attention(query, key, value, self.softmax_scale)
        return context.transpose(1, 2).unflatten(2, x.shape[2:])

    def attention(self, x: Float[Tensor, "N C ..."], queries: Int[Tensor, " Q"]) -> Float[Tensor, "N Q ..."]:
        """The weights of all keys for the positions `queries`, flat row-major indices into the map.

        The last dimensions are those of the map, halved if `sub_sample`. Softmax forms sum to 1 over them;
        the other two may not, and "dot_product" has negative weights too.
        """
        query, key = self.query(tokens_of(x)[:, queries]), self._keys(x)
        if self.mode == "concatenation":
            query_term, key_term = self._matches(query, key)
            weights = (query_term[:, :, None] + key_term[:, None, :]).relu() / key.shape[1]
        elif self.mode == "dot_product":
            weights = query @ key.transpose(1, 2) / key.shape[1]
        else:
            weights = (query @ key.transpose(1, 2) * self.softmax_scale).softmax(dim=2)
        sides = [max(side // 2, 1) for side in x.shape[2:]] if self.sub_sample else x.shape[2:]
        return weights.reshape(len(x), len(queries), *sides)

    def extra_repr(self) -> str:
        return f"mode={self.mode}, softmax_scale={self.softmax_scale:.4g}, sub_sample={self.sub_sample}"

    def _keys(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N M D"]:
        return self._pooled(self.key(tokens_of(x)), x)

    def _pooled(self, tokens: Float[Tensor, "N P D"], x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N M D"]:
        """Max-pooled over pairs of neighbours along each side of the map; a side of 1 stays."""
        if not self.sub_sample:
            return tokens
        size = x.shape[2:]
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(size) - 1]
        maps = tokens.transpose(1, 2).unflatten(2, size)
        return tokens_of(pool(maps, [min(2, side) for side in size]))

    def _matches(
        self, query: Float[Tensor, "N P D"], key: Float[Tensor, "N M D"]
    ) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N M"]]:
        """The two terms of a concatenation's weight: one layer on both is the sum of a layer on each."""
        assert self.match is not None
        query_term, key_term = self.match.weight.chunk(2, dim=1)
        return F.linear(query, query_term).squeeze(2), F.linear(key, key_term).squeeze(2)


def tokens_of(x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N P C"]:
    """Positions as rows: a view, and of a channels-last map a contiguous one."""
    return positions(x).transpose(1, 2)


def softmax_attention(
    query: Float[Tensor, "N P K"], key: Float[Tensor, "N M K"], value: Float[Tensor, "N M D"], scale: float
) -> Float[Tensor, "N P D"]:
    """softmax(scale * Q K^T) V, tile by tile."""
    # The fused kernels want rows in one piece and, on CPUs, values as wide as keys. Without either PyTorch
    # falls back to the whole matrix, silently.
    width = value.shape[2]
    padded = F.pad(value, (0, query.shape[2] - width)) if query.shape[2] > width else value
    query, key, padded = (tensor.contiguous().unsqueeze(1) for tensor in (query, key, padded))
    return F.scaled_dot_product_attention(query, key, padded, scale=scale).squeeze(1)[:, :, :width]


def _linear_attention(
    query: Float[Tensor, "N P D"], key: Float[Tensor, "N M D"], value: Float[Tensor, "N M D"]
) -> Float[Tensor, "N P D"]:
    """(Q K^T) V / M as Q (K^T V) / M: with no softmax between, the products may be taken in any order."""
    # Half of the division comes before the sum, so that float16 does not overflow on large maps.
    half = key.shape[1] ** -0.5
    return query @ ((key * half).transpose(1, 2) @ value * half)


def _additive_attention(
    query_term: Float[Tensor, "N P"], key_term: Float[Tensor, "N M"], value: Float[Tensor, "N M D"]
) -> Float[Tensor, "N P D"]:
    """Sum over j of ReLU(a_i + b_j) v_j / M, in O(M log M) steps.

    With the keys sorted by falling b, ReLU leaves query i the first few: as many as have b_j > -a_i.
    Their sum is a_i * sum of v_j + sum of b_j v_j, both read from running sums.
    """
    # Running sums over thousands of values need float32 also under autocast.
    exact = torch.promote_types(value.dtype, torch.float32)
    query_term, key_term, values = query_term.to(exact), key_term.to(exact), value.to(exact)
    falling, order = key_term.sort(dim=1, descending=True)
    values = values.gather(1, order.unsqueeze(2).expand_as(values))
    terms = torch.cat([values, falling.unsqueeze(2) * values], dim=2) / key_term.shape[1]
    sums = F.pad(terms.cumsum(dim=1), (0, 0, 1, 0))  # row m: the first m keys
    # Negated, falling values rise, as searchsorted needs; "left" counts those strictly before a_i.
    count = torch.searchsorted(-falling.detach(), query_term.detach().contiguous())
    plain, weighted = sums.gather(1, count.unsqueeze(2).expand(-1, -1, sums.shape[2])).chunk(2, dim=2)
    return (query_term.unsqueeze(2) * plain + weighted).to(value.dtype)
