"""What context blocks cost, in closed form.

C channels of the map, B bottleneck, D inner channels of a non-local block, P positions, M of them keys.

| block | parameters | FLOPs of one map |
| --- | --- | --- |
| `GlobalContext` (add) | 2CB + 3B + 2C + 1 | 4CP + 4CB |
| `SimplifiedNonLocal` | C^2 + 2C + 1 | 4CP + 2C^2 |
| `SqueezeExcitation` | 2CB + B + C | 4CB |
| `NonLocal`, embedded gaussian | 4CD + 3D + C | 8CDP + 4DPM |
| `NonLocal`, gaussian | 2CD + D + C | 4CDP + 4CPM |
| `NonLocal`, dot product | 4CD + 3D + C | 8CDP + 2D^2 (P + M) |
| `NonLocal`, concatenation | 4CD + 5D + C | 8CDP + 2D (P + M) |

A multiply-add is two operations, and only matrix products count, as in `torch.utils.flop_counter`. Not
counted: biases, norms, softmax, sigmoid, means, max-pooling, the fusion's one operation for each value of the
map, and the sorting and running sums of "concatenation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from gcnet.context.block import ContextBlock
from gcnet.context.modelling import AttentionPool, AveragePool
from gcnet.context.pairwise import PairwiseAttention
from gcnet.context.transform import BottleneckTransform, LinearTransform


@dataclass(frozen=True)
class BlockComplexity:
    """Parameters, and the FLOPs of one map; a multiply-add is two operations."""

    parameters: int
    flops: int

    def __add__(self, other: BlockComplexity) -> BlockComplexity:
        return BlockComplexity(self.parameters + other.parameters, self.flops + other.flops)


def complexity(block: ContextBlock, size: Sequence[int]) -> BlockComplexity:
    """What `block` costs for one map of `size`, its positions along each dimension.

    Raises:
        TypeError: the block holds parts that are not of this package.
    """
    total, vectors = _pool(block.pool, size)
    for transform in (block.scale, block.add):
        if transform is not None:
            total += _transform(transform, vectors)
    return total


def _pool(pool: nn.Module, size: Sequence[int]) -> tuple[BlockComplexity, int]:
    """Its cost, and how many vectors of context it makes."""
    positions = prod(size)
    if isinstance(pool, AttentionPool):
        channels = len(pool.weight)
        return BlockComplexity(channels + 1, 4 * channels * positions), 1
    if isinstance(pool, AveragePool):
        return BlockComplexity(0, 0), 1
    if isinstance(pool, PairwiseAttention):
        return _pairwise(pool, positions, keys=prod(pool.key_size(size))), positions
    raise TypeError(f"no closed form for {type(pool).__name__}")


def _pairwise(pool: PairwiseAttention, positions: int, keys: int) -> BlockComplexity:
    channels, inner = pool.value.in_features, pool.value.out_features
    projections = 1 if pool.mode == "gaussian" else 3
    parameters = projections * (channels + 1) * inner
    flops = projections * 2 * channels * inner * positions
    match pool.mode:
        case "embedded_gaussian":
            flops += 4 * inner * positions * keys
        case "gaussian":  # the fused kernel wants values as wide as keys: they are padded to C
            flops += 4 * channels * positions * keys
        case "dot_product":
            flops += 2 * inner**2 * (positions + keys)
        case "concatenation":
            parameters += 2 * inner
            flops += 2 * inner * (positions + keys)
    return BlockComplexity(parameters, flops)


def _transform(transform: nn.Module, vectors: int) -> BlockComplexity:
    if isinstance(transform, BottleneckTransform):
        channels, bottleneck = transform.reduce.in_features, transform.reduce.out_features
        norm = 2 * bottleneck if isinstance(transform.norm, nn.LayerNorm) else 0
        parameters = 2 * channels * bottleneck + bottleneck + channels + norm
        return BlockComplexity(parameters, 4 * channels * bottleneck * vectors)
    if isinstance(transform, LinearTransform):
        inputs, channels = transform.linear.in_features, transform.linear.out_features
        norm = 2 if isinstance(transform.norm, nn.BatchNorm1d) else 1  # scale and shift, or a bias
        return BlockComplexity((inputs + norm) * channels, 2 * inputs * channels * vectors)
    raise TypeError(f"no closed form for {type(transform).__name__}")
