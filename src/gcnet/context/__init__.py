"""Context blocks for any network. This package needs only PyTorch."""

from gcnet.context.blocks import (
    AttentionPool,
    AveragePool,
    BottleneckTransform,
    ContextBlock,
    GlobalContext,
    LinearTransform,
    NonLocal,
    SimplifiedNonLocal,
    SqueezeExcitation,
    make_block,
)
from gcnet.context.gates import (
    ConvolutionalBlockAttention,
    EfficientChannelAttention,
    GatedChannelTransformation,
)
from gcnet.context.generalized import GeneralizedAttention
from gcnet.context.insertion import insert, remove
from gcnet.context.look import BlockComplexity, BlockStatistics, complexity, mean_statistics, measure, record
from gcnet.context.pairwise import PairwiseAttention

__all__ = [
    "AttentionPool",
    "AveragePool",
    "BlockComplexity",
    "BlockStatistics",
    "BottleneckTransform",
    "ContextBlock",
    "ConvolutionalBlockAttention",
    "EfficientChannelAttention",
    "GatedChannelTransformation",
    "GeneralizedAttention",
    "GlobalContext",
    "LinearTransform",
    "NonLocal",
    "PairwiseAttention",
    "SimplifiedNonLocal",
    "SqueezeExcitation",
    "complexity",
    "insert",
    "make_block",
    "mean_statistics",
    "measure",
    "record",
    "remove",
]
