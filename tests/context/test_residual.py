"""Residual blocks of torchvision, timm and one's own; blocks inserted into them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps

import pytest
import timm
import torch
import torchvision.models as tv
from small_networks import Block, network, stir
from torch import nn

from gcnet.context import GlobalContext, insert, remove
from gcnet.context.residual import residual_blocks


def of_timm(name: str, **arguments) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, **arguments)


FAMILIES = [
    # make, where, channel_dim, number of residual blocks there, the first, where its branch ends
    (tv.resnet18, "layer[234]", 1, 6, "layer2.0", "bn2"),
    (tv.resnet50, "layer[234]", 1, 13, "layer2.0", "bn3"),
    (tv.convnext_tiny, "features.[357]", 1, 15, "features.3.0", "stochastic_depth"),
    (tv.regnet_x_400mf, None, 1, 22, "trunk_output.block1.block1-0", "f"),
    (tv.efficientnet_b0, None, 1, 9, "features.2.1", "block"),
    (tv.mobilenet_v2, None, 1, 10, "features.3", "conv"),
    (tv.swin_t, "features.[57]", -1, 8, "features.5.0", "mlp"),
    (of_timm("resnet26", drop_path_rate=0.1), "layer[234]", 1, 6, "layer2.0", "bn3"),
    (of_timm("ecaresnet26t"), "layer[234]", 1, 6, "layer2.0", "se"),
    (of_timm("resnetv2_50"), "stages.[123]", 1, 13, "stages.1.blocks.0", "conv3"),
    (of_timm("convnext_atto"), "stages.[123]", 1, 10, "stages.1.blocks.0", "drop_path"),
    (of_timm("regnetx_002"), "s[234]", 1, 12, "s2.b1", "conv3"),
    (of_timm("efficientnet_b0"), None, 1, 9, "blocks.1.1", "bn3"),
]


@pytest.mark.parametrize(
    ("make", "where", "channel_dim", "count", "first", "end"),
    FAMILIES,
    ids=[
        getattr(make, "__name__", None) or f"timm-{make.args[0]}-{i}" for i, (make, *_) in enumerate(FAMILIES)
    ],
)
def test_families(make, where, channel_dim, count, first, end) -> None:
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before, state = model(x), list(model.state_dict())
        block = partial(GlobalContext, ratio=1 / 4)
        names = insert(model, block, where=where, channel_dim=channel_dim)
        assert len(names) == count
        assert names[0] == f"{first}.context"
        assert residual_blocks(model.get_submodule(first)) == {"": end}
        assert torch.equal(model(x), before)
        stir(model)
        assert not torch.allclose(model(x), before)
        assert remove(model) == names
        assert torch.equal(model(x), before)
        insert(model, block, where=where, channel_dim=channel_dim, position="after_add")
        assert torch.equal(model(x), before)
        remove(model)
    assert list(model.state_dict()) == state


def test_keys_are_those_of_the_detectors_backbones() -> None:
    from gcnet.models.resnet import ResNet
    from gcnet.models.spec import ContextSpec, ResNetSpec

    ours = ResNet(ResNetSpec(context=ContextSpec())).state_dict()
    model = tv.resnet50()
    insert(model, GlobalContext, where="layer[234]")
    shapes = {key: value.shape for key, value in model.state_dict().items() if ".context." in key}
    assert shapes == {key: value.shape for key, value in ours.items() if ".context." in key}


class Projected(nn.Module):
    """The shortcut is a projection; the branch ends in an activation that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.shortcut = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.shortcut(x) + self.relu(self.body(x)))


class Scaled(nn.Module):
    """A scale without a module, before a drop: behind it is the drop alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop = nn.Conv2d(8, 8, 1), nn.Dropout(0.1)
        self.gamma = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x):
        return torch.add(x, self.drop(self.gamma * self.body(x)))


class Two(nn.Module):
    """Attention and mixer of a transformer, each with its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = x + self.first(x)
        return x + self.second(self.norm(x))


class Strided(Two):
    """The shortcut takes every second position."""

    def forward(self, x):
        return x[..., ::2, ::2] + self.second(self.norm(self.first(x)))[..., ::2, ::2]


class Picks(Two):
    """Its map is a part of its input."""

    def forward(self, x):
        return x[0] + self.first(x[0])


