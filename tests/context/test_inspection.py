"""`insert` leaves no traces of its inspection, a network's `forward` goes on as before, and blocks run."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from small_networks import Block as Residual
from torch import nn

from gcnet.context import GlobalContext, insert, remove
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
        assert not hasattr(self, "spare")
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
    stir(model[0].parts[0].context)
    torch.testing.assert_close(model(maps()), model[0].parts[0].context(before))


def stir(block: nn.Module) -> None:
    for parameter in block.parameters():
        nn.init.normal_(parameter)


@pytest.mark.parametrize(("where", "position"), [(None, "after1x1"), ("layers.1", "output")])
def test_the_block_runs_by_whichever_name_its_module_is_called(where, position) -> None:
    model = Aliased().eval()
    before = model(maps())
    (name,) = insert(model, Block, where=where, position=position)
    assert torch.equal(model(maps()), before)
    stir(model.get_submodule(name))
    assert not torch.allclose(model(maps()), before)
    assert remove(model) == [name]
    assert torch.equal(model(maps()), before)


class Indexes(nn.Module):
    """Runs the parts of its sequence one by one, in a way that torch.fx may not be able to trace."""

    def __init__(self, *, traceable: bool) -> None:
        super().__init__()
        self.traceable = traceable
        self.layers = nn.Sequential(*(nn.Conv2d(8, 8, 1) for _ in range(3)))
        self.spare = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        if not self.traceable and x.sum() > 1e9:
            return x
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        assert len(self.layers) == 3
        return self.layers[-1](x)


@pytest.mark.parametrize("where", ["layers", "spare"])
def test_places_that_would_never_run_are_refused(where: str) -> None:
    model = Indexes(traceable=True)
    with pytest.raises(GCNetError, match=f'forward of the model does not call "{where}".*example='):
        insert(model, Block, where=where, position="output", channels=8)
    with pytest.raises(GCNetError, match=f'"{where}" is not called when'):
        insert(model, Block, where=where, position="output", example=maps())
    assert len(model.layers) == 3


def test_indexes_of_a_sequence_mean_what_they_meant() -> None:
    model = Indexes(traceable=False)
    before = model(maps())
    insert(model, Block, where="layers", position="output")
    assert torch.equal(model(maps()), before)
    assert torch.equal(copy.deepcopy(model)(maps()), before)
    stir(model.layers.context)
    alone = nn.Sequential(*model.layers[:3])
    assert torch.equal(model.layers(maps()), model.layers.context(alone(maps())))
    remove(model)
    assert type(model.layers) is nn.Sequential


def test_attention_hands_its_weights_to_a_function() -> None:
    model = nn.Sequential(nn.MultiheadAttention(16, 2))
    with pytest.raises(GCNetError, match=r'"0" does not call "0.out_proj"'):
        insert(model, Block, where="0.out_proj", position="output")


@pytest.mark.parametrize("position", ["after1x1", "output"])
def test_a_forward_replaced_on_the_object(position) -> None:
    model = nn.Sequential(Residual(8))
    model[0].forward = partial(lambda old, x: old(x), model[0].forward)
    with pytest.raises(GCNetError, match=r'forward of "0" was replaced.*insert before'):
        insert(model, Block, where="0", position=position)
    model = model.eval()
    (name,) = insert(model, Block, where="0.bn2", position="output")
    before = model(maps())
    stir(model.get_submodule(name))
    assert not torch.allclose(model(maps()), before)


class Optional(nn.Module):
    """Calls its sequence as one where it is not given a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(8, 8, 1))

    def forward(self, x, mask=None):
        return self.layers(x) if mask is None else self.layers[0](x * mask)


class Lends(nn.Module):
    """Has a layer that only its parts call."""

    def __init__(self) -> None:
        super().__init__()
        self.lent = nn.Conv2d(8, 8, 1)
        self.parts = nn.ModuleList(nn.Sequential(self.lent) for _ in range(2))

    def forward(self, x):
        return self.parts[1](self.parts[0](x))


@pytest.mark.parametrize(("make", "where"), [(Optional, "layers"), (Lends, "lent")])
def test_places_that_run_in_another_way_are_not_refused(make, where: str) -> None:
    model = make()
    (name,) = insert(model, Block, where=where, position="output")
    calls: list[nn.Module] = []
    model.get_submodule(name).register_forward_hook(lambda module, inputs, output: calls.append(module))
    model(maps())
    assert len(calls) == (1 if make is Optional else 2)
