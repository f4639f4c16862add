"""Query-dependent attention: the maps it claims, and no matrix of all pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gcnet.context import NonLocal, PairwiseAttention
from gcnet.context.pairwise import _additive_attention

Awake = Callable[[nn.Module], nn.Module]
MODES = ["embedded_gaussian", "gaussian", "dot_product", "concatenation"]
C = 8


def naive(pool: PairwiseAttention, x: Tensor) -> Tensor:
    """The sum over all pairs, with the whole matrix in memory."""
    weights = pool.attention(x, torch.arange(math.prod(x.shape[2:])))
    values = pool.value(x.movedim(1, -1)).movedim(-1, 1)
    if pool.sub_sample:
        values = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.dim() - 3](values, 2)
    context = weights.flatten(2) @ values.flatten(2).transpose(1, 2)
    return context.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])


@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize("size", [(10,), (6, 9), (2, 4, 5)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_forward_is_the_sum_that_attention_claims(
    mode: Any, size: tuple[int, ...], sub_sample: bool, awake: Awake
) -> None:
    torch.manual_seed(0)
    pool: Any = awake(PairwiseAttention(C, 4, mode=mode, sub_sample=sub_sample).double())
    x = torch.randn(2, C, *size, dtype=torch.float64, requires_grad=True)
    fused, explicit = pool(x), naive(pool, x)
    torch.testing.assert_close(fused, explicit)
    direction = torch.randn_like(fused)
    inputs = [x, *pool.parameters()]
    ours = torch.autograd.grad(fused, inputs, direction)
    theirs = torch.autograd.grad(explicit, inputs, direction)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("mode", MODES)
def test_attention_of_chosen_queries(mode: Any, awake: Awake) -> None:
    torch.manual_seed(0)
    block: Any = awake(NonLocal(C, mode=mode))
    x, queries = torch.randn(2, C, 4, 6), torch.tensor([0, 13, 23])
    maps = block.attention(x, queries)
    assert maps.shape == (2, 3, 4, 6)
    torch.testing.assert_close(maps, block.attention(x, torch.arange(24))[:, queries])
    assert not torch.allclose(maps[:, 0], maps[:, 1])
    if "gaussian" in mode:
        torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 3))
    assert (maps.min() < 0) == (mode == "dot_product")


def test_gaussian_attention_is_its_formula() -> None:
    x, queries = torch.randn(1, C, 3, 4), torch.tensor([7])
    flat = x.flatten(2)[0]
    maps = NonLocal(C, mode="gaussian").attention(x, queries)
    torch.testing.assert_close(maps.flatten(), (flat[:, 7] @ flat).softmax(dim=0))


@pytest.mark.parametrize(
    ("size", "keys"), [((7,), (3,)), ((1, 1), (1, 1)), ((1, 5), (1, 2)), ((5, 6, 2), (2, 3, 1))]
)
def test_sub_sampled_maps_are_halved(size: tuple[int, ...], keys: tuple[int, ...]) -> None:
    block, x = NonLocal(C, sub_sample=True), torch.randn(2, C, *size)
    assert block.attention(x, torch.tensor([0])).shape == (2, 1, *keys)
    assert block(x).shape == x.shape


def test_additive_attention_sums_what_relu_lets_through() -> None:
    """Ties, no key seen, all keys seen: exact in small whole numbers."""
    query_term = torch.tensor([[-9.0, -2.0, -1.0, 0.0, 1.0, 9.0]])
    key_term = torch.tensor([[1.0, -1.0, 2.0, 0.0]])
    value = torch.tensor([[[1.0], [2.0], [4.0], [8.0]]])
    expected = (query_term[:, :, None] + key_term[:, None, :]).relu() @ value / 4
    assert torch.equal(_additive_attention(query_term, key_term, value), expected)
    assert expected[0, 0] == 0


def test_additive_attention_keeps_its_precision_on_large_maps() -> None:
    """Running sums over 16384 keys against the pairs of some queries, in float64."""
    torch.manual_seed(0)
    query_term, key_term, value = torch.randn(1, 64), torch.randn(1, 16384), torch.randn(1, 16384, 4) + 0.5
    exact = (query_term.double()[:, :, None] + key_term.double()[:, None, :]).relu() @ value.double() / 16384
    found = _additive_attention(query_term, key_term, value)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


class Watch(TorchDispatchMode):
    """Remembers the names of operators and the elements of the largest tensor that any of them makes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket.__name__)
        made = result if isinstance(result, tuple | list) else [result]
        self.elements = max([self.elements, *(t.numel() for t in made if isinstance(t, Tensor))])
        return result


@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_no_matrix_of_all_pairs(mode: Any, sub_sample: bool, awake: Awake) -> None:
    """Neither forward nor backward makes a tensor much larger than the map, whatever its layout."""
    block = awake(NonLocal(C, mode=mode, sub_sample=sub_sample))
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(1, C, 32, 32).contiguous(memory_format=layout).requires_grad_()
        with Watch() as watch:
            block(x).sum().backward()
        assert watch.elements <= 2 * x.numel()
        assert "_scaled_dot_product_attention_math" not in watch.names
        assert ("_scaled_dot_product_flash_attention_for_cpu" in watch.names) == ("gaussian" in mode)


def test_a_matrix_of_all_pairs_is_noticed() -> None:
    block, x = NonLocal(C), torch.randn(1, C, 32, 32)
    with Watch() as watch:
        naive(block.pool, x)
    assert watch.elements == 1024**2


def test_unknown_mode_is_refused() -> None:
    mode: Any = "cosine"
    with pytest.raises((ValueError, TypeError), match="cosine"):
        PairwiseAttention(C, 4, mode=mode)
