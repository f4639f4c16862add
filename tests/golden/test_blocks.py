"""Context blocks equal mmcv's `ContextBlock` and `NonLocal2d` in every mode, forward and backward."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gcnet.context import ContextBlock, GlobalContext, NonLocal
from gcnet.weights.files import fill_weights
from gcnet.weights.mmdet_keys import mmdet_key

# Opened while tests are collected: its names are the parameters.
ARRAYS = np.load(Path(__file__).parent / "blocks.npz")
CASES = json.loads(str(ARRAYS["cases"]))
POOLING = {"att": "attention", "avg": "average"}
FUSION = {"channel_add": "add", "channel_mul": "scale"}
NON_LOCAL = {
    r"^(g|theta|phi|concat_project|conv_out)(\.0)?\.conv\.": r"\1.",  # ".0": in front of its max-pooling
    r"^g\.": "pool.value.",
    r"^theta\.": "pool.query.",
    r"^phi\.": "pool.key.",
    r"^concat_project\.": "pool.match.",
    r"^conv_out\.bn\.": "add.norm.",
    r"^conv_out\.": "add.linear.",
}
# Of the root mean square of a tensor. Against float64 the reference itself is off by up to 4e-6 (norms, where
# terms of a sum cancel), and so is this package.
TOLERANCE = 2e-5


def drawn(key: str, shape: list[int]) -> Tensor:
    """The reference's inputs and weights: float32 normal numbers from the name, scaled by what they are."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    normal = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)
    if key.endswith(("/x", "/grad")):
        return torch.from_numpy(normal)
    if key.endswith("running_var"):
        return torch.from_numpy(np.float32(0.5) + np.abs(normal))
    if key.endswith(("bias", "running_mean")):
        return torch.from_numpy(normal * np.float32(0.1))
    if key.endswith(("_conv.1.weight", "bn.weight")):
        return torch.from_numpy(1 + np.float32(0.3) * normal)
    return torch.from_numpy(normal / np.float32(math.sqrt(math.prod(shape[1:]))))


def build(name: str) -> tuple[ContextBlock, dict[str, str]]:
    """The block with the reference's weights, and our name of each of them by mmcv's."""
    block, names = _empty(name)
    assert set(names.values()) == set(block.state_dict())
    counter = "conv_out.bn.num_batches_tracked"
    weights = {key: shape for key, shape in CASES[name]["weights"].items() if key != counter}
    state = {names[key]: drawn(f"{name}/{key}", shape) for key, shape in weights.items()}
    if counter in names:
        state[names[counter]] = torch.tensor(0)
    fill_weights(block, state, source=name)
    return block.eval(), names


def _empty(name: str) -> tuple[ContextBlock, dict[str, str]]:
    theirs, keys = CASES[name]["arguments"], CASES[name]["weights"]
    if name.startswith("ContextBlock"):
        block = GlobalContext(
            theirs["in_channels"],
            ratio=theirs["ratio"],
            pooling=POOLING[theirs["pooling_type"]],
            fusion=[FUSION[fusion] for fusion in theirs["fusion_types"]],
        )
        prefix = "backbone.layer2.0."
        names = {own: mmdet_key(f"{prefix}context.{own}") for own in block.state_dict()}
        return block, {key.removeprefix(f"{prefix}context_block."): own for own, key in names.items()}
    block = NonLocal(
        theirs["in_channels"],
        ratio=1 / theirs.get("reduction", 2),
        mode=theirs.get("mode", "embedded_gaussian"),
        use_scale=theirs["use_scale"],
        sub_sample=theirs.get("sub_sample", False),
        batch_norm="norm_cfg" in theirs,
    )
    return block, {key: _non_local_name(key) for key in keys}


def _non_local_name(key: str) -> str:
    for pattern, ours in NON_LOCAL.items():
        key = re.sub(pattern, ours, key)
    return key


def assert_sampled(tensor: Tensor, theirs: np.ndarray) -> None:
    """`tensor` has the stored values at the drawn places, and the stored norm, which comes last."""
    values = tensor.detach().contiguous().flatten()
    places = np.random.Generator(np.random.PCG64(7)).integers(0, len(values), len(theirs) - 1)
    norm = float(theirs[-1])
    rms = norm / math.sqrt(len(values))
    torch.testing.assert_close(
        values[torch.from_numpy(places)], torch.from_numpy(theirs[:-1]), rtol=TOLERANCE, atol=TOLERANCE * rms
    )
    assert values.double().norm().item() == pytest.approx(norm, rel=TOLERANCE / 2)


def shift(name: str, own: str) -> bool:
    """Whether `own` only shifts all scores of a softmax: its gradient is zero in theory, and noise here."""
    mode = CASES[name]["arguments"].get("mode", "embedded_gaussian")
    return own == "pool.bias" or (own == "pool.key.bias" and mode == "embedded_gaussian")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", CASES)
def test_block_equals_the_reference(name: str, layout: torch.memory_format) -> None:
    case, (block, names) = CASES[name], build(name)
    x = drawn(f"{name}/x", case["x"]).contiguous(memory_format=layout).requires_grad_()
    y = block(x)
    y.backward(drawn(f"{name}/grad", case["x"]))
    assert x.grad is not None
    parameters = dict(block.named_parameters())
    assert {names[key] for key in case["gradients"]} == set(parameters)
    theirs: Any = iter(ARRAYS[name])
    assert_sampled(y, next(theirs))
    assert_sampled(x.grad, next(theirs))
    for key, stored in zip(case["gradients"], theirs, strict=True):
        gradient = parameters[names[key]].grad
        assert gradient is not None
        if not shift(name, names[key]):
            assert_sampled(gradient, stored)


def test_every_mode_is_covered() -> None:
    arguments = {name: case["arguments"] for name, case in CASES.items()}
    context = [a for name, a in arguments.items() if name.startswith("ContextBlock")]
    assert len({(a["ratio"], a["pooling_type"], tuple(a["fusion_types"])) for a in context}) == 2 * 2 * 3
    plain = [a for name, a in arguments.items() if name.startswith("NonLocal2d") and "norm_cfg" not in a]
    keys = ("mode", "use_scale", "sub_sample", "reduction")
    assert len({tuple(a[key] for key in keys) for a in plain}) == 4 * 2 * 2 * 2
    assert "NonLocal2d/embedded_gaussian_bn" in arguments


@pytest.mark.parametrize(
    "name", ["ContextBlock/r4_att_add+mul_2x64x9x13", "NonLocal2d/concatenation_scale1_sub1_red2"]
)
def test_comparison_can_fail(name: str) -> None:
    block, _ = build(name)
    with torch.no_grad():
        next(block.parameters())[0] += 1e-3
    with pytest.raises(AssertionError):
        assert_sampled(block(drawn(f"{name}/x", CASES[name]["x"])), ARRAYS[name][0])
