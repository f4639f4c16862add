"""Blocks into networks: where they go, that nothing changes until they learn, and what survives."""

from __future__ import annotations

import copy
import io
from functools import partial

import jaxtyping
import pytest
import torch
from small_networks import Network, network, stir
from torch import nn
from torch.ao.quantization.quantize_fx import prepare_fx
from torch.fx.experimental.optimization import fuse
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.feature_extraction import create_feature_extractor

from gcnet.context import GlobalContext, insert, record, remove
from gcnet.errors import GCNetError

Block = partial(GlobalContext, ratio=1 / 4)
EVERYWHERE = ["stage1.0.context", "stage1.1.context", "stage2.0.context"]


def pictures(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def with_blocks(*outputs: str) -> Network:
    """The network with blocks that do something, in every residual branch and on some modules' output."""
    model = network()
    insert(model, Block)
    if outputs:
        insert(model, Block, where=outputs, position="output")
    stir(model)
    return model


def test_default_is_the_end_of_every_residual_branch() -> None:
    model = network()
    assert insert(model, Block) == EVERYWHERE
    seen = {}
    for name in ("stage1.0", "stage1.0.bn2", "stage1.0.context"):
        model.get_submodule(name).register_forward_hook(
            lambda m, i, o, n=name: seen.update(
                {n: (i[0].clone(), o.clone())}
            )  # the next layer works in place
        )
    stir(model)
    model(pictures())
    block_input, block_output = seen["stage1.0.context"]
    torch.testing.assert_close(
        block_input, nn.functional.batch_norm(seen["stage1.0.bn2"][0], *statistics(model.stage1[0].bn2))
    )
    shortcut, out = seen["stage1.0"]
    assert torch.equal(out, (block_output + shortcut).relu())


def statistics(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, ...]:
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


@pytest.mark.parametrize(
    ("where", "position", "expected"),
    [
        ("stage1", "after1x1", EVERYWHERE[:2]),
        ("stage[12].0", "after1x1", ["stage1.0.context", "stage2.0.context"]),
        (["stage2", "stage1.*"], "after1x1", EVERYWHERE),
        ("stage1.1", "after_add", ["stage1.1.context"]),
        ("stage1", "output", ["stage1.context"]),
        ("*", "output", None),
        ("stem", "output", ["stem.context"]),
        ("neck.1", "output", ["neck.1.context"]),
        ("parts.*", "output", ["parts.0.context", "parts.1.context"]),
        ("stage?.0.conv2", "output", ["stage1.0.conv2.context", "stage2.0.conv2.context"]),
    ],
)
def test_where(where, position, expected) -> None:
    model = network()
    before, keys = model(pictures()), list(model.state_dict())
    if expected is None:
        with pytest.raises(GCNetError, match=r"parts.*ModuleList"):
            insert(model, Block, where=where, position=position)
    else:
        assert insert(model, Block, where=where, position=position) == expected
        assert torch.equal(model(pictures()), before)
        assert [key for key in model.state_dict() if ".context." not in key] == keys
        stir(model)
        assert not torch.allclose(model(pictures()), before)
        assert remove(model) == expected
    assert list(model.state_dict()) == keys
    assert torch.equal(model(pictures()), before)


def test_output_is_what_the_module_returned_through_the_block() -> None:
    model, x = network(), pictures()
    plain = {name: model.get_submodule(name) for name in ("stem", "stage1", "neck", "stage2")}
    after_stage = plain["stage1"](plain["stem"](x))
    insert(model, Block, where="stage1", position="output")
    stir(model)
    torch.testing.assert_close(model.stage1(model.stem(x)), model.stage1.context(after_stage))


def test_after_add_is_what_the_residual_block_returned_through_the_block() -> None:
    model, x = network(), torch.randn(1, 16, 5, 5)
    before = model.stage1[1](x)
    insert(model, Block, where="stage1", position="after_add")
    stir(model)
    torch.testing.assert_close(model.stage1[1](x), model.stage1[1].context(before))


def test_training_moves_the_blocks() -> None:
    model = network().train()
    insert(model, Block)
    blocks = {name: value for name, value in model.named_parameters() if ".context." in name}
    start = {name: value.detach().clone() for name, value in blocks.items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(pictures(4)), torch.arange(4)).backward()
        optimiser.step()
    # A constant added to all logits of a softmax changes nothing: that bias has no gradient.
    still = [name for name in blocks if torch.equal(start[name], blocks[name])]
    assert [name for name in still if not name.endswith("pool.bias")] == []


def test_gradients_are_those_of_the_same_network_written_by_hand() -> None:
    model, x = network(), torch.randn(1, 16, 4, 4)
    insert(model, Block, where="stage1.0")
    stir(model)
    block = model.stage1[0]
    block(x).square().sum().backward()
    found = {name: value.grad.clone() for name, value in block.named_parameters()}
    block.zero_grad()
    out = torch.relu(nn.functional.batch_norm(block.conv1(x), *statistics(block.bn1)))
    out = block.context(nn.functional.batch_norm(block.conv2(out), *statistics(block.bn2)))
    torch.relu(out + x).square().sum().backward()
    for name, value in block.named_parameters():
        torch.testing.assert_close(found[name], value.grad)


def test_state_dict_goes_round_and_takes_plain_weights() -> None:
    plain, model, other = network(), network(), Network().eval()
    insert(model, Block)
    insert(other, Block)
    stir(model)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(pictures()), model(pictures()))
    missing, unexpected = other.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(".context." in key for key in missing)


