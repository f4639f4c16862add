"""Attention maps out of a running model.

N images, Q query positions, `...` positions: a sequence, an H x W map or a volume.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.context.block import ContextBlock
from gcnet.context.modelling import AttentionPool
from gcnet.context.pairwise import PairwiseAttention

_THIRDS = (1 / 6, 3 / 6, 5 / 6)


@contextmanager
def record(
    model: nn.Module, *, queries: Sequence[Sequence[float]] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Collects the attention maps of every block while the model runs.

        with record(detector) as maps:
            detector.predict_images("photo.jpg")

    Yields a dict from module name to the maps of the latest forward pass, float32 on the CPU:

    - where all positions share one map (`GlobalContext`, `SimplifiedNonLocal`): (N, ...), which sums to 1;
    - where each position has its own (`NonLocal`): (N, Q, ...), one map for each query.

    Blocks that pool by average have no map. A pool of your own in a `ContextBlock` takes part if it has a
    method `attention(x)` or, for maps that depend on the query, `attention(x, queries)` with flat indices.

    Args:
        model: any network.
        queries: points on the map, (x, y) on a picture, each coordinate in [0, 1] from one edge to the
            other; (x,) on a sequence, (x, y, z) in a volume. Without, the middles of 3 equal parts of
            each side: 9 points on a picture, row by row.

    Raises:
        ValueError: while the model runs, if a point is outside or has not one coordinate for each side.
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str, pool: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        x = inputs[0].detach()
        with torch.no_grad():
            wanted = flat_positions(queries, x.shape[2:]) if depends_on_query(pool) else None
            maps[name] = attention_of(pool, x, wanted).float().cpu()

    handles = [
        pool.register_forward_hook(partial(keep, name)) for name, pool in attention_pools(model).items()
    ]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def attention_pools(model: nn.Module) -> dict[str, nn.Module]:
    """The parts of `model` that have attention maps, by module name."""
    own = {block.pool for block in context_blocks(model).values() if has_attention(block.pool)}
    return {
        name: module
        for name, module in model.named_modules()
        if module in own or isinstance(module, AttentionPool | PairwiseAttention)
    }


def context_blocks(model: nn.Module) -> dict[str, ContextBlock]:
    """The context blocks of `model`, by module name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ContextBlock)}


def has_attention(pool: nn.Module) -> bool:
    """Whether a pool can say how it weighs the positions."""
    return callable(getattr(pool, "attention", None))


def depends_on_query(pool: nn.Module) -> bool:
    """Whether each position has a map of its own, by the form of the method; `has_attention` must hold."""
    return "queries" in inspect.signature(pool.attention).parameters  # type: ignore[arg-type]


def attention_of(
    pool: nn.Module, x: Float[Tensor, "N C ..."], queries: Tensor | None
) -> Float[Tensor, "N ..."]:
    """The map of a pool for its input: (N, ...), or (N, Q, ...) with the flat indices `queries`."""
    return pool.attention(x) if queries is None else pool.attention(x, queries)  # type: ignore[operator]


def flat_positions(points: Sequence[Sequence[float]] | None, size: Sequence[int]) -> Tensor:
    """Row-major indices into a map of `size` of the positions that hold `points`; see `record`.

    Raises:
        ValueError: a point is outside, or has not one coordinate for each side of the map.
    """
    if points is None:
        points = [point[::-1] for point in product(_THIRDS, repeat=len(size))]
    indices = []
    for point in points:
        if len(point) != len(size) or not all(0 <= share <= 1 for share in point):
            raise ValueError(
                f"query {tuple(point)} of a map with {len(size)} sides: give {len(size)} numbers in [0, 1]"
            )
        index = 0
        for side, share in zip(size, reversed(point), strict=True):
            index = index * side + min(int(share * side), side - 1)
        indices.append(index)
    return torch.tensor(indices, dtype=torch.int64)
