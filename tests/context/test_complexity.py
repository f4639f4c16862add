"""What blocks cost, against the closed forms of docs/context-blocks.md."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from gcnet.context import (
    AveragePool,
    BlockComplexity,
    ContextBlock,
    GeneralizedAttention,
    GlobalContext,
    LinearTransform,
    NonLocal,
    SimplifiedNonLocal,
    SqueezeExcitation,
    complexity,
)

C = 32
MODES = ["embedded_gaussian", "gaussian", "dot_product", "concatenation"]
BLOCKS = {
    "gc": GlobalContext(C, ratio=1 / 4),
    "gc_both": GlobalContext(C, ratio=1 / 8, fusion=("scale", "add")),
    "gc_average": GlobalContext(C, ratio=1 / 2, pooling="average", layer_norm=False),
    "snl": SimplifiedNonLocal(C),
    "se": SqueezeExcitation(C, ratio=1 / 4),
    "ga": GeneralizedAttention(C),
    "own": ContextBlock(
        AveragePool(), add=LinearTransform(C, C, batch_norm=True), scale=LinearTransform(C, C)
    ),
    **{mode: NonLocal(C, mode=mode) for mode in MODES},
    **{
        f"{mode}_sub": NonLocal(C, ratio=1 / 4, mode=mode, sub_sample=True, batch_norm=True) for mode in MODES
    },
}


@pytest.mark.parametrize("size", [(11,), (6, 8), (1, 1), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_no_memory_changes_no_figure(name: str, size: tuple[int, ...]) -> None:
    """What PyTorch counts when the block runs on numbers."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which older PyTorch leaves out
    mapping = {attention: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)}
    block = BLOCKS[name].eval()
    if name == "ga" and len(size) != 2:
        pytest.skip("for maps of two sides")
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter, torch.no_grad():
        block(torch.randn(1, C, *size))
    parameters = sum(p.numel() for p in block.parameters())
    assert complexity(block, size) == BlockComplexity(parameters, counter.get_total_flops())


def test_table() -> None:
    b, d, p, m = 8, 16, 48, 12
    table = {
        "gc": (2 * C * b + 3 * b + 2 * C + 1, 4 * C * p + 4 * C * b),
        "snl": (C**2 + 2 * C + 1, 4 * C * p + 2 * C**2),
        "se": (2 * C * b + b + C, 4 * C * b),
        "embedded_gaussian": (4 * C * d + 3 * d + C, 8 * C * d * p + 4 * d * p * m),
        "gaussian": (2 * C * d + d + C, 4 * C * d * p + 4 * C * p * m),
        "dot_product": (4 * C * d + 3 * d + C, 8 * C * d * p + 2 * d**2 * (p + m)),
        "concatenation": (4 * C * d + 5 * d + C, 8 * C * d * p + 2 * d * (p + m)),
    }
    keys = 3 * 4  # of every second row and column
    places = 2 * C * p * (3 + 4) + C**2 * (6 * 3 + 8 * 4)  # of queries with places, and embeddings of these
    sums = 4 * p * keys * (C + 8 * (3 + 4))
    table["ga"] = 5 * C**2 + 3 * C + 1, 4 * C**2 * (p + keys) + places + sums
    for name, expected in table.items():
        sampled = {"mode": name, "sub_sample": True}
        block: Any = NonLocal(C, **sampled) if name in MODES else BLOCKS[name]
        assert complexity(block, (6, 8)) == BlockComplexity(*expected), name


def test_own_parts_are_counted_if_they_tell_their_channels() -> None:
    assert complexity(ContextBlock(nn.Identity(), add=nn.Conv2d(C, C, 1)), (4, 4)).flops == 2 * C * C * 16
    assert complexity(ContextBlock(AveragePool(), add=nn.Linear(C, C)), (4, 4)).flops == 2 * C * C
    with pytest.raises(TypeError, match="how many channels"):
        complexity(ContextBlock(nn.Identity(), add=nn.Identity()), (4, 4))