def test_copies_and_saved_models_keep_their_own_blocks() -> None:
    model = network()
    insert(model, Block)
    insert(model, Block, where=["stem", "stage1"], position="output", name="more")
    stir(model)
    stir(model, "more")
    expected = model(pictures())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(twin(pictures()), expected)
        for parameter in twin.parameters():
            nn.init.zeros_(parameter)
        assert torch.equal(model(pictures()), expected)
        assert len(remove(twin)) == 5


def test_two_names_side_by_side() -> None:
    model = network()
    before = model(pictures())
    insert(model, Block)
    with pytest.raises(GCNetError, match=r'"stage1.0" already has "context"'):
        insert(model, Block)
    assert insert(model, Block, name="second") == [name.replace("context", "second") for name in EVERYWHERE]
    assert insert(model, Block, name="third", position="after_add") == [
        name.replace("context", "third") for name in EVERYWHERE
    ]
    stir(model, "second")
    assert remove(model, name="context") == EVERYWHERE
    assert not torch.equal(model(pictures()), before)
    assert len(remove(model)) == 6
    assert torch.equal(model(pictures()), before)
    assert remove(model) == []
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_two_blocks_after_one_sequence() -> None:
    model, x = network(), pictures()
    inner = model.neck(model.stage1(model.stem(x)))
    for name in ("context", "second"):
        insert(model, Block, where="neck", position="output", name=name)
        stir(model, name)
    expected = model.neck.second(model.neck.context(inner))
    assert torch.equal(model.neck(model.stage1(model.stem(x))), expected)
    assert remove(model) == ["neck.context", "neck.second"]
    assert type(model.neck) is nn.Sequential


def test_blocks_go_from_a_module_whose_class_others_changed() -> None:
    model, x = network(), pictures()
    before = model(x)
    insert(model, Block)
    stir(model)
    block = model.stage1[0]
    block.__class__ = type("Sharded", (type(block),), {})  # as `fully_shard` does
    assert remove(model) == EVERYWHERE
    assert torch.equal(model(x), before)
    assert insert(model, Block) == EVERYWHERE
    assert torch.equal(model(x), before)


def test_the_block_outlives_a_replaced_norm() -> None:
    model = with_blocks("neck.1")
    expected = model(pictures())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)).eval()
    assert isinstance(converted.stage1[0].bn2, nn.SyncBatchNorm)
    for _ in range(2):
        torch.testing.assert_close(converted(pictures()), expected)
    for block in (model.stage1[0], model.stage1[1], model.stage2[0]):  # folded: the norm gives way to nothing
        block.conv2, block.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), nn.Identity()
    torch.testing.assert_close(model(pictures()), expected)
    assert len(remove(converted)) == 4


def test_a_block_whose_module_is_gone_is_missed() -> None:
    model = network()
    insert(model, Block, where="neck.1", position="output")
    model.neck[1] = nn.Identity()
    with pytest.raises(GCNetError, match=r'"1" was replaced .* its block is lost'):
        model(pictures())


def test_blocks_by_name_with_their_options() -> None:
    model = network()
    assert insert(model, "gc", options={"ratio": 1 / 4}) == EVERYWHERE
    assert model.stage1[0].context.add.reduce.out_features == 4
    remove(model)
    with pytest.raises(GCNetError, match='no context block "gca"'):
        insert(model, "gca")
    with pytest.raises(GCNetError, match='"snl" has no option ratio'):
        insert(model, "snl", options={"ratio": 1 / 4})
    with pytest.raises(GCNetError, match="bind those of a class"):
        insert(model, GlobalContext, options={"ratio": 1 / 4})


