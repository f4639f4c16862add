"""Generalized attention against its formula, written out pair by pair."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gcnet.context import GeneralizedAttention, measure, record
from gcnet.errors import GCNetError

Awake = Callable[[nn.Module], nn.Module]
TERMS = ["".join(digits) for digits in itertools.product("01", repeat=4) if "1" in digits]
C, HEADS, STRIDE = 8, 3, 2
D = C // HEADS


def embedding(distance: int) -> Tensor:
    """Sines and cosines of a distance, of wave lengths from 1 to 1000 (arXiv 1904.05873, section 3.1)."""
    turns = [distance / 1000 ** (4 * wave / C) for wave in range(C // 4)]
    return torch.tensor([*map(math.sin, turns), *map(math.cos, turns)], dtype=torch.float64)


def pair_by_pair(block: GeneralizedAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output for one image, and the weights of all keys for all queries, the mean of the heads."""
    pool, (height, width) = block.pool, x.shape[1:]
    keys = list(itertools.product(range(0, height, STRIDE), range(0, width, STRIDE)))
    out, maps = x.clone(), torch.zeros(height * width, len(keys), dtype=torch.float64)
    for number, (i, j) in enumerate(itertools.product(range(height), range(width))):
        found = []
        for head in range(HEADS):
            own = slice(head * D, (head + 1) * D)
            query = mirrored = torch.zeros(D, dtype=torch.float64)
            if pool.to_query is not None:
                query = (pool.to_query.weight @ x[:, i, j])[own]
                mirrored = (pool.to_query.weight @ x[:, j, i])[own] if pool.mirrored else query
            logits = []
            for k, n in keys:
                content, place, key, where = (torch.zeros((), dtype=torch.float64) for _ in range(4))
                if pool.to_key is not None:
                    k_content = (pool.to_key.weight @ x[:, k, n])[own]
                    content = query @ k_content
                    key = pool.key_bias[own] @ k_content if pool.key_bias is not None else key
                if pool.across is not None:
                    across, down = pool.across.weight @ embedding(j - n), pool.down.weight @ embedding(i - k)
                    relative = (across + down)[own] / math.sqrt(2)
                    place = (query @ across[own] + mirrored @ down[own]) / math.sqrt(2)
                    where = pool.place_bias[own] @ relative if pool.place_bias is not None else where
                terms = zip(pool.terms, (content, place, key, where), strict=True)
                logits.append(sum(value for has, value in terms if has))
            weights = torch.stack(logits).softmax(0)
            maps[number] += weights / HEADS
            values = torch.stack([(pool.to_value.weight @ x[:, k, n])[own] for k, n in keys])
            found.append(weights @ values)
        linear = block.add.project.linear
        out[:, i, j] += block.add.factor * (linear.weight @ torch.cat(found) + linear.bias)
    return out, maps


@pytest.mark.parametrize("terms", TERMS)
def test_the_sum_over_all_pairs(terms: str, awake: Awake) -> None:
    torch.manual_seed(0)
    block = awake(GeneralizedAttention(C, heads=HEADS, terms=terms, key_stride=STRIDE).double())
    x = torch.randn(2, C, 3, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = [pair_by_pair(block, image) for image in x]
        for layout in (torch.contiguous_format, torch.channels_last):
            out = block(x.contiguous(memory_format=layout))
            torch.testing.assert_close(out, torch.stack([image for image, _ in expected]))
        maps = block.attention(x, torch.tensor([0, 7, 14]))
    assert maps.shape == (2, 3, 2, 3)
    for own, (_, all_maps) in zip(maps, expected, strict=True):
        torch.testing.assert_close(own.flatten(1), all_maps[[0, 7, 14]])


@pytest.mark.parametrize("terms", ["0100", "1110"])
def test_mirrored_as_in_mmcv(terms: str, awake: Awake) -> None:
    torch.manual_seed(0)
    options = {"heads": HEADS, "terms": terms, "key_stride": STRIDE, "mirrored": True}
    block = awake(GeneralizedAttention(C, **options).double())  # type: ignore[arg-type]
    x = torch.randn(1, C, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block(x)[0], pair_by_pair(block, x[0])[0])
        with pytest.raises(GCNetError, match=r"takes square maps, not \(4, 3\)"):
            block(x[..., :3])


@pytest.mark.parametrize("terms", ["1111", "0010"])
def test_a_fresh_block_changes_nothing_and_learns(terms: str) -> None:
    block, x = GeneralizedAttention(16, heads=4, terms=terms), torch.randn(2, 16, 6, 7)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.add.factor.grad is not None
    assert block.add.factor.grad.item() != 0


def test_it_is_looked_into_as_other_blocks_are(awake: Awake) -> None:
    block, x = awake(GeneralizedAttention(16, heads=4)), torch.randn(1, 16, 6, 8)
    network = nn.Sequential(block)
    with torch.no_grad(), record(network) as maps, measure(network) as figures:
        network(x)
    assert maps["0.pool"].shape == (1, 9, 3, 4)
    torch.testing.assert_close(maps["0.pool"].sum((2, 3)), torch.ones(1, 9))
    (one,) = figures["0"]
    assert one.jsd is not None
    assert one.jsd > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": "11"}, "four digits"),
        ({"terms": "0000"}, "at least one"),
        ({"heads": 0}, "0 heads"),
        ({"heads": 7}, "7 heads"),
        ({"key_stride": 0}, "key_stride of 0"),
        ({}, "multiple of 4"),
    ],
    ids=str,
)
def test_what_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneralizedAttention(6, **{"heads": 2} | options)  # type: ignore[arg-type]


def test_maps_have_two_sides() -> None:
    block = GeneralizedAttention(8)
    with pytest.raises(GCNetError, match=r"takes maps of shape \(N, C, H, W\), not \(1, 8, 5\)"):
        type(block).forward.__wrapped__(block, torch.randn(1, 8, 5))  # type: ignore[attr-defined]
