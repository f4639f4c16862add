"""What `insert` does to find its places leaves no traces in the network."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from small_networks import Block as Residual
from torch import nn

from gcnet.context import GlobalContext, insert
from gcnet.errors import GCNetError

Block = partial(GlobalContext, ratio=1 / 4)


def maps() -> torch.Tensor:
    return torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(1))


class Aliased(nn.Module):
    """A layer with two names, of which `forward` uses the second."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)])
        self.last = self.layers[1]

    def forward(self, x):
        return x + self.last(self.layers[0](x).relu())


def shared() -> nn.Module:
    block = Residual(8)
    return nn.Sequential(nn.Conv2d(8, 8, 1), nn.Sequential(block, block))


@pytest.mark.parametrize("make", [shared, Aliased])
@pytest.mark.parametrize("ratio", [1 / 4, 1 / 99])
def test_modules_with_two_names_keep_their_weights(make, ratio: float) -> None:
    model = make().eval()
    parameters, before = list(model.parameters()), model(maps())
    where = {"where": "1", "position": "output"} if make is shared else {}
    try:
        insert(model, partial(GlobalContext, ratio=ratio), **where)
    except GCNetError:
        assert ratio == 1 / 99
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=False))
    assert torch.equal(model(maps()), before)


class Remembers(nn.Module):
    """Counts, caches, and replaces a buffer in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.calls, self.position, self.sizes, self.cache = 0, None, [], {"more": {}}
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.seen = self.seen + 1
        self.total += 1
        self.sizes.append(x.shape)
        if self.position is None:
            self.position = torch.linspace(0, 1, x.shape[1], device=x.device).view(1, -1, 1, 1)
            self.cache["more"]["ones"] = torch.ones(1, x.shape[1], 1, 1, device=x.device)
        return x + self.conv((x + self.position) * self.cache["more"]["ones"])


@pytest.mark.parametrize("position", ["after1x1", "output"])
@pytest.mark.parametrize("given", [{}, {"channels": 8}, {"example": maps()}], ids=str)
def test_inspection_leaves_no_traces(position, given) -> None:
    model = nn.Sequential(Remembers())
    attributes = [dict(vars(module)) for module in model.modules()]
    seen: list[torch.Tensor] = []
    model[0].conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    insert(model, Block, where="0", position=position, **given)
    inner = model[0]
    assert (inner.calls, inner.position, inner.sizes, inner.cache) == (0, None, [], {"more": {}})
    assert (inner.seen.item(), inner.total.item(), inner.total._version) == (0, 0, 0)
    assert all(output.device.type == "cpu" for output in seen)
    for module, held in zip([model, inner, inner.conv], attributes, strict=True):
        assert all(vars(module)[name] is value for name, value in held.items())
    model(maps())
