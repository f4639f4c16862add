"""ImageNet weights: from a local file, or fetched. Nothing here leaves the machine."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import get_model

from gcnet.errors import GCNetError
from gcnet.models.backbone import make_backbone
from gcnet.models.resnet import ResNet
from gcnet.models.spec import ContextSpec, LibrarySpec, ResNetSpec
from gcnet.weights.backbones import read_backbone
from gcnet.weights.catalog import ROWS, Weights
from gcnet.weights.create import load_backbone
from gcnet.weights.imagenet import IMAGENET

# Small, but with the channels of the published ones.
SPEC = ResNetSpec(blocks=(1, 1, 1, 1), context=ContextSpec(ratio=1 / 4))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file named after its hash in a folder that plays the server."""
    torch.manual_seed(1)
    plain = ResNet(ResNetSpec(blocks=SPEC.blocks))
    state: dict[str, Tensor] = {
        **plain.state_dict(),
        "fc.weight": torch.zeros(1000, 2048),
        "fc.bias": torch.zeros(1000),
    }
    file = tmp_path / "resnet.pth"
    torch.save(state, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file = file.rename(tmp_path / f"resnet-{digest[:8]}.pth")
    monkeypatch.setitem(IMAGENET, (SPEC.blocks, 64, 1, 4), Weights(file.as_uri(), digest[:8]))
    return file


def fresh() -> ResNet:
    torch.manual_seed(2)
    return ResNet(SPEC)


def loaded(backbone: ResNet, file: Path) -> bool:
    state, own = torch.load(file), backbone.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items() if not name.startswith("fc."))


def test_from_a_local_file_blocks_stay(published: Path) -> None:
    backbone, before = fresh(), fresh().state_dict()
    load_backbone(backbone, SPEC, published)
    assert loaded(backbone, published)
    blocks = {name: value for name, value in backbone.state_dict().items() if ".context." in name}
    assert len(blocks) == 3 * 8
    assert all(torch.equal(value, before[name]) for name, value in blocks.items())


def test_deformable_stages_keep_their_offsets(published: Path) -> None:
    backbone = ResNet(replace(SPEC, deformable_stages=(False, True, False, False)))
    load_backbone(backbone, SPEC, published)
    assert loaded(backbone, published)
    assert not backbone.state_dict()["layer2.0.conv2.offset.weight"].any()


def test_resnext_does_not_get_the_file_of_a_resnet(published: Path) -> None:
    spec = replace(SPEC, groups=32)
    with pytest.raises(GCNetError, match="no published ImageNet weights"):
        load_backbone(ResNet(spec), spec)


def test_fetched_into_the_cache(published: Path, home: Path) -> None:
    backbone = fresh()
    load_backbone(backbone, SPEC)
    assert loaded(backbone, published)
    cached = home / "weights" / published.name
    assert cached.is_file()
    published.rename(published.with_name("gone"))
    load_backbone(fresh(), SPEC)
    cached.write_bytes(cached.read_bytes()[:-10])
    with pytest.raises(GCNetError, match="is not the published file"):
        load_backbone(fresh(), SPEC)