def blocks_of(model: nn.Module) -> set[str]:
    return {key for key in model.state_dict() if ".context." in key}


def test_features_taken_with_torch_fx_have_the_blocks_and_train_them() -> None:
    model, x = with_blocks("neck.1", "stage2"), pictures()
    body = create_feature_extractor(model, {"head": "out"})
    assert blocks_of(body) == blocks_of(model)
    torch.testing.assert_close(body(x)["out"], model(x))
    body(x)["out"].square().sum().backward()
    for name in (*EVERYWHERE, "neck.1.context", "stage2.context"):
        assert model.get_submodule(name).add.expand.weight.grad.any()


def test_fusing_norms_keeps_the_blocks_and_runs_them_once() -> None:
    model, x = with_blocks("neck.1"), pictures()
    expected = model(x)
    torch.testing.assert_close(fuse(model)(x), expected)
    one = copy.deepcopy(model.stage1[0])  # the traced module itself holds a block
    torch.testing.assert_close(fuse(one)(model.stem(x)), one(model.stem(x)))
    eager = torch.ao.quantization.fuse_modules(model, ["stage1.0.conv2", "stage1.0.bn2"])
    torch.testing.assert_close(eager(x), expected)


def test_torch_fx_quantisation_keeps_the_blocks() -> None:
    model, x = with_blocks(), pictures()
    prepared = prepare_fx(model, torch.ao.quantization.get_default_qconfig_mapping(), (x,))
    torch.testing.assert_close(prepared(x), model(x), rtol=1e-3, atol=1e-3)
    assert blocks_of(prepared) >= blocks_of(model)


def test_record_sees_the_blocks() -> None:
    model = network()
    names = insert(model, Block)
    with record(model) as maps:
        model(pictures())
    assert list(maps) == [f"{name}.pool" for name in names]


def test_device_dtype_and_mode_are_the_models() -> None:
    model = network().double().train()
    insert(model, Block, where="stage1")
    insert(model.to("meta"), Block, where="stage2")
    assert model.stage1[0].context.add.reduce.weight.dtype == torch.float64
    assert model.stage1[0].context.training
    assert model.stage2[0].context.pool.weight.device.type == "meta"
    model = network()
    model.requires_grad_(False)
    insert(model, Block)
    assert not model.stage1[0].context.training
    assert all(parameter.requires_grad for parameter in model.stage1[0].context.parameters())


@pytest.fixture
def unchecked():
    """Without the type checks of the test run, which compilers cannot look through."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.skipif(torch.__version__.startswith("2.11"), reason="its Dynamo breaks the graph at views")
def test_compiles_whole(unchecked) -> None:
    model = with_blocks("stage1")
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(pictures()), model(pictures()))


def test_exports(unchecked) -> None:
    model = with_blocks()
    sizes = {0: torch.export.Dim("n"), 2: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (pictures(),), dynamic_shapes=(sizes,))
    x = torch.randn(3, 3, 20, 16)
    torch.testing.assert_close(program.module()(x), model(x))
    assert set(program.state_dict) == set(model.state_dict())


def test_distributed_gradients_reach_the_blocks(tmp_path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = network().train()
        insert(model, Block)
        stir(model)
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped(pictures()).square().sum().backward()
        assert all(model.get_submodule(name).add.expand.weight.grad.any() for name in EVERYWHERE)
    finally:
        torch.distributed.destroy_process_group()


def test_channels_last_maps_stay_so() -> None:
    model, x = with_blocks(), pictures()
    expected = model(x)
    model = model.to(memory_format=torch.channels_last)
    layouts = []
    for name in EVERYWHERE:
        model.get_submodule(name).register_forward_hook(
            lambda m, i, o: layouts.append(o.is_contiguous(memory_format=torch.channels_last))
        )
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected)
    assert layouts == [True] * 3


def test_bfloat16_autocast() -> None:
    model, x = network(), pictures()
    before = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        plain = model(x)
    insert(model, Block)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), plain)
    stir(model)  # outside: autocast keeps the weights it has cast
    with torch.autocast("cpu", torch.bfloat16):
        model(x).float().sum().backward()
    assert model.stage1[0].context.pool.weight.grad.any()
    torch.testing.assert_close(plain.float(), before, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("shape", [(2, 16, 9), (2, 16, 3, 4, 5)], ids=["1D", "3D"])
def test_sequences_and_volumes(shape) -> None:
    convolution = nn.Conv1d if len(shape) == 3 else nn.Conv3d
    model = nn.Sequential(convolution(16, 32, 1), nn.ReLU())
    x = torch.randn(shape)
    before = model(x)
    assert insert(model, Block, where="0", position="output") == ["0.context"]
    assert torch.equal(model(x), before)


def test_channels_in_another_dimension() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32))
    tokens = torch.randn(2, 5, 8)
    before = model(tokens)
    insert(model, Block, where="1", position="output", channel_dim=-1)
    assert torch.equal(model(tokens), before)
    stir(model)
    expected = model[1].context.block(before.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(model(tokens), expected)


def test_an_error_names_modules_that_can_hold_a_block() -> None:
    model = nn.Module()
    model.body = nn.Module()
    model.body.layers = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 1)) for _ in range(2))
    with pytest.raises(GCNetError, match=r"such as body\.layers\.0, body\.layers\.1"):
        insert(model, Block, where="body")


class TokenMixer(nn.Module):
    """A residual block of tokens, as transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(32), nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, x):
        return x + self.mlp(self.norm(x))


