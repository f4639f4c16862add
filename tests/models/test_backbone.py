"""Networks of other libraries as backbones: trained, saved, loaded, and with blocks where they belong."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gcnet.context import GlobalContext
from gcnet.errors import GCNetError
from gcnet.models.backbone import LibraryBackbone
from gcnet.models.detector import Detector
from gcnet.models.spec import ContextSpec, LibrarySpec, ModelSpec
from gcnet.types import Batch, Targets
from gcnet.weights.catalog import find_detector
from gcnet.weights.files import save_model
from gcnet.weights.load import load_model

GC4 = ContextSpec(ratio=1 / 4)


def tiny(backbone: LibrarySpec) -> ModelSpec:
    return replace(find_detector("mask_rcnn_tiny").spec, class_names=("a", "b"), backbone=backbone)


def places(module: nn.Module) -> list[str]:
    return [name for name, each in module.named_modules() if isinstance(each, GlobalContext)]


@pytest.mark.parametrize(
    ("library", "name", "blocks"),
    [
        ("timm", "test_convnext", ["stages_1.blocks", "stages_2.blocks", "stages_3.blocks"]),
        ("torchvision", "resnet18", ["layer2", "layer3", "layer4"]),
    ],
)
def test_maps_and_blocks(library: Any, name: str, blocks: list[str]) -> None:
    backbone = LibraryBackbone(LibrarySpec(library, name, GC4)).eval()
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [m.shape[1] for m in maps] == backbone.out_channels
    assert sorted({place.rsplit(".", 2)[0].removeprefix("parts.") for place in places(backbone)}) == blocks
    plain = LibraryBackbone(LibrarySpec(library, name))
    assert not places(plain)
    missing, unexpected = backbone.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(".context." in key for key in missing)


@pytest.mark.slow
def test_maps_with_channels_last() -> None:
    maps = LibraryBackbone(LibrarySpec("torchvision", "swin_t"))(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 16, 24), (192, 8, 12), (384, 4, 6), (768, 2, 3)]


def test_maps_are_the_library_s_own() -> None:
    import timm

    torch.manual_seed(0)
    backbone = LibraryBackbone(LibrarySpec("timm", "test_resnet")).eval()
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", features_only=True).eval()
    x = torch.randn(1, 3, 64, 96)
    for ours, own in zip(backbone(x), theirs(x)[-4:], strict=True):
        assert torch.equal(ours, own)


def test_a_detector_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = tiny(LibrarySpec("timm", "test_convnext", GC4))
    detector = Detector(spec).train()
    images = torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8)
    batch = Batch(images, [(96, 128)], [(96, 128)], [0])
    square = [[torch.tensor([[20.0, 10], [80, 10], [80, 70], [20, 70]]).double().numpy()]]
    targets = [Targets(torch.tensor([[20.0, 10, 80, 70]]), torch.tensor([1]), square)]
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    seen = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = torch.stack(list(detector.losses(batch, targets).values())).sum()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < seen[0]
    assert all(p.grad is not None for p in detector.parameters())
    assert all(detector.get_submodule(place).add.expand.weight.any() for place in places(detector))

    save_model(detector, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.spec == spec
    ours, theirs = (model.eval().predict(batch, score_threshold=0.0)[0] for model in (detector, again))
    assert len(ours) > 0
    assert torch.equal(ours.boxes, theirs.boxes)
    fast = detector.optimize().predict(batch, score_threshold=0.0)[0]
    torch.testing.assert_close(fast.scores[:20], ours.scores[:20], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("library", "name", "words"),
    [
        ("timm", "convnext_tinny", "timm has no network convnext_tinny"),
        ("torchvision", "resnet19", "torchvision has no network resnet19"),
        ("timm", "vit_tiny_patch16_224", "no maps at strides 4, 8, 16 and 32"),
    ],
)
def test_what_is_no_backbone_is_refused(library: Any, name: str, words: str) -> None:
    with pytest.raises(GCNetError, match=words):
        LibraryBackbone(LibrarySpec(library, name))


def test_context_blocks_that_a_network_cannot_have_are_refused() -> None:
    with pytest.raises(GCNetError, match="shufflenet_v2_x0_5 has no residual blocks there"):
        LibraryBackbone(LibrarySpec("torchvision", "shufflenet_v2_x0_5", GC4))
    with pytest.raises(GCNetError, match="resnet18 context blocks are in all residual blocks"):
        LibraryBackbone(LibrarySpec("torchvision", "resnet18", replace(GC4, only=((), (0,), (), ()))))


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_timm(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "timm":
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_timm)
    with pytest.raises(GCNetError, match=r"pip install 'gcnet\[timm\]'"):
        LibraryBackbone(LibrarySpec("timm", "test_resnet"))


def test_one_s_own_backbone() -> None:
    """Any module that gives four maps and says how wide they are."""

    class Pyramid(nn.Module):
        out_channels = (3, 3, 3, 3)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [nn.functional.avg_pool2d(x, stride) for stride in (4, 8, 16, 32)]

    detector = Detector(find_detector("mask_rcnn_tiny").spec, backbone=Pyramid()).eval()
    size = [(64, 96)]
    detector.predict(Batch(torch.zeros(1, 3, 64, 96, dtype=torch.uint8), size, size, [0]))
    assert detector.neck.lateral[0].in_channels == 3


@pytest.mark.slow
def test_the_catalog_s_row() -> None:
    row = find_detector("mask_rcnn_convnext_tiny_gc4")
    detector = Detector(row.spec).eval()
    assert len(places(detector)) == 3 + 9 + 3
    detector.predict_images(torch.zeros(64, 96, 3, dtype=torch.uint8).numpy())
