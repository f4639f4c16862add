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


def test_what_forward_assigns_lasts_after_insertion() -> None:
    plain, model = nn.Sequential(Remembers()).eval(), nn.Sequential(Remembers()).eval()
    model.load_state_dict(plain.state_dict())
    insert(model, Block, where="0.conv", position="output", name="other")
    insert(model, Block)
    for _ in range(3):
        assert torch.equal(model(maps()), plain(maps()))
    assert (model[0].calls, len(model[0].sizes), model[0].seen, model[0].total) == (3, 3, 3, 3)
    assert torch.equal(model[0].position, plain[0].position)
    assert not any(name in vars(model[0]) for name in ("_viewed", "_block"))


class Looks(nn.Module):
    """Looks at the child that it calls, and at one within a child, and changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.parts = nn.Conv2d(8, 8, 1), nn.ModuleList([nn.BatchNorm2d(8)])
        self.spare = nn.Identity()

    def forward(self, x):
        x = self.conv(x.to(self.conv.weight.dtype))
        if isinstance(self.parts[0], nn.BatchNorm2d):
            self.parts[0].momentum = 0.5
            x = self.parts[0](x)
        if hasattr(self, "spare"):
            del self.spare
        return x


def test_forward_sees_the_child_that_it_calls() -> None:
    model = nn.Sequential(Looks()).eval()
    model[0].parts[0].running_mean.fill_(3)
    before = model(maps())
    model[0].spare = nn.Identity()
    model[0].parts[0].momentum = 0.1
    insert(model, Block, where=["0.conv", "0.parts.0"], position="output")
    assert torch.equal(model(maps()), before)
    assert model[0].parts[0].momentum == 0.5
    assert not hasattr(model[0], "spare")
    for parameter in model[0].parts[0].context.parameters():
        nn.init.normal_(parameter)
    torch.testing.assert_close(model(maps()), model[0].parts[0].context(before))