def test_a_network_of_maps_and_tokens() -> None:
    model = nn.Sequential(network().stem, network().stage1, nn.Conv2d(16, 32, 1), nn.Flatten(2))
    model.append(Transposed(TokenMixer()))
    before = model(pictures())
    assert insert(model, Block) == ["1.0.context", "1.1.context", "4.tokens.context"]
    assert torch.equal(model(pictures()), before)


class Transposed(nn.Module):
    def __init__(self, tokens: nn.Module) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, x):
        return self.tokens(x.transpose(1, 2))


class Odd(nn.Module):
    """Its last layer is not its output, one of its layers runs twice, and it takes more than a map."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 48, 1), nn.Conv2d(48, 16, 1)
        self.relu = nn.ReLU()

    def forward(self, x, times):
        narrow = self.narrow(self.relu(self.wide(x)))
        return torch.cat([self.relu(narrow), narrow], dim=1) * times


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.odd = Odd()
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x, times=1):
        return self.odd(x, times), None


class Ghost(nn.Module):
    """A residual block whose last layer makes half of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)
        self.cheap = Halves()

    def forward(self, x):
        return x + self.cheap(self.bn1(self.conv1(x)))


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return torch.cat([x, self.conv(x)], dim=1)


def test_channels_are_seen_where_the_last_layer_does_not_tell_them() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 1), Ghost())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert insert(model, Block) == ["1.context"]
    assert model[1].context.add.expand.out_features == 16
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(model(pictures()), remove(model) and model(pictures()))


class SizedTokens(nn.Module):
    """A block of tokens that is told the map's sides, with a convolution in it, and no layer at its end."""

    def __init__(self, *, together: bool) -> None:
        super().__init__()
        self.together = together
        self.norm, self.mlp, self.drop = nn.LayerNorm(16), nn.Linear(16, 16), nn.Identity()
        self.local = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.scale = nn.Parameter(torch.ones(16))

    def forward(self, x, height, width=None):
        height, width = height if self.together else (height, width)
        local = self.local(self.norm(x).transpose(1, 2).unflatten(2, (height, width))).flatten(2)
        return x + self.drop(self.scale * self.mlp(local.transpose(1, 2)))


@pytest.mark.parametrize("together", [False, True])
def test_blocks_that_are_told_the_sides_of_the_map(together: bool) -> None:
    block, x = SizedTokens(together=together), torch.randn(2, 24, 16)
    sides = ((4, 6),) if together else (4, 6)
    before = block(x, *sides)
    assert insert(block, Block) == ["context"]
    assert torch.equal(block(x, *sides), before)


