"""relu(z + shortcut + shift) and its gradients."""

from __future__ import annotations

import pytest
import torch

from gcnet.models.light import add_relu_


def plain(z, shortcut, shift=None):
    out = z + shortcut
    return (out if shift is None else out + shift[:, :, None, None]).relu()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_gradients(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    z, shortcut = (torch.randn(2, 3, 4, 5).double().contiguous(memory_format=layout) for _ in range(2))
    inputs = [t.requires_grad_() for t in (z, shortcut, torch.randn(2, 3).double())]
    for some in (inputs, inputs[:2]):
        assert torch.autograd.gradcheck(lambda z, *rest: add_relu_(z.clone(), *rest), some)
        assert torch.autograd.gradgradcheck(lambda z, *rest: add_relu_(z.clone(), *rest), some)


def test_in_place_and_only_the_result_is_kept() -> None:
    z, shortcut, shift = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5), torch.randn(2, 3)
    expected = plain(z, shortcut, shift)
    leaf, kept = z.clone().requires_grad_(), []
    z = leaf.clone()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = add_relu_(z, shortcut.requires_grad_(), shift.requires_grad_())
    assert out.data_ptr() == z.data_ptr()
    assert [t.data_ptr() for t in kept] == [out.data_ptr()]
    torch.testing.assert_close(out, expected)


def test_half_precision_sums_in_float32() -> None:
    z, shift = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16), torch.zeros(1, 1, dtype=torch.bfloat16)
    out = add_relu_(z, torch.zeros_like(z), shift.requires_grad_())
    out.sum().backward()
    assert shift.grad is not None
    assert shift.grad.item() == 64 * 64


def test_gradients_of_frozen_inputs_are_left_out() -> None:
    z, shortcut = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3, requires_grad=True)
    add_relu_(z, shortcut, torch.zeros(1, 2)).sum().backward()
    torch.testing.assert_close(shortcut.grad, (z > 0).float())
