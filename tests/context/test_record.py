"""Attention maps out of a running model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gcnet.context import ContextBlock, GlobalContext, NonLocal, SimplifiedNonLocal, SqueezeExcitation, record
from gcnet.context.look import block_title, block_titles


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        GlobalContext(16), nn.AvgPool2d(2), GlobalContext(16), GlobalContext(16, pooling="average")
    )


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_maps_by_name_of_the_latest_pass() -> None:
    model = network()
    with record(model) as maps:
        model(torch.randn(1, 16, 4, 4))
        x = torch.randn(3, 16, 8, 6, requires_grad=True)
        model(x)
    assert list(maps) == ["0.pool", "2.pool"]
    assert maps["0.pool"].shape == (3, 8, 6)
    assert maps["2.pool"].shape == (3, 4, 3)
    for found in maps.values():
        torch.testing.assert_close(found.sum(dim=(1, 2)), torch.ones(3))
        assert found.min() >= 0
        assert not found.requires_grad


def test_hooks_go_even_after_an_error() -> None:
    model = network()
    with record(model):
        assert hooks(model) == 2
    assert hooks(model) == 0
    with pytest.raises((RuntimeError, TypeError)), record(model):  # TypeError where shapes are checked
        model(torch.randn(1, 3, 4, 4))
    assert hooks(model) == 0


def test_recording_does_not_change_the_output() -> None:
    model, x = network(), torch.randn(1, 16, 8, 8)
    expected = model(x)
    with record(model):
        assert torch.equal(model(x), expected)


def test_model_without_blocks_gives_no_maps() -> None:
    model = nn.Conv2d(3, 3, 1)
    with record(model) as maps:
        model(torch.randn(1, 3, 4, 4))
    assert maps == {}


class Stripes(nn.Module):
    """A pool of one's own: position i attends to itself; tells which queries it was asked for."""

    def attention(self, x: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        weights = torch.eye(x[0, 0].numel())[queries]
        return weights.expand(len(x), -1, -1).reshape(len(x), len(queries), *x.shape[2:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_every_block_with_a_map_is_recorded_each_in_its_form() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        SimplifiedNonLocal(8),
        NonLocal(8),
        NonLocal(8, sub_sample=True),
        SqueezeExcitation(8, ratio=0.5),
        ContextBlock(Stripes(), add=nn.Identity()),
    )
    x = torch.randn(2, 8, 6, 4)
    with record(model) as maps:
        model(x)
    shapes = {name: tuple(found.shape) for name, found in maps.items()}
    assert shapes == {
        "0.pool": (2, 6, 4),
        "1.pool": (2, 9, 6, 4),
        "2.pool": (2, 9, 3, 2),
        "4.pool": (2, 9, 6, 4),
    }
    for found in maps.values():
        torch.testing.assert_close(found.sum(dim=(-2, -1)), torch.ones(found.shape[:-2]))
    queries = torch.tensor([4, 6, 7, 12, 14, 15, 20, 22, 23])  # rows 1, 3, 5; columns 0, 2, 3
    assert torch.equal(maps["4.pool"][0].flatten(1).argmax(1), queries)
    torch.testing.assert_close(maps["1.pool"], model[1].attention(model[0](x), queries).detach())


@pytest.mark.parametrize(
    ("size", "points", "expected"),
    [
        ((4, 5), [(0, 0), (1, 1), (0.5, 0.5), (0.99, 0)], [0, 19, 12, 4]),
        ((7,), [(0.5,)], [3]),
        ((2, 3, 4), [(0, 0, 1), (1, 0, 0), (0, 1, 0)], [12, 3, 8]),
    ],
)
def test_queries_are_points_x_first(
    size: tuple[int, ...], points: list[tuple[float, ...]], expected: list[int]
) -> None:
    block = ContextBlock(Stripes(), add=nn.Identity())
    with record(block, queries=points) as maps:
        block(torch.randn(1, 2, *size))
    assert maps["pool"].flatten(2).argmax(2).tolist() == [expected]


@pytest.mark.parametrize("points", [[(0.5, 1.2)], [(0.5,)], [(-0.1, 0.5)]])
def test_queries_off_the_map_are_refused(points: list[tuple[float, ...]]) -> None:
    block = NonLocal(4)
    with pytest.raises(ValueError, match="give 2 numbers"), record(block, queries=points):
        block(torch.randn(1, 4, 3, 3))
    assert not any(module._forward_hooks for module in block.modules())


def test_titles_are_the_paper_s_and_never_shared() -> None:
    assert block_title("backbone.layer3.5.context.pool") == "c4.5"
    assert block_title("neck.context") == "neck.context"
    twice = ["layer3.0.a", "layer3.0.b"]
    assert block_titles(twice) == {name: name for name in twice}
