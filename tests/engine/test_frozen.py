"""Stages that are not trained, and the backbone's own rate."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import FakeDetector, run_fake
from torch import nn

from gcnet.engine.frozen import describe_frozen, freeze
from gcnet.engine.schedule import make_optimizer
from gcnet.errors import GCNetError
from gcnet.models.backbone import LibraryBackbone
from gcnet.models.detector import Detector
from gcnet.models.resnet import ResNet
from gcnet.models.spec import LibrarySpec, ModelSpec
from gcnet.recipe import Recipe
from gcnet.weights.catalog import find_detector

TINY = replace(find_detector("mask_rcnn_tiny_gc4").spec, class_names=("a", "b"))
PUBLISHED = replace(TINY, backbone=replace(TINY.backbone, frozen_stages=2, norm="frozen_stats"))
STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")


def trained_stages(model: Any, names: tuple[str, ...]) -> list[bool]:
    """Of each stage, whether it gets a gradient; never only a part of it."""
    model.train().zero_grad()
    maps = model.neck(model.backbone(torch.randn(2, 3, 64, 96)))
    torch.stack([each.square().mean() for each in maps]).sum().backward()
    found = []
    for name in names:
        parameters = [
            p for key, p in model.backbone.named_parameters() if re.match(rf"(parts\.)?{name}\b", key)
        ]
        has = {p.grad is not None for p in parameters}
        assert len(has) == 1, name
        found.append(has.pop())
    return found


@pytest.mark.parametrize("spec", [TINY, PUBLISHED])
@pytest.mark.parametrize(
    ("until", "count"), [("none", 0), ("stem", 1), ("c2", 2), ("c3", 3), ("c4", 4), ("backbone", 5)]
)
def test_stages_of_our_backbone(spec: ModelSpec, until: str, count: int) -> None:
    model = Detector(spec)
    own = spec.backbone.frozen_stages
    assert trained_stages(model, STAGES) == [n >= own for n in range(5)]
    freeze(model, "own")
    assert model.backbone.frozen_stages == own
    freeze(model, until)
    assert trained_stages(model, STAGES) == [n >= count for n in range(5)]
    norms = {name: m.training for name, m in model.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, training in norms.items():
        stage = 0 if name == "bn1" else int(name[5])
        assert training == (spec is TINY and stage >= count)


@pytest.mark.parametrize(
    ("library", "name", "stages"),
    [
        ("torchvision", "resnet18", STAGES),
        ("timm", "test_convnext", ("stem_0", "stages_0", "stages_1", "stages_2", "stages_3")),
    ],
)
def test_stages_of_a_network_of_a_library(library: Any, name: str, stages: tuple[str, ...]) -> None:
    pytest.importorskip(library)
    model = Detector(replace(TINY, backbone=LibrarySpec(library, name)))
    backbone = model.backbone
    assert isinstance(backbone, LibraryBackbone)
    assert [module for stage in backbone.stages() for module in stage] == list(backbone.parts.values())
    assert trained_stages(model, stages) == [True] * 5
    freeze(model, "c2")
    assert trained_stages(model, stages) == [False, False, True, True, True]
    assert [part.training for part in backbone.parts.values()].count(False) == sum(
        map(len, backbone.stages()[:2])
    )
    freeze(model, "none")
    assert trained_stages(model, stages) == [True] * 5


def test_what_is_frozen_is_said() -> None:
    model = Detector(PUBLISHED)
    assert re.fullmatch(
        r"frozen: the stem and c2 \(0\.0 of 1\.\d M parameters\); the statistics of the backbone's norm",
        describe_frozen(model),
    )
    freeze(model, "backbone")
    assert describe_frozen(model).startswith("frozen: the backbone (0.")
    freeze(model, "c3")
    assert describe_frozen(model).startswith("frozen: the stem and c2 and c3 (")
    assert describe_frozen(Detector(TINY)) == "frozen: no layer"
    with pytest.raises(GCNetError, match=r"freeze is c2, but Conv2d has no stages\(\)"):
        freeze(Detector(TINY, backbone=with_channels(nn.Conv2d(3, 4, 1))), "c2")


def with_channels(backbone: Any) -> nn.Module:
    backbone.out_channels = [4, 4, 4, 4]
    return backbone


def test_the_backbone_has_a_rate_of_its_own() -> None:
    model = Detector(TINY)
    plain = make_optimizer(model, Recipe())
    both = make_optimizer(model, Recipe(backbone_lr=0.1))
    assert [len(group["params"]) for group in plain.param_groups] == [len(list(model.parameters()))]
    ids = [id(p) for group in both.param_groups for p in group["params"]]
    assert ids == [id(p) for p in model.parameters()]  # moments keep their numbers
    assert [group["share"] for group in both.param_groups] == [0.1, 1.0]
    assert {id(p) for p in both.param_groups[0]["params"]} == {id(p) for p in model.backbone.parameters()}
    freeze(model, "backbone")
    assert [group["share"] for group in make_optimizer(model, Recipe(backbone_lr=0.1)).param_groups] == [1.0]


def test_a_step_moves_the_backbone_by_its_share(tmp_path: Path) -> None:
    moved = []
    for share in (1.0, 0.25):
        detector = WithBackbone()
        before = detector.backbone.weight.detach().clone()
        after = detector.layer.weight.detach().clone()
        run_fake(
            tmp_path / str(share),
            detector=detector,
            epochs=1,
            backbone_lr=share,
            momentum=0.0,
            weight_decay=0.0,
        )
        moved.append((detector.backbone.weight.detach() - before, detector.layer.weight.detach() - after))
    (backbone, layer), (slower, same) = moved
    torch.testing.assert_close(slower, backbone * 0.25)
    torch.testing.assert_close(same, layer)


class WithBackbone(FakeDetector):
    """Its backbone gets the same gradient in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)

    def losses(self, batch: Any, targets: Any) -> dict[str, torch.Tensor]:
        return super().losses(batch, targets) | {"loss_mask": self.backbone.weight.sum()}


def test_a_run_is_resumed_with_the_same_stages(tmp_path: Path) -> None:
    run_fake(tmp_path, epochs=1)
    with pytest.raises(GCNetError, match="it was trained with freeze own, not c2; keep the recipe"):
        run_fake(tmp_path, resume=True, freeze="c2")


def test_our_backbone_has_five_stages() -> None:
    backbone = ResNet(TINY.backbone)
    modules = {id(m) for stage in backbone.stages() for part in stage for m in part.modules()}
    with_weights = [m for m in backbone.modules() if list(m.parameters(recurse=False))]
    assert all(id(m) in modules for m in with_weights)
