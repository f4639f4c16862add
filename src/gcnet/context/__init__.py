"""Context blocks for any network: needs PyTorch and nothing else."""

from gcnet.context.analysis import BlockStatistics, mean_statistics, measure
from gcnet.context.block import ContextBlock
from gcnet.context.complexity import BlockComplexity, complexity
from gcnet.context.global_context import GlobalContext
from gcnet.context.insertion import insert, remove
from gcnet.context.modelling import AttentionPool, AveragePool
from gcnet.context.non_local import NonLocal, SimplifiedNonLocal
from gcnet.context.pairwise import PairwiseAttention
from gcnet.context.record import record
from gcnet.context.squeeze_excitation import SqueezeExcitation
from gcnet.context.transform import BottleneckTransform, LinearTransform

__all__ = [
    "AttentionPool",
    "AveragePool",
    "BlockComplexity",
    "BlockStatistics",
    "BottleneckTransform",
    "ContextBlock",
    "GlobalContext",
    "LinearTransform",
    "NonLocal",
    "PairwiseAttention",
    "SimplifiedNonLocal",
    "SqueezeExcitation",
    "complexity",
    "insert",
    "mean_statistics",
    "measure",
    "record",
    "remove",
]
