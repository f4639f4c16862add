"""ImageNet weights for the backbone: torchvision's published files, checked by their SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.models.spec import ResNetSpec
from gcnet.models.weights import fill_weights
from gcnet.zoo.checkpoint_files import read_checkpoint

# The files that mmdetection's rows start from ("torchvision://resnet50"); the name ends in the hash.
_FILES = {
    (3, 4, 6, 3): "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    (3, 4, 23, 3): "https://download.pytorch.org/models/resnet101-63fe2227.pth",
}


def load_imagenet(backbone: torch.nn.Module, spec: ResNetSpec, file: str | Path | None = None) -> None:
    """Fills a ResNet with ImageNet weights, downloaded and cached or from a local `file`.

    Context blocks and deformable offsets are not part of these files and keep their initial weights.

    Raises:
        GCNetError: no such weights are published, they cannot be fetched or do not match their hash.
    """
    path = Path(file) if file else _fetch(spec)
    tensors = read_checkpoint(path).tensors
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    fresh: dict[str, Tensor] = {
        name: tensor
        for name, tensor in backbone.state_dict().items()
        if ".context." in name or ".offset." in name
    }
    fill_weights(backbone, fresh | tensors, source=str(path))


def _fetch(spec: ResNetSpec) -> Path:
    url = _FILES.get(spec.blocks)
    if url is None or spec.base_channels != 64 or spec.groups != 1:
        raise GCNetError("there are no published ImageNet weights for this backbone; leave them out")
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=hash_prefix(path))
        except (OSError, RuntimeError) as error:
            raise GCNetError(
                f"could not fetch {url} ({error}); get it by hand and put it at {path}"
            ) from error
    check_hash(path, hash_prefix(path))
    return path


def hash_prefix(path: Path) -> str:
    """The SHA-256 prefix that a published file carries at the end of its name."""
    return path.stem.rsplit("-", 1)[1]


def check_hash(path: Path, prefix: str) -> None:
    """Cached files are checked too: a download that was cut off looks like a file.

    Raises:
        GCNetError: the file's SHA-256 does not start with `prefix`.
    """
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if not actual.startswith(prefix):
        raise GCNetError(f"{path} is not the published file: SHA-256 {actual[:8]}, not {prefix}; delete it")
