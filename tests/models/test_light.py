"""Residual blocks in training: the same numbers as layer by layer, from less that is kept."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from gcnet.context import GlobalContext, SimplifiedNonLocal, SqueezeExcitation, record
from gcnet.lab.subjects import saved_bytes
from gcnet.models import light
from gcnet.models.resnet import ResidualBlock, ResNet
from gcnet.models.spec import Norm
from lively import lively_resnet

BLOCKS: dict[str, Callable[[int], nn.Module] | None] = {
    "none": None,
    "gc": lambda c: GlobalContext(c, ratio=1 / 4),
    "gc average": lambda c: GlobalContext(c, ratio=1 / 4, pooling="average"),
    "snl": SimplifiedNonLocal,
}


def small_resnet(block: str = "gc", **kwargs) -> ResNet:
    return lively_resnet(BLOCKS[block], **kwargs).train()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_tracers_and_directional_derivatives_see_the_layers() -> None:
    resnet, picture = small_resnet().eval(), torch.randn(1, 3, 64, 64)
    for traced, plain in zip(torch.jit.trace(resnet, (picture,))(picture), resnet(picture), strict=True):
        torch.testing.assert_close(traced, plain, rtol=1e-4, atol=1e-4)
    value, _ = torch.func.jvp(lambda x: resnet(x)[-1], (picture,), (torch.ones_like(picture),))
    torch.testing.assert_close(value, resnet(picture)[-1], rtol=1e-4, atol=1e-4)


def light_blocks(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> int:
    """How many blocks took the light path in `run`."""
    calls, forward = [], light.run
    monkeypatch.setattr(light, "run", lambda block, x: calls.append(1) or forward(block, x))
    run()
    return len(calls)


def step(resnet: ResNet, picture: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Maps and gradients."""
    resnet.zero_grad()
    maps = resnet(picture)
    torch.stack([m.square().mean() for m in maps]).sum().backward()
    gradients = {name: p.grad.clone() for name, p in resnet.named_parameters() if p.grad is not None}
    return [m.detach() for m in maps], gradients


def assert_same(ours, plain, tolerance: float) -> None:
    for a, b in zip(ours[0], plain[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.abs().max()))
    assert ours[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        scale = float(gradient.abs().max()) if not name.endswith("pool.bias") else 1.0
        torch.testing.assert_close(ours[1][name], gradient, rtol=0, atol=tolerance * scale, msg=name)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("norm", ["frozen_stats", "batch", "sync"])
@pytest.mark.parametrize("block", BLOCKS)
def test_same_step(block: str, norm: Norm, layout: torch.memory_format, monkeypatch) -> None:
    resnet = small_resnet(block, norm=norm).double()
    if norm == "sync":
        resnet = nn.SyncBatchNorm.convert_sync_batchnorm(resnet).train()
    resnet = resnet.to(memory_format=layout)
    picture = torch.randn(2, 3, 64, 96).double().contiguous(memory_format=layout)
    other = copy.deepcopy(resnet)
    ours = step(resnet, picture)
    assert light_blocks(monkeypatch, lambda: copy.deepcopy(resnet)(picture)) == 5
    monkeypatch.setattr(light, "can_run", lambda block, x: False)
    assert_same(ours, step(other, picture), 1e-9)
    for a, b in zip(resnet.buffers(), other.buffers(), strict=True):  # statistics and counts
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kwargs", [{"groups": 8}, {"deformable_stages": (False, True, True, True)}], ids=str)
def test_groups_and_deformable_convolutions(kwargs: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    resnet, picture = small_resnet(**kwargs).double(), torch.randn(1, 3, 64, 64).double()
    ours = step(resnet, picture)
    assert light_blocks(monkeypatch, lambda: resnet(picture)) == 5
    monkeypatch.setattr(light, "can_run", lambda block, x: False)
    assert_same(ours, step(resnet, picture), 1e-9)


def test_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    resnet, picture = small_resnet(), torch.randn(2, 3, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        ours = step(resnet, picture)
    assert all(m.dtype == torch.bfloat16 for m in ours[0])
    exact = step(resnet, picture)
    for name, gradient in exact[1].items():
        if not name.endswith("pool.bias"):
            error = float((ours[1][name] - gradient).norm() / gradient.norm())
            assert error < 0.1, name


@pytest.mark.parametrize("norm", ["frozen_stats", "batch"])
def test_blocks_are_free_of_maps(norm: Norm) -> None:
    """A context block adds its parameters to what is kept, and a few vectors and attention maps."""
    kept, parameters = [], []
    for block in ("none", "gc"):
        resnet, picture = small_resnet(block, norm=norm), torch.randn(2, 3, 256, 384)
        kept.append(saved_bytes(lambda r=resnet, p=picture: torch.stack([m.sum() for m in r(p)]).sum()))
        parameters.append(4 * sum(p.numel() for p in resnet.parameters()))
    maps = kept[0] - parameters[0]
    assert maps > 2**23
    assert kept[1] - parameters[1] < 1.03 * maps


def test_where_blocks_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = torch.randn(1, 3, 64, 64)
    assert light_blocks(monkeypatch, lambda: torch.no_grad()(small_resnet())(picture)) == 0
    after_add = small_resnet(position="after_add")
    assert light_blocks(monkeypatch, lambda: after_add(picture)) == 1  # the one of the stage without context
    group = small_resnet(norm="group")  # takes the stage without context
    assert light_blocks(monkeypatch, lambda: group(picture)) == 1
    averaging = small_resnet(norm="batch")
    averaging.layer2[0].bn3.momentum = None
    assert light_blocks(monkeypatch, lambda: averaging(picture)) == 4


def test_who_looks_inside_is_served() -> None:
    """Hooks, recorded maps and parametrised layers take the ordinary path."""
    block, x = small_resnet().layer2[1], torch.randn(1, 128, 8, 8)
    assert isinstance(block, ResidualBlock)
    assert light.can_run(block, x)

    seen = []
    handle = block.bn3.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert not light.can_run(block, x)
    block(x)
    assert len(seen) == 1
    handle.remove()
    assert light.can_run(block, x)
    handle = block.conv2.register_full_backward_hook(lambda *_: None)
    assert not light.can_run(block, x)
    handle.remove()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not light.can_run(block, x)
    handle.remove()

    with record(block) as maps:
        assert not light.can_run(block, x)
        block(x)
    assert maps["context.pool"].shape == (1, 8, 8)
    block.context = SqueezeExcitation(128)
    assert not light.can_run(block, x)

    other = small_resnet("none").layer2[1]
    assert light.can_run(other, x)
    parametrize.register_parametrization(other.conv3, "weight", nn.Identity())
    assert not light.can_run(other, x)


def test_insertion_and_compilation() -> None:
    """Without the checks of arguments that tests run under: tracers do not see through them."""
    script = Path(__file__).with_name("check_light.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_copies_and_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    resnet, picture = small_resnet(), torch.randn(1, 3, 64, 64)
    plain = step(resnet, picture)
    assert_same(step(copy.deepcopy(resnet), picture), plain, 1e-5)
    for stage in (resnet.layer2, resnet.layer3):
        forward = type(stage).forward
        monkeypatch.setattr(
            stage, "forward", lambda x, s=stage, f=forward: checkpoint(f, s, x, use_reentrant=False)
        )
    assert_same(step(resnet, picture), plain, 1e-5)
