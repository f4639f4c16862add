"""Starts a detector's backbone from any file that holds one: a ResNet, or a network of a library.

torchvision's and timm's names are those of our ResNet. mmpretrain and mmdetection put `backbone.` before
them, MoCo `encoder_q.` (v3 `base_encoder.`), DINO `backbone.` of its teacher; transformers has names of its
own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from gcnet.console import listed
from gcnet.errors import GCNetError
from gcnet.models.backbone import make_backbone
from gcnet.models.spec import LibrarySpec, ResNetSpec
from gcnet.weights.checkpoints import read_checkpoint
from gcnet.weights.files import building
from gcnet.weights.mmdet_keys import rename

PREFIXES = ("encoder_q.", "base_encoder.", "backbone.", "encoder.", "resnet.")
_TRANSFORMERS = [
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^stages\.(\d)\.layers\.(?=\d+\.(?:shortcut|layer)\.)", r"layer<\1+1>."),
    (r"^(layer\d\.\d+)\.shortcut\.convolution\.", r"\1.downsample.0."),
    (r"^(layer\d\.\d+)\.shortcut\.normalization\.", r"\1.downsample.1."),
    (r"^(layer\d\.\d+)\.layer\.(\d)\.convolution\.", r"\1.conv<\2+1>."),
    (r"^(layer\d\.\d+)\.layer\.(\d)\.normalization\.", r"\1.bn<\2+1>."),
]
_OURS = re.compile(r"(conv1|bn1|layer[1-4])\.")


def read_backbone(path: Path, spec: ResNetSpec | LibrarySpec) -> tuple[dict[str, Tensor], str]:
    """The tensors of a backbone under our names, and a line for people on what was found.

    Raises GCNetError if the file cannot be read, or there is no such network in it.
    """
    tensors = read_checkpoint(path, part="teacher").tensors
    if isinstance(spec, LibrarySpec):
        what, named = f"{spec.library}'s {spec.name}", _library_names(tensors, spec)
    else:
        what, named = "a ResNet", {name: _our_name(name) for name in tensors}
        named = {name: ours for name, ours in named.items() if _OURS.match(ours)}
    found = {ours: tensors[name] for name, ours in named.items()}
    if not found or (isinstance(spec, ResNetSpec) and not found.keys() & {"conv1.weight", "conv1.0.weight"}):
        raise GCNetError(
            f"{path} holds no {what.removeprefix('a ')} under names that are known: "
            f"{listed(list(tensors), 3)}"
        )
    renamed = sum(1 for name, ours in named.items() if ours.removeprefix("parts.") != name)
    left = [name for name in tensors if name not in named]
    line = f"{path}: {len(found)} tensors of {what}, {renamed} of them renamed"
    return found, line + (f"; left over: {len(left)} ({listed(left, 3)})" if left else "")


def _library_names(tensors: Iterable[str], spec: LibrarySpec) -> dict[str, str]:
    """Our names of a library's tensors. timm joins the names of a sequence and its parts: `stages_0`."""
    with building():
        own = list(make_backbone(spec).state_dict())
    ours = {re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name.removeprefix("parts.")): name for name in own}
    plain = {name: re.sub(r"^(backbone\.|encoder\.)?(features\.)?", "", name) for name in tensors}
    return {name: ours[key] for name, key in plain.items() if key in ours}


def _our_name(name: str) -> str:
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return rename(name, _TRANSFORMERS)