def test_mirrors_are_asked(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    moved = published.rename(mirror / published.name)
    with pytest.raises(GCNetError, match=f"get .*{published.name} by hand"):
        load_backbone(fresh(), SPEC)
    backbone = fresh()
    monkeypatch.setenv("GCNET_MIRRORS", str(mirror))
    load_backbone(backbone, SPEC)
    assert loaded(backbone, moved)


def test_a_classifier_by_another_name_and_a_wrapper(tmp_path: Path) -> None:
    """As in the ResNeXt file, which came by way of other projects."""
    spec = replace(SPEC, groups=32)
    torch.manual_seed(3)
    state = ResNet(ResNetSpec(blocks=SPEC.blocks, groups=32)).state_dict()
    wrapped = {"state_dict": state | {"last_linear.weight": torch.zeros(10, 2048)}}
    torch.save(wrapped, tmp_path / "x.pth")
    backbone = ResNet(spec)
    load_backbone(backbone, spec, tmp_path / "x.pth")
    assert torch.equal(backbone.state_dict()["layer4.0.conv2.weight"], state["layer4.0.conv2.weight"])


def test_file_of_another_network(published: Path, tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "vgg.pth")
    with pytest.raises(GCNetError, match=r"vgg\.pth holds no ResNet"):
        load_backbone(fresh(), SPEC, tmp_path / "vgg.pth")


def test_names_are_torchvision_s() -> None:
    from torchvision.models import resnet50

    with torch.device("meta"):
        theirs = {name for name in resnet50().state_dict() if not name.startswith("fc.")}
        ours = set(ResNet(ResNetSpec()).state_dict())
    assert ours == theirs


PUBLISHED = [one for weights in IMAGENET.values() for one in (weights, *weights.alternatives)]


@pytest.mark.parametrize("weights", PUBLISHED, ids=lambda weights: weights.url)
def test_published_names_carry_the_hash_or_it_is_whole(weights: Weights) -> None:
    assert weights.url.startswith("https://")
    assert weights.file.endswith(f"-{weights.sha256}.pth") or len(weights.sha256) == 64
    assert len(weights.sha256) in (8, 64)
    int(weights.sha256, 16)


def test_every_published_row_has_a_backbone_to_start_from() -> None:
    published = [row.spec.backbone for row in ROWS if row.upstream]
    assert {(b.blocks, b.base_channels, b.groups, b.group_width) for b in published} == set(IMAGENET)


def mmpretrain(name: str) -> str:
    return f"head.{name}" if name.startswith("fc.") else f"backbone.{name}"


def transformers(name: str) -> str:
    name = re.sub(r"^conv1\.", "embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "embedder.embedder.normalization.", name)
    for kind, part in (("0", "convolution"), ("1", "normalization")):
        name = re.sub(rf"^(layer.\.\d)\.downsample\.{kind}\.", rf"\1.shortcut.{part}.", name)
    for kind, part in (("conv", "convolution"), ("bn", "normalization")):
        name = re.sub(
            rf"^(layer.\.\d)\.{kind}(\d)\.", lambda m, p=part: f"{m[1]}.layer.{int(m[2]) - 1}.{p}.", name
        )
    name = re.sub(r"^layer(\d)\.(\d)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", name)
    return name.replace("fc.", "classifier.1.") if name.startswith("fc.") else f"resnet.{name}"


SPELLINGS: dict[str, Callable[[str], str]] = {
    "torchvision": str,
    "mmpretrain": mmpretrain,
    "moco": lambda name: f"module.encoder_q.{name}",
    "moco v3": lambda name: f"module.base_encoder.{name}",
    "transformers": transformers,
    "transformers' base": lambda name: transformers(name).removeprefix("resnet."),
}


@pytest.mark.parametrize("kind", SPELLINGS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_resnet_of_any_library(kind: str, suffix: str, published: Path, tmp_path: Path) -> None:
    spelt = {SPELLINGS[kind](name): tensor for name, tensor in torch.load(published).items()}
    spelt |= {"module.queue": torch.zeros(2), "module.encoder_k.conv1.weight": torch.zeros(2)}
    path = tmp_path / f"x{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": spelt, "arch": "resnet50"}, path)
    else:
        save_file(spelt, path)
    found, line = read_backbone(path, SPEC)
    assert found.keys() == ResNet(ResNetSpec(blocks=SPEC.blocks)).state_dict().keys()
    assert "; left over: 4 (" in line
    load_backbone(backbone := fresh(), SPEC, path)
    assert loaded(backbone, published)


def test_the_teacher_of_dino(published: Path, tmp_path: Path) -> None:
    teacher = {f"module.backbone.{n}": t for n, t in torch.load(published).items() if n[:3] != "fc."}
    student = {name: torch.zeros_like(tensor) for name, tensor in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "args": argparse.Namespace()}, tmp_path / "x.pth")
    load_backbone(backbone := fresh(), SPEC, tmp_path / "x.pth")
    assert torch.equal(backbone.conv1.weight, teacher["module.backbone.conv1.weight"])


def test_no_resnet(tmp_path: Path) -> None:
    torch.save({"patch_embed.proj.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(GCNetError, match=r"no ResNet under names that are known: patch_embed"):
        read_backbone(tmp_path / "x.pth", SPEC)


@pytest.mark.parametrize(("library", "name"), [("timm", "test_convnext"), ("torchvision", "resnet18")])
def test_a_network_of_a_library_takes_its_own_files(library: Any, name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(1)
    network = timm.create_model(name) if library == "timm" else get_model(name)
    theirs = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": theirs}, tmp_path / "x.pth")
    spec = LibrarySpec(library, name, ContextSpec(ratio=1 / 4))
    found, line = read_backbone(tmp_path / "x.pth", spec)
    assert f"{len(found)} tensors of {library}'s {name}, " in line
    assert "; left over: " in line
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        backbone = make_backbone(spec).eval()
        load_backbone(backbone, spec, tmp_path / "x.pth")
        plain = make_backbone(replace(spec, context=None)).eval()
        load_backbone(plain, replace(spec, context=None), tmp_path / "x.pth")
        assert torch.allclose(backbone(images)[-1], plain(images)[-1])  # new blocks change nothing
        features = network.eval().forward_features(images) if library == "timm" else None
        assert features is None or torch.allclose(plain(images)[-1], features, atol=1e-5)
    torch.save({"other.weight": torch.zeros(1)}, tmp_path / "y.pth")
    with pytest.raises(GCNetError, match=f"no {library}'s {name} under names that are known"):
        read_backbone(tmp_path / "y.pth", spec)


def test_further_blocks_are_new_too(published: Path) -> None:
    """Those after the first one of a residual block have names with a number."""
    second = ContextSpec(ratio=1 / 8, position="after_conv2")
    backbone = ResNet(replace(SPEC, more_context=(second,)))
    load_backbone(backbone, replace(SPEC, more_context=(second,)), published)
    assert loaded(backbone, published)