def test_channels_from_an_example() -> None:
    model, x = Pair().train(), pictures()
    insert(model, Block, where="odd", position="output")
    with pytest.raises(GCNetError, match=r'"odd" returns .*\(2, 32, 16, 16\).* 16 channels.*example='):
        model(x)
    remove(model)
    insert(model, Block, where="odd", position="output", example=(x, 2))
    assert model.odd.context.add.expand.out_features == 32
    assert model.training
    assert model.odd.wide.training
    model(x)
    remove(model)
    insert(model, Block, where="odd", position="output", channels=32)
    model(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"where": "stage3"}, 'no module is named "stage3"; did you mean "stage'),
        ({"where": "zzz*"}, r'no module is named "zzz\*"; there is stem, stage1, neck'),
        ({"where": ["stage1", "nect"]}, 'did you mean "neck"'),
        ({"where": []}, "where is empty"),
        ({"where": "neck"}, 'no residual block in "neck"; position="output" .* such as neck.0, neck.1'),
        ({"position": "output"}, "needs where="),
        ({"where": "neck.2", "position": "output"}, '"neck.2" does not tell how many channels.*example='),
        ({"where": "parts", "position": "output"}, "ModuleList, which cannot hold"),
        ({"where": "parts", "position": "output", "channels": 32}, "ModuleList, which cannot hold"),
        ({"name": "conv1"}, '"stage1.0" has a "conv1" of its own: pass another name='),
        ({"name": "later"}, '"stage1.0" has a "later" of its own: pass another name='),
        (
            {"options": {"ratio": 1 / 99}, "block": "gc"},
            'no block for "stage1.0.bn2": ratio .* change options=',
        ),
        ({"block": GlobalContext(16)}, "every place needs its own: pass what makes it, GlobalContext"),
        ({"block": lambda channels: 3}, "makes a int for 16 channels"),
        ({"block": nn.Conv2d}, 'no block for "stage1.0.bn2": .* missing 2 required'),
        ({"block": None}, "block is None; give a name"),
        ({"options": 3, "block": "gc"}, "options is 3; give names and values"),
        ({"where": 0}, "where has 0; give names of modules"),
        ({"where": ["stage1", 1]}, "where has 1; give names of modules"),
        *(({"channels": wrong}, f"channels is {wrong!r}; give a whole") for wrong in (8.0, "8", 0)),
        *(({"channel_dim": wrong}, f"channel_dim is {wrong!r}; give 1, or -1") for wrong in (7, 0, "1")),
        *(({"name": wrong}, f"name is {wrong!r}; give a word") for wrong in ("a.b", "", "_runs", 3)),
        (
            {"example": torch.ones(1, 4, 9, 9)},
            r"does not run on the example \(RuntimeError: .*\): pass another",
        ),
        ({"example": "x"}, r"does not run on the example \(TypeError: .*\): pass another"),
        ({"example": pictures(), "channel_dim": 4}, r'"stage1.0.bn2" returns a map of shape \(2, 16, 7, 7\)'),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_changed(unchecked, arguments, message) -> None:
    model = network()
    keys = list(model.state_dict())
    with pytest.raises(GCNetError, match=message) as raised:
        insert(model, **{"block": Block} | arguments)
    assert "\n" not in str(raised.value)
    assert list(model.state_dict()) == keys
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_examples_that_do_not_tell() -> None:
    model, x = Pair(), pictures()
    with pytest.raises(GCNetError, match='"unused" is not called'):
        insert(model, Block, where="unused", position="output", example=x)
    with pytest.raises(GCNetError, match=r'"odd.relu" returns \[16, 48\] channels at different calls'):
        insert(model, Block, where="odd.relu", position="output", example=x)
    with pytest.raises(GCNetError, match="the model returns a tuple"):
        insert(model, Block, where="", position="output", example=x)
    assert not any(module._forward_hooks for module in model.modules())


def test_what_is_no_network_yet(unchecked) -> None:
    model = nn.Sequential(nn.LazyConv2d(16, 3), nn.ReLU())
    for given in ({}, {"channels": 16}, {"example": pictures()}):
        with pytest.raises(GCNetError, match='"0" has no weights yet: run a batch'):
            insert(model, Block, where="0", position="output", **given)
    model(pictures())
    insert(model, Block, where="0", position="output")
    with pytest.raises(GCNetError, match="model is a type; give"):
        insert(Network, Block)
    with pytest.raises(GCNetError, match=r"the model is TorchScript.*: insert before"):
        insert(torch.jit.script(nn.Sequential(nn.Conv2d(3, 16, 1))), Block)


def test_a_dimension_that_the_maps_do_not_have() -> None:
    model = network()
    insert(model, Block, where="stem", position="output", channel_dim=4)
    with pytest.raises(GCNetError, match=r'"stem" returns a map of shape .* in dimension 4'):
        model(pictures())
