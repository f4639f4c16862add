"""What needs gcnet as users have it: tracers do not see through the tests' checks of arguments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gcnet.context import AttentionPool, GlobalContext, insert
from gcnet.context.residual import residual_blocks
from gcnet.models import light
from gcnet.models.resnet import ResNet
from gcnet.models.spec import ContextSpec, ResNetSpec


def small_resnet(**kwargs) -> ResNet:
    torch.manual_seed(0)
    return ResNet(ResNetSpec(blocks=(1, 2, 1, 1), stem_channels=16, base_channels=16, **kwargs)).train()


def gradients(block: nn.Module, run: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(run(x).square().mean(), list(block.parameters()))


def check_compiled() -> None:
    block = small_resnet(context=ContextSpec(), zero_init_residual=False).layer2[0].double()
    x = torch.randn(2, 64, 8, 8).double()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    for ours, theirs in zip(gradients(block, compiled, x), gradients(block, block, x), strict=True):
        torch.testing.assert_close(ours, theirs)

    pool, x = AttentionPool(4), torch.randn(2, 4, 3, 3, requires_grad=True)
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True)
    ours, theirs = (torch.autograd.grad(run(x).square().sum(), x)[0] for run in (pool, compiled))
    torch.testing.assert_close(ours, theirs)


def check_insertion() -> None:
    resnet, picture = small_resnet(), torch.randn(1, 3, 64, 64)
    assert list(residual_blocks(resnet).values()) == ["bn3"] * 5
    names = insert(resnet, GlobalContext, where="layer2", name="added")
    resnet(picture)  # blocks get to their places when their holders first run
    block = resnet.layer2[1]
    assert not light.can_run(block, torch.zeros(1))
    assert light.can_run(resnet.layer3[0], torch.zeros(1))
    calls = []
    block.added.register_forward_hook(lambda *_: calls.append(1))
    resnet(picture)
    assert calls
    assert names == ["layer2.0.added", "layer2.1.added"]


if __name__ == "__main__":
    check_insertion()
    check_compiled()