class WithAttention(nn.Module):
    """The branch holds a part that is residual by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.attention = nn.Conv2d(8, 8, 1), Projected()

    def forward(self, x):
        return x + self.attention(self.conv(x))


def decorated(forward):
    """As libraries decorate a `forward`, to checkpoint its gradients or to record what it returns."""

    @wraps(forward)
    def call(self, *args, **kwargs):
        return forward(self, *args, **kwargs)

    return call


class HandsOn(Two):
    """It hands further arguments on to a branch of its own, as the layers of transformers do."""

    def __init_subclass__(cls) -> None:
        cls.forward = decorated(cls.forward)

    @decorated
    def forward(self, x, *further, mask=None, **kwargs):
        attended, _ = self.attend(x, *further, mask, **kwargs)
        x = x + attended
        return x + self.second(self.norm(x))

    def attend(self, x, *further, **kwargs):
        return self.first(x), None


class HandsOnAgain(HandsOn):
    """Decorated once more, as every class below the other."""


class Optional(Two):
    """It looks at what it need not be given, as a layer of GPT-2 does: a tracer stops there."""

    def forward(self, x, encoded=None):
        if encoded is not None:
            raise ValueError("no attention to that")
        return Two.forward(self, x)


class Group(nn.Module):
    """Residual blocks in a long shortcut: the inner ones count."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Block(8), Block(8))

    def forward(self, x):
        return x + self.body(x)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Projected(), {"": "body"}),
        (Scaled(), {"": "drop"}),
        (Two(), {"": "second"}),
        (Strided(), {"": "second"}),
        (Picks(), {"": "first"}),
        (WithAttention(), {"": "attention"}),
        (HandsOn(), {"": "second"}),
        (HandsOnAgain(), {"": "second"}),
        (Optional(), {"": "second"}),
        (Group(), {"body.0": "bn2", "body.1": "bn2"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_by_what_it_computes(module, expected) -> None:
    assert residual_blocks(module) == expected


class Headed(Two):
    """Something is learnt after the sum: a network, no block."""

    def forward(self, x):
        return self.second(x + self.first(x))


class Merged(Two):
    """Two inputs, as in a feature pyramid."""

    def forward(self, x, finer):
        return self.first(x) + self.second(self.norm(finer))


class Even(Two):
    """Two branches of the same length: neither is the shortcut."""

    def forward(self, x):
        return self.first(x) + self.second(x)


class Shifted(Two):
    """Adds a number, not its input."""

    def forward(self, x):
        return self.second(self.first(x)) + 1


class Branching(Two):
    """What it computes depends on the data."""

    def forward(self, x):
        return x + self.first(x) if x.sum() > 0 else x


class Gated(Two):
    """The branch is what one module returns times what another makes of it: no module ends it."""

    def forward(self, x):
        out = self.first(x)
        return x + out * self.second(out.mean((2, 3), keepdim=True)).sigmoid()


class Joined(Two):
    """Half of the branch's channels come from one module, half from another."""

    def forward(self, x):
        out = self.first(x)
        return x + torch.cat([out, self.second(out)], dim=1)


class Several(Two):
    """Returns more than the sum."""

    def forward(self, x):
        return x + self.first(x), x


class TwoMaps(Two):
    """Two maps in one input, as in the head of a segmentation network."""

    def forward(self, x):
        high = self.second(self.norm(x["high"]))
        return self.first(x["low"]) + nn.functional.interpolate(high, size=x["low"].shape[-2:])


@pytest.mark.parametrize("kind", [Headed, Merged, Even, Shifted, Branching, Gated, Joined, Several, TwoMaps])
def test_what_is_no_residual_block(kind) -> None:
    assert residual_blocks(kind()) == {}


def test_what_drops_the_branch_drops_the_block() -> None:
    model, x = Scaled().train(), torch.randn(2, 8, 4, 4)
    insert(model, partial(GlobalContext, ratio=1 / 4))
    stir(model)
    model.drop.p = 1.0
    assert torch.equal(model(x), x)
    model.eval()
    torch.testing.assert_close(model(x), x + model.context(model.gamma * model.body(x)))


def test_a_gate_before_a_drop_is_in_the_branch() -> None:
    class GatedScaled(Scaled):
        def forward(self, x):
            out = self.body(x)
            return x + self.drop(out * out.mean((2, 3), keepdim=True).sigmoid())

    assert residual_blocks(GatedScaled()) == {"": "drop"}


def test_only_wanted_names() -> None:
    assert residual_blocks(network(), lambda name: name.startswith("stage1")) == {
        "stage1.0": "bn2",
        "stage1.1": "bn2",
    }
