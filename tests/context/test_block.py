"""The framework, and every named block: identity at birth, gradients, layouts, dtypes, files, export."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gcnet.context import (
    AttentionPool,
    AveragePool,
    BottleneckTransform,
    ContextBlock,
    ConvolutionalBlockAttention,
    EfficientChannelAttention,
    GatedChannelTransformation,
    GeneralizedAttention,
    GlobalContext,
    LinearTransform,
    NonLocal,
    SimplifiedNonLocal,
    SqueezeExcitation,
)

C = 8
Awake = Callable[[nn.Module], nn.Module]
ADDING: dict[str, Callable[[], ContextBlock]] = {
    "gc": partial(GlobalContext, C, ratio=1 / 2),
    "gc_plain": partial(GlobalContext, C, ratio=1 / 2, pooling="average", layer_norm=False),
    "snl": partial(SimplifiedNonLocal, C),
    "nl_embedded_gaussian": partial(NonLocal, C),
    "nl_unscaled": partial(NonLocal, C, use_scale=False),
    "nl_gaussian": partial(NonLocal, C, mode="gaussian"),
    "nl_dot_product": partial(NonLocal, C, mode="dot_product"),
    "nl_concatenation": partial(NonLocal, C, mode="concatenation"),
    "nl_sub_sample": partial(NonLocal, C, sub_sample=True),
    "nl_concatenation_sub_sample": partial(NonLocal, C, mode="concatenation", sub_sample=True),
    "nl_batch_norm": partial(NonLocal, C, batch_norm=True),
    "gct": partial(GatedChannelTransformation, C),
}
SCALING: dict[str, Callable[[], ContextBlock]] = {
    "se": partial(SqueezeExcitation, C, ratio=1 / 2),
    "gc_scale": partial(GlobalContext, C, ratio=1 / 2, fusion=("scale",)),
    "gc_both": partial(GlobalContext, C, ratio=1 / 2, pooling="average", fusion=("add", "scale")),
    "eca": partial(EfficientChannelAttention, C),
}
OF_MAPS: dict[str, Callable[[], ContextBlock]] = {
    "cbam": partial(ConvolutionalBlockAttention, C, ratio=1 / 2),
    "ga": partial(GeneralizedAttention, C, heads=2),
    "ga_key": partial(GeneralizedAttention, C, heads=2, terms="0010"),
}
ALL = {**ADDING, **SCALING, **OF_MAPS}
SIZES = [(9,), (4, 5), (1, 1), (2, 3, 4)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ADDING)
def test_fresh_block_that_adds_changes_nothing(name: str, size: tuple[int, ...]) -> None:
    x = torch.randn(2, C, *size)
    assert torch.equal(ADDING[name]().train()(x), x)
    assert torch.equal(ADDING[name]().eval()(x), x)


@pytest.mark.parametrize("name", SCALING)
def test_fresh_block_that_scales_halves(name: str) -> None:
    x = torch.randn(2, C, 4, 5)
    assert torch.equal(SCALING[name]()(x), x / 2)


@pytest.mark.parametrize("name", ADDING)
def test_a_fresh_block_learns(name: str) -> None:
    """Zero-initialised, but not stuck there: two steps move the output, and reach the pool's parameters."""
    torch.manual_seed(0)
    block, x, target = ADDING[name](), torch.randn(2, C, 4, 5), torch.randn(2, C, 1, 1)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (block(x) - target).square().mean().backward()
        optimizer.step()
    assert not torch.equal(block(x), x)
    gradients = [p.grad for p in block.pool.parameters()]
    assert all(g is not None for g in gradients)
    assert not gradients or max(float(g.abs().max()) for g in gradients if g is not None) > 0


