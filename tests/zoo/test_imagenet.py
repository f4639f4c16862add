"""ImageNet weights: checked, cached, or from a local file. Nothing here leaves the machine."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.models.build import build_backbone
from gcnet.models.resnet import ResNet
from gcnet.models.spec import ContextSpec, ResNetSpec
from gcnet.zoo import imagenet as module
from gcnet.zoo.imagenet import load_imagenet

# Small, but with the channels of the published ones.
SPEC = ResNetSpec(blocks=(1, 1, 1, 1), context=ContextSpec(ratio=1 / 4))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file named after its hash in a folder that plays the server; the cache is empty."""
    torch.manual_seed(1)
    plain = build_backbone(ResNetSpec(blocks=SPEC.blocks))
    state: dict[str, Tensor] = {
        **plain.state_dict(),
        "fc.weight": torch.zeros(1000, 2048),
        "fc.bias": torch.zeros(1000),
    }
    file = tmp_path / "resnet.pth"
    torch.save(state, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file = file.rename(tmp_path / f"resnet-{digest[:8]}.pth")
    monkeypatch.setattr(module, "_FILES", {SPEC.blocks: file.as_uri()})
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    return file


def fresh() -> ResNet:
    torch.manual_seed(2)
    return build_backbone(SPEC)


def loaded(backbone: ResNet, file: Path) -> bool:
    state, own = torch.load(file), backbone.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items() if not name.startswith("fc."))


def test_from_a_local_file_blocks_stay(published: Path) -> None:
    backbone, before = fresh(), fresh().state_dict()
    load_imagenet(backbone, SPEC, published)
    assert loaded(backbone, published)
    blocks = {name: value for name, value in backbone.state_dict().items() if ".context." in name}
    assert len(blocks) == 3 * 8
    assert all(torch.equal(value, before[name]) for name, value in blocks.items())


def test_deformable_stages_keep_their_offsets(published: Path) -> None:
    backbone = build_backbone(replace(SPEC, deformable_stages=(False, True, False, False)))
    load_imagenet(backbone, SPEC, published)
    assert loaded(backbone, published)
    assert not backbone.state_dict()["layer2.0.conv2.offset.weight"].any()


def test_resnext_does_not_get_the_file_of_a_resnet(published: Path) -> None:
    spec = replace(SPEC, groups=32)
    with pytest.raises(GCNetError, match="no published ImageNet weights"):
        load_imagenet(build_backbone(spec), spec)


def test_download_is_cached(published: Path, tmp_path: Path) -> None:
    backbone = fresh()
    load_imagenet(backbone, SPEC)
    assert loaded(backbone, published)
    cached = tmp_path / "cache" / "checkpoints" / published.name
    assert cached.is_file()
    published.rename(tmp_path / "gone")
    load_imagenet(fresh(), SPEC)


def test_damaged_cache_is_noticed(published: Path, tmp_path: Path) -> None:
    load_imagenet(fresh(), SPEC)
    cached = tmp_path / "cache" / "checkpoints" / published.name
    cached.write_bytes(cached.read_bytes()[:-10])
    with pytest.raises(GCNetError, match="is not the published file"):
        load_imagenet(fresh(), SPEC)


def test_wrong_download_is_not_kept(published: Path, tmp_path: Path) -> None:
    published.write_bytes(b"<html>gone</html>")
    with pytest.raises(GCNetError, match="could not fetch"):
        load_imagenet(fresh(), SPEC)
    assert not list((tmp_path / "cache").rglob("*.pth"))


def test_no_server(published: Path) -> None:
    published.unlink()
    with pytest.raises(GCNetError, match="get it by hand") as raised:
        load_imagenet(fresh(), SPEC)
    assert "\n" not in str(raised.value)


def test_file_of_another_network(published: Path, tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "vgg.pth")
    with pytest.raises(GCNetError, match=r"vgg\.pth does not fit"):
        load_imagenet(fresh(), SPEC, tmp_path / "vgg.pth")


def test_names_are_torchvision_s() -> None:
    from torchvision.models import resnet50

    with torch.device("meta"):
        theirs = {name for name in resnet50().state_dict() if not name.startswith("fc.")}
        ours = set(build_backbone(ResNetSpec()).state_dict())
    assert ours == theirs


@pytest.mark.parametrize("blocks", [(3, 4, 6, 3), (3, 4, 23, 3)])
def test_published_addresses_carry_a_hash(blocks: tuple[int, int, int, int]) -> None:
    prefix = module.hash_prefix(Path(module._FILES[blocks]))
    assert len(prefix) == 8
    int(prefix, 16)
