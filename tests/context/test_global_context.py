"""The paper's own block: what it copies, and its attention."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gcnet.context import GlobalContext
from gcnet.context.blocks import AttentionPool

Awake = Callable[[nn.Module], nn.Module]
POOLINGS = ["attention", "average"]
FUSIONS = [("add",), ("scale",), ("add", "scale")]


def test_order_of_positions_does_not_matter(awake: Awake) -> None:
    torch.manual_seed(0)
    block, x = awake(GlobalContext(16)), torch.randn(2, 16, 30)
    order = torch.randperm(30)
    torch.testing.assert_close(block(x[:, :, order]), block(x)[:, :, order])


class LargestCopy(TorchDispatchMode):
    """Counts the elements of the largest tensor that a copying operator makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in {"clone", "copy_", "_to_copy", "contiguous", "_reshape_copy"}:
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("pooling", "fusion"), itertools.product(POOLINGS, FUSIONS))
def test_no_layout_copies_the_map(
    layout: torch.memory_format, pooling: str, fusion: tuple[str, ...], awake: Awake
) -> None:
    torch.manual_seed(0)
    block, x = awake(GlobalContext(16, pooling=pooling, fusion=fusion)), torch.randn(2, 16, 12, 10)
    expected = block(x)
    x = x.contiguous(memory_format=layout)
    assert x.flatten(2).data_ptr() == x.data_ptr()
    with LargestCopy() as copies, torch.no_grad():
        y = block(x)
    assert copies.elements < x.numel()
    assert y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)


def test_copies_are_noticed() -> None:
    x = torch.randn(2, 16, 12, 10).contiguous(memory_format=torch.channels_last)
    with LargestCopy() as copies:
        x.contiguous()
    assert copies.elements == x.numel()


def test_attention_sums_to_one() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(16)
    x = torch.randn(3, 16, 4, 6)
    attention = pool.attention(x)
    assert attention.shape == (3, 4, 6)
    torch.testing.assert_close(attention.sum(dim=(1, 2)), torch.ones(3))
    torch.testing.assert_close(pool(x), (x * attention[:, None]).sum(dim=(2, 3)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"ratio": 1 / 64},
        {"ratio": 2.0},
        {"fusion": ()},
        {"fusion": ("multiply",)},
        {"pooling": "max"},
    ],
)
def test_impossible_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises((ValueError, TypeError)):
        GlobalContext(32, **arguments)


def test_extreme_values_stay_finite(awake: Awake) -> None:
    x: Tensor = torch.full((1, 16, 4, 4), 1e4)
    assert awake(GlobalContext(16))(x).isfinite().all()
