"""Attention pooling's own backward pass: the gradients of autograd, from fewer maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gcnet.context import AttentionPool
from gcnet.context.attend import attend, positions


def inputs(layout: str) -> list[Tensor]:
    torch.manual_seed(0)
    flat = torch.randn(2, 3, 5).double()
    if layout == "channels last":
        flat = torch.randn(2, 5, 3).double().transpose(1, 2)
    return [t.requires_grad_() for t in (flat, torch.randn(3).double(), torch.randn(1).double())]


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_gradients_and_their_gradients(layout: str) -> None:
    assert torch.autograd.gradcheck(attend, inputs(layout))
    assert torch.autograd.gradgradcheck(attend, inputs(layout))


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_gradient_has_the_layout_of_the_map(layout: str) -> None:
    arguments = inputs(layout)
    (gradient,) = torch.autograd.grad(attend(*arguments).square().sum(), arguments[:1])
    assert gradient.stride() == arguments[0].stride()


def test_transforms_of_torch_func() -> None:
    flat, weight, bias = (t.detach() for t in inputs("contiguous"))

    def energy(image: Tensor) -> Tensor:
        return attend(image[None], weight, bias).square().sum()

    ours = torch.func.vmap(torch.func.grad(energy))(flat)
    flat.requires_grad_()
    (whole,) = torch.autograd.grad(attend(flat, weight, bias).square().sum(), flat)
    torch.testing.assert_close(ours, whole)


def test_autocast() -> None:
    pool, x = AttentionPool(4), torch.randn(2, 4, 3, 3, requires_grad=True)
    (exact,) = torch.autograd.grad(pool(x).square().sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        out = pool(x.bfloat16()) + pool(x)
    (half,) = torch.autograd.grad((out.float() / 2).square().sum(), x)
    torch.testing.assert_close(half, exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("size", [(5,), (4, 5), (2, 4, 5)], ids=str)
@pytest.mark.parametrize("count", [1, 2])
def test_positions_are_a_view_that_products_read_in_place(count: int, size: tuple[int, ...]) -> None:
    x = torch.randn(count, *size, 3).movedim(-1, 1)  # channels last
    for given in (x, x.contiguous()):
        flat = positions(given)
        assert flat.equal(given.flatten(2))
        assert flat.data_ptr() == given.data_ptr()
        assert flat.stride(0) == flat[0].numel()  # a smaller one makes bmm copy
