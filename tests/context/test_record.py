"""Attention maps out of a running model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gcnet.context import GlobalContext, record


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
    with pytest.raises(RuntimeError), record(model):
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