@pytest.mark.parametrize("size", [(3,), (2, 3), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_gradients(name: str, size: tuple[int, ...], awake: Awake) -> None:
    if name in OF_MAPS and len(size) != 2:
        pytest.skip("for maps of two sides")
    torch.manual_seed(0)
    block = awake(ALL[name]().double())
    x = torch.randn(2, C, *size, dtype=torch.float64, requires_grad=True)
    parameters = list(block.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: block(x), (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", [*ADDING, *SCALING])
def test_shapes_of_positions_do_not_matter(name: str, awake: Awake) -> None:
    """A map, its positions as a sequence and as a volume give the same, unless neighbours are pooled."""
    torch.manual_seed(0)
    block, x = awake(ALL[name]()).eval(), torch.randn(2, C, 4, 6)
    y = block(x)
    assert not torch.equal(y, x)
    if "sub_sample" not in name:
        torch.testing.assert_close(block(x.flatten(2)), y.flatten(2), rtol=1e-5, atol=1e-6)
    volume = block(x.unsqueeze(2))
    torch.testing.assert_close(volume.squeeze(2), y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_channels_last_stays(name: str, awake: Awake) -> None:
    torch.manual_seed(0)
    block, x = awake(ALL[name]()).eval(), torch.randn(2, C, 4, 6)
    last = block(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    first = block(x)
    assert first.is_contiguous()
    torch.testing.assert_close(last, first, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_autocast(name: str, awake: Awake) -> None:
    torch.manual_seed(0)
    block, x = awake(ALL[name]()), torch.randn(2, C, 8, 6, requires_grad=True)
    expected = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, expected, rtol=0.05, atol=0.05)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_state_dict_round_trip(name: str, awake: Awake) -> None:
    torch.manual_seed(0)
    block, other, x = awake(ALL[name]()).eval(), ALL[name]().eval(), torch.randn(2, C, 4, 6)
    other.load_state_dict(block.state_dict())
    assert torch.equal(other(x), block(x))


@pytest.mark.parametrize("name", ALL)
def test_export(name: str, awake: Awake) -> None:
    torch.manual_seed(0)
    block, x = awake(ALL[name]()).eval(), torch.randn(2, C, 4, 6)
    program = torch.export.export(block, (x,))
    torch.testing.assert_close(program.module()(x), block(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_an_empty_batch_stays_empty(name: str) -> None:
    assert ALL[name]().eval()(torch.zeros(0, C, 4, 6)).shape == (0, C, 4, 6)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ALL)
def test_traces_with_gradients_on(name: str, awake: Awake) -> None:
    torch.manual_seed(0)
    block, x = awake(ALL[name]()).eval(), torch.randn(2, C, 4, 6)
    torch.testing.assert_close(torch.jit.trace(block, (x,))(x + 1), block(x + 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_directional_derivatives(name: str, awake: Awake) -> None:
    """PyTorch's fused attention has none; its plain form, which a user can ask for, has."""
    torch.manual_seed(0)
    block = awake(ALL[name]().double()).eval()
    x, along = torch.randn(2, 2, C, 4, 6, dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):
        _, derivative = torch.func.jvp(block, (x,), (along,))
    step = 1e-6 * along
    numeric = (block(x + step) - block(x - step)) / 2e-6
    torch.testing.assert_close(derivative, numeric, rtol=1e-6, atol=1e-6)


def test_own_composition(awake: Awake) -> None:
    """Average pooling, a linear gate and a bottleneck that adds: scale comes before add."""
    torch.manual_seed(0)
    pool, gate, term = AveragePool(), LinearTransform(C, C), BottleneckTransform(C, 4, layer_norm=False)
    block, x = awake(ContextBlock(pool, scale=gate, add=term)), torch.randn(2, C, 4, 6)
    mean = x.mean(dim=(2, 3))
    expected = x * gate(mean).sigmoid()[:, :, None, None] + term(mean)[:, :, None, None]
    torch.testing.assert_close(block(x), expected)


def test_simplified_non_local_is_equation_3(awake: Awake) -> None:
    """The paper has the value layer inside the sum; as weights sum to 1, it may stand outside."""
    torch.manual_seed(0)
    block, x = awake(SimplifiedNonLocal(C)), torch.randn(2, C, 4, 6)
    assert isinstance(block.pool, AttentionPool)
    weights = block.pool.attention(x)
    values = block.add(x)  # for each position
    torch.testing.assert_close(block(x), x + (values * weights[:, None]).sum(dim=(2, 3), keepdim=True))


def test_squeeze_excitation_is_its_formula(awake: Awake) -> None:
    torch.manual_seed(0)
    block, x = awake(SqueezeExcitation(C, ratio=1 / 4)), torch.randn(2, C, 4, 6)
    squeezed: Tensor = x.mean(dim=(2, 3))
    hidden = (squeezed @ block.scale.reduce.weight.T + block.scale.reduce.bias).relu()
    gate = (hidden @ block.scale.expand.weight.T + block.scale.expand.bias).sigmoid()
    torch.testing.assert_close(block(x), x * gate[:, :, None, None])
    assert [n for n, _ in block.named_parameters()] == [
        f"scale.{layer}.{part}" for layer in ("reduce", "expand") for part in ("weight", "bias")
    ]


def test_a_block_needs_a_fusion() -> None:
    with pytest.raises(ValueError, match="add, scale or both"):
        ContextBlock(AveragePool())


@pytest.mark.parametrize("make", [SqueezeExcitation, NonLocal])
@pytest.mark.parametrize("ratio", [1 / 64, 2.0])
def test_impossible_ratios_are_refused(make: Callable[..., ContextBlock], ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        make(32, ratio=ratio)
