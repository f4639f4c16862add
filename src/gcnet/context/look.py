"""Attention maps of context blocks in a running model, how they depend on the query, and what blocks cost.

N images, C channels, P positions of a map (the queries), Q of them that are compared, M positions that are
attended to, `...` positions: a sequence, an H x W map or a volume. Measures are summed in float64.

`measure` follows arXiv 1904.11492, section 3.2: the mean distance over all pairs of positions,
1 / P^2 sum_ij dist(v_i, v_j), with

- the cosine distance, (1 - cos) / 2, of features and of attention maps, in [0, 1];
- the Jensen-Shannon divergence of attention maps, in nats: from 0 for equal maps to ln 2 = 0.693 for maps
  that share no position.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from itertools import product
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from gcnet.context.blocks import AttentionPool, ContextBlock
from gcnet.context.pairwise import PairwiseAttention
from gcnet.context.widths import output_channels

CHUNK = 4096  # positions that are held in float64 at once
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
        queries: points on the map, (x, y) on an image, each coordinate in [0, 1] from one edge to the
            other; (x,) on a sequence, (x, y, z) in a volume. Without, the middles of 3 equal parts of
            each side: 9 points on an image, row by row.

    Raises:
        ValueError: while the model runs, if a point is outside or has not one coordinate for each side.
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str, pool: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        x = inputs[0].detach()
        with torch.no_grad():
            chosen = [flat_positions(queries, x.shape[2:])] if depends_on_query(pool) else []
            maps[name] = pool.attention(x, *chosen).float().cpu()

    with ExitStack() as hooks:
        for name, pool in attention_pools(model).items():
            hooks.enter_context(pool.register_forward_hook(partial(keep, name)))
        yield maps


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


def block_titles(names: Iterable[str]) -> dict[str, str]:
    """Short titles of blocks by module name; the module names themselves if titles are not unique."""
    titles = {name: block_title(name) for name in names}
    once = len(set(titles.values())) == len(titles)
    return titles if once else {name: name for name in titles}


def block_title(module: str) -> str:
    """The paper's name of a block: `c4.0` for the first residual block of stage c4 (`layer3.0`)."""
    place = re.search(r"layer(\d)\.(\d+)", module)
    return f"c{int(place[1]) + 1}.{place[2]}" if place else module


def has_attention(pool: nn.Module) -> bool:
    """Whether a pool has attention maps."""
    return callable(getattr(pool, "attention", None))


def depends_on_query(pool: nn.Module) -> bool:
    """Whether the attention map depends on the query, by the signature of `attention`."""
    return "queries" in inspect.signature(pool.attention).parameters  # type: ignore[arg-type]


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


@dataclass(frozen=True)
class BlockStatistics:
    """Measures of one block on one image, or their mean over several; None if a measure is not defined.

    The paper's Table 1 calls `input`, `context` and `attention` "input", "output" and "att".

    Attributes:
        positions: P.
        queries: Q.
        input: mean cosine distance between positions of the features that enter the block, in [0, 1].
        context: the same of the term before fusion, which is added, or of the gate if nothing is added.
        output: the same of the features that leave the block.
        attention: the same of the attention maps.
        jsd: Jensen-Shannon divergence of the attention maps, in nats, from 0 to ln 2.
        share: part of the map that attention covers, exp(entropy) / M: 1 for a uniform map, 1 / M for a
            single position.
    """

    positions: float
    queries: float
    input: float | None
    context: float | None
    output: float | None
    attention: float | None = None
    jsd: float | None = None
    share: float | None = None


