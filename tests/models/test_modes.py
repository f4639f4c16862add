"""Activations that are computed again: the same numbers from less memory."""

from __future__ import annotations

import copy
import operator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gcnet.lab.subjects import random_batch, random_targets
from gcnet.models.detector import Detector
from gcnet.models.modes import in_eval_mode, recompute_activations
from gcnet.models.spec import Norm
from gcnet.weights.catalog import find_detector

SIZE = (96, 128)


def step(model: Detector) -> dict[str, Tensor]:
    """Losses, gradients and everything in the model's state after a step."""
    torch.manual_seed(1)
    batch, targets = random_batch(2, SIZE), random_targets(2, SIZE, 3)
    losses = model.losses(batch, targets)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {f"d {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return losses | gradients | model.state_dict()


def tiny(norm: Norm = "frozen_stats") -> Detector:
    torch.manual_seed(0)
    spec = find_detector("mask_rcnn_tiny_gc16").spec
    return Detector(replace(spec, backbone=replace(spec.backbone, norm=norm))).train()


@pytest.mark.parametrize("norm", ["frozen_stats", "batch"])
def test_a_step_is_the_same_to_the_bit(norm: Norm) -> None:
    model = tiny(norm)
    again = copy.deepcopy(model)
    expected = step(model)
    with recompute_activations(again):
        found = step(again)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def test_blocks_are_computed_twice_and_only_in_training() -> None:
    model = tiny()
    calls: list[nn.Module] = []
    model.backbone.layer4[0].conv1.register_forward_hook(lambda *_: calls.append(model))  # type: ignore[index]
    with recompute_activations(model):
        step(model)
        assert len(calls) == 2
        with torch.no_grad():
            model.features(random_batch(1, SIZE))
        assert len(calls) == 3
    step(model)
    assert len(calls) == 4


def test_a_copy_is_its_own() -> None:
    model = tiny().eval()
    batch = random_batch(1, SIZE)
    with recompute_activations(model), torch.no_grad():
        twin = copy.deepcopy(model)
        for parameter in twin.backbone.parameters():
            parameter.zero_()
        assert not torch.equal(twin.features(batch)[0], model.features(batch)[0])


def test_inference_is_a_pure_function_of_the_weights() -> None:
    model = tiny("batch")
    model.roi_heads.eval()  # some parts are in one mode, some in the other
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images = list(torch.randint(0, 256, (6, 48, 64, 3), dtype=torch.uint8).numpy())
    expected = copy.deepcopy(model).eval().predict_images(images, score_threshold=0.0)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: model.predict_images(one, score_threshold=0.0)[0], images))
    for ours, alone in zip(found, expected, strict=True):
        assert len(ours) > 0
        assert ours.boxes.equal(alone.boxes)
        assert ours.scores.equal(alone.scores)
        assert ours.mask_probs.equal(alone.mask_probs)
    assert [module.training for module in model.modules()] == modes
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())


def test_the_twin_in_eval_mode_has_the_weights_and_hooks_of_the_model() -> None:
    model = tiny()
    calls: list[nn.Module] = []
    model.backbone.layer4[0].register_forward_hook(lambda *_: calls.append(model))  # type: ignore[index]
    twin = in_eval_mode(model)
    assert twin is not model
    assert all(map(operator.is_, twin.parameters(), model.parameters()))
    assert all(map(operator.is_, twin.buffers(), model.buffers()))
    twin.predict(random_batch(1, SIZE))
    assert len(calls) == 1
    assert in_eval_mode(twin) is twin
