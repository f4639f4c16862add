"""Activations that are computed again: the same numbers from less memory."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gcnet.lab.subjects import random_batch, random_targets
from gcnet.models.detector import Detector
from gcnet.models.modes import eval_mode, recompute_activations
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


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_after_an_error(training: bool) -> None:
    model = nn.Linear(1, 1).train(training)
    modes = []

    def fail() -> None:
        with eval_mode(model):
            modes.append(model.training)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert modes == [False]
    assert model.training == training