@contextmanager
def measure(
    model: nn.Module, *, queries: int = 128, seed: int = 0
) -> Iterator[dict[str, list[BlockStatistics]]]:
    """Measures every context block while the model runs; a list of statistics by module name, one an image.

        with measure(network) as blocks, torch.no_grad():
            network(images)
        {name: mean_statistics(images) for name, images in blocks.items()}

    Nothing but these numbers is kept. Cosine distances of features are over all pairs of positions, by
    algebra. Attention maps are compared at all positions of a map that has at most `queries` of them, else
    at `queries` positions drawn without replacement from `seed`, the same ones for every image of that
    size; the mean is corrected for the pairs of a position with itself, so that its expectation is the mean
    over all pairs. Weights that are no probabilities (dot product, concatenation) have no divergence and
    no share.

    Raises:
        ValueError: `queries` is less than 2.
    """
    if queries < 2:
        raise ValueError(f"a distance needs at least 2 queries, not {queries}")
    found: dict[str, list[BlockStatistics]] = {}
    with ExitStack() as hooks:
        for name, block in context_blocks(model).items():
            hooks.enter_context(_measured(block, found, name, queries, seed))
        yield found


def mean_statistics(images: Sequence[BlockStatistics]) -> BlockStatistics:
    """The mean of each figure over the images that have it."""
    means = {}
    for field in fields(BlockStatistics):
        values = [value for image in images if (value := getattr(image, field.name)) is not None]
        means[field.name] = sum(values) / len(values) if values else None
    return BlockStatistics(**means)


def cosine_distance(vectors: Float[Tensor, "N P C"]) -> Float64[Tensor, " N"]:
    """The mean of (1 - cos) / 2 over all pairs of an image's P vectors, each with itself included.

    In O(P C) time, piece by piece: with unit vectors u the mean is Var(u) / 2. Deviations are taken from
    the first vector, so that vectors that are nearly the same lose no digits and equal ones give exactly 0.
    Vectors of length zero have no direction and do not count; an image with no other gives NaN.
    """
    images, _, channels = vectors.shape
    first = vectors.new_zeros(images, 1, channels, dtype=torch.float64)
    started = torch.zeros(images, 1, 1, dtype=torch.bool, device=vectors.device)
    count, squares, sums = (vectors.new_zeros(images, n, dtype=torch.float64) for n in (1, 1, channels))
    for piece in vectors.split(CHUNK, dim=1):
        piece = piece.double()
        lengths = piece.norm(dim=2, keepdim=True)
        counts = lengths > 0
        unit = piece / lengths.where(counts, 1.0)
        index = counts.byte().argmax(dim=1, keepdim=True).expand(-1, -1, channels)
        first = first.where(started, unit.gather(1, index))
        started = started | counts.any(dim=1, keepdim=True)
        away = (unit - first) * counts
        count += counts.sum(dim=1)
        squares += away.square().sum(dim=(1, 2))[:, None]
        sums += away.sum(dim=1)
    spread = squares / count - (sums / count).square().sum(dim=1, keepdim=True)
    return (spread.squeeze(1) / 2).clamp(min=0)


def jensen_shannon(maps: Float[Tensor, "N Q M"]) -> Float64[Tensor, " N"]:
    """The mean Jensen-Shannon divergence in nats over all pairs of an image's Q distributions.

    Each with itself is included; equal distributions give exactly 0. Works row by row: O(Q^2 M) time,
    O(Q M) memory.
    """
    maps = maps.double()
    own = torch.xlogy(maps, 2 * maps)
    total = maps.new_zeros(len(maps))
    for i in range(maps.shape[1] - 1):
        both = maps[:, i + 1 :] + maps[:, i : i + 1]
        # Term by term, so that equal distributions cancel exactly.
        terms = own[:, i + 1 :] + own[:, i : i + 1] - torch.xlogy(both, both)
        total += terms.sum(dim=(1, 2))  # the definition's half, twice: each pair counts in both orders
    return (total / maps.shape[1] ** 2).clamp(min=0)


def covered_share(maps: Float[Tensor, "N Q M"]) -> Float64[Tensor, " N"]:
    """exp(entropy) / M, averaged over Q: the part of the map that a uniform attention like it would cover."""
    maps = maps.double()
    entropy = -torch.xlogy(maps, maps).sum(dim=2)
    return (entropy.exp() / maps.shape[2]).mean(dim=1)


