"""The context block equals mmcv's `ContextBlock` in every mode, forward and backward."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gcnet.context import GlobalContext
from gcnet.models.weights import fill_weights
from gcnet.zoo.mmdet_keys import mmdet_key

# Opened while tests are collected: its names are the parameters.
ARRAYS = np.load(Path(__file__).parent / "blocks.npz")
CONSTRUCTORS = json.loads(str(ARRAYS["constructors"]))
POOLING = {"att": "attention", "avg": "average"}
FUSION = {"channel_add": "add", "channel_mul": "scale"}
RELATIVE = 1e-5


def build(name: str) -> tuple[GlobalContext, dict[str, str]]:
    """The block with the reference's weights, and mmcv's name of each of its parameters."""
    theirs = CONSTRUCTORS[name]
    block = GlobalContext(
        theirs["in_channels"],
        ratio=theirs["ratio"],
        pooling=POOLING[theirs["pooling_type"]],
        fusion=[FUSION[fusion] for fusion in theirs["fusion_types"]],
    )
    prefix = "backbone.layer2.0."
    names = {own: mmdet_key(f"{prefix}context.{own}") for own in block.state_dict()}
    names = {own: key.removeprefix(f"{prefix}context_block.") for own, key in names.items()}
    stored = {file.split("/w/")[1] for file in ARRAYS.files if file.startswith(f"{name}/w/")}
    assert set(names.values()) == stored
    fill_weights(block, {own: array(f"{name}/w/{key}") for own, key in names.items()}, source=name)
    return block, names


def array(key: str) -> Tensor:
    return torch.from_numpy(ARRAYS[key])


def assert_sampled(tensor: Tensor, key: str) -> None:
    """`tensor` has the stored values at the stored places, and the stored norm."""
    found = tensor.detach().contiguous().flatten()[array(f"{key}.idx").long()]
    torch.testing.assert_close(found, array(f"{key}.val"), rtol=RELATIVE, atol=1e-5)
    assert tensor.detach().double().norm().item() == pytest.approx(float(ARRAYS[f"{key}.norm"]), rel=RELATIVE)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_block_equals_the_reference(name: str, layout: torch.memory_format) -> None:
    block, names = build(name)
    x = array(f"{name}/x").contiguous(memory_format=layout).requires_grad_()
    y = block(x)
    assert_sampled(y, f"{name}/y")
    y.backward(array(f"{name}/g"))
    assert x.grad is not None
    assert_sampled(x.grad, f"{name}/dx")
    for own, parameter in block.named_parameters():
        if own == "pool.bias":  # zero in theory: a softmax does not see a shift
            continue
        assert parameter.grad is not None
        theirs = array(f"{name}/dw/{names[own]}").reshape(parameter.shape)
        torch.testing.assert_close(parameter.grad, theirs, rtol=1e-4, atol=2e-5 * float(theirs.abs().max()))


def test_every_mode_is_covered() -> None:
    modes = {(c["ratio"], c["pooling_type"], tuple(c["fusion_types"])) for c in CONSTRUCTORS.values()}
    assert len(modes) == 2 * 2 * 3
    assert {tuple(ARRAYS[f"{name}/x"].shape) for name in CONSTRUCTORS} == {(2, 64, 9, 13), (1, 64, 1, 1)}


def test_comparison_can_fail() -> None:
    name = "r4_att_add+mul_2x64x9x13"
    block, _ = build(name)
    with torch.no_grad():
        next(block.parameters())[0] += 1e-3
    with pytest.raises(AssertionError):
        assert_sampled(block(array(f"{name}/x")), f"{name}/y")