def are_probabilities(maps: Float[Tensor, "N Q M"]) -> bool:
    """Whether all maps are distributions, as far as sums in half precision tell."""
    return bool((maps >= 0).all() and ((maps.double().sum(dim=2) - 1).abs() < 1e-2).all())


def sample_positions(positions: int, queries: int, seed: int) -> Int64[Tensor, " Q"]:
    """All of a map's positions if there are at most `queries`, else that many of them, rising."""
    if positions <= queries:
        return torch.arange(positions)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(positions, generator=generator)[:queries].sort().values


@contextmanager
def _measured(
    block: ContextBlock, found: dict[str, list[BlockStatistics]], name: str, queries: int, seed: int
) -> Iterator[None]:
    """Measures a block whenever it runs; the statistics go to those `found` under its name."""
    terms: list[Tensor] = []

    def keep(_: nn.Module, inputs: object, output: Tensor) -> None:
        terms[:] = [block.gate(output) if block.add is None else output]

    @torch.no_grad()
    def measure(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        x = inputs[0]
        positions = x[0, 0].numel()
        term = terms.pop()
        term = term.unsqueeze(2).expand(-1, -1, positions) if term.dim() == 2 else term
        features = [cosine_distance(tensor.flatten(2).transpose(1, 2)) for tensor in (x, term, output)]
        count, *attention = _measure_attention(block.pool, x, sample_positions(positions, queries, seed))
        statistics = found.setdefault(name, [])
        for row in torch.stack([*features, *attention], dim=1).tolist():
            figures = [None if figure != figure else figure for figure in row]  # NaN
            statistics.append(BlockStatistics(positions, count, *figures))

    transform: Any = block.scale if block.add is None else block.add
    with transform.register_forward_hook(keep), block.register_forward_hook(measure):
        yield


def _measure_attention(
    pool: Any, x: Float[Tensor, "N C ..."], chosen: Int64[Tensor, " Q"]
) -> tuple[int, Tensor, Tensor, Tensor]:
    """Of how many queries; the cosine distance, divergence and share of each image, NaN where undefined."""
    undefined = x.new_full((len(x),), torch.nan, dtype=torch.float64)
    if not has_attention(pool):
        return 0, undefined, undefined, undefined
    if depends_on_query(pool):
        maps = pool.attention(x, chosen).flatten(2)
    else:
        # All queries share this map: two of them are measured like any others.
        maps = pool.attention(x).flatten(1)[:, None].expand(-1, min(2, len(chosen)), -1)
    # A sample holds more pairs of a position with itself, which are at distance 0, than the whole does.
    positions, count = x[0, 0].numel(), len(chosen)
    fair = (1 - 1 / positions) / (1 - 1 / count) if count > 1 else 1.0
    attention = cosine_distance(maps) * fair
    if not are_probabilities(maps):
        return count, attention, undefined, undefined
    return count, attention, jensen_shannon(maps) * fair, covered_share(maps)


@dataclass(frozen=True)
class BlockComplexity:
    """Parameters, and the FLOPs of one map; a multiply-add is two operations."""

    parameters: int
    flops: int


def complexity(block: ContextBlock, size: Sequence[int]) -> BlockComplexity:
    """What `block` costs for one map of `size`, its positions along each dimension.

    PyTorch counts, on a copy without memory for its numbers. It counts matrix products; not biases, norms,
    softmax, sigmoid, means, max-pooling, sorting, running sums and the fusion.

    Raises:
        TypeError: no layer of the block tells its number of channels.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    channels = output_channels(block)
    if channels is None:
        raise TypeError(f"no layer of this {type(block).__name__} tells how many channels its map has")
    weightless = copy.deepcopy(block).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        weightless(torch.empty(1, channels, *size, device="meta"))
    return BlockComplexity(sum(p.numel() for p in block.parameters()), counter.get_total_flops())
