"""Checkpoints as upstream writes them, made from small models of ours."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gcnet.models.detector import Detector
from gcnet.models.spec import CascadeSpec, ContextSpec, ModelSpec, ResNetSpec, RoISpec
from gcnet.weights.mmdet_keys import mmdet_key

CASCADE = CascadeSpec()
NAMES = ("resistor", "coil", "diode")


def small(**changes: object) -> ModelSpec:
    """A model that is in no catalog; it reads regions and anchors at the published rows' sizes."""
    spec = ModelSpec(
        "small",
        NAMES,
        ResNetSpec((1, 1, 1, 1), stem_channels=8, base_channels=8, context=ContextSpec(ratio=1 / 8)),
        fpn_channels=16,
        roi=RoISpec(box_channels=24, mask_channels=8, mask_convs=2, cls_init_std=1.0),
        image_size=(160, 96),
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def built(spec: ModelSpec, seed: int = 1) -> Detector:
    """With norms, blocks and biases that are not at rest."""
    torch.manual_seed(seed)
    detector = Detector(spec)
    for name, tensor in detector.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() == 1 and tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape) * 0.1)
        elif ".context." in name:
            torch.nn.init.normal_(tensor, std=0.1)
    return detector.eval()


def as_mmdet(detector: Detector) -> dict[str, Tensor]:
    """The state dict as mmdetection 2.x and 3.x store it: linear layers of blocks are 1x1 convolutions."""
    state = {}
    for name, tensor in detector.state_dict().items():
        key = mmdet_key(name)
        if key.endswith("conv_mask.weight"):
            tensor = tensor.view(1, -1, 1, 1)
        elif "_conv.1." in key:
            tensor = tensor.view(-1, 1, 1)
        elif "_conv.0.weight" in key or "_conv.3.weight" in key:
            tensor = tensor[..., None, None]
        state[spelt(key, detector.spec)] = tensor.clone()
    return state


def spelt(key: str, spec: ModelSpec) -> str:
    """A name as upstream spells that of a group norm, a deep stem, a block or one of two necks."""
    assert isinstance(spec.backbone, ResNetSpec)
    if spec.backbone.deep_stem:
        key = key.replace("backbone.bn1.", "backbone.stem.7.").replace("backbone.conv1.", "backbone.stem.")
    if spec.backbone.norm == "group32" and key.startswith("backbone."):
        key = re.sub(r"\.bn(\d)\.", r".gn\1.", key)
    if spec.fpn_norm == "group32":
        key = key.replace(".bn.", ".gn.")
    if spec.balance is not None:
        key = re.sub(r"^neck\.(?!1\.)", "neck.0.", key)
    if spec.backbone.more_context:  # a configuration has to end their names
        key = re.sub(r"context_block(\d*)\.", lambda match: f"context_block_{match[1] or 'first'}.", key)
    kind = r"\.context_block\.(?=theta|phi|g\.|conv_out)"
    return re.sub(kind, ".nonlocal_block.", key)


def saved(detector: Detector, config: str | None, path: Path) -> Path:
    """A file of mmdetection 2.x, with its names of classes and perhaps a configuration."""
    meta = {"CLASSES": detector.spec.class_names} | ({"config": config} if config else {})
    torch.save({"state_dict": as_mmdet(detector), "meta": meta}, path)
    return path


def as_version_1(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same as mmdetection 1.x would store it: background first, also where it is never used."""
    old = {}
    for name, tensor in state.items():
        if "fc_cls" in name:
            tensor = torch.cat([tensor[-1:], tensor[:-1]])
        elif "fc_reg" in name and len(tensor) > 4:
            tensor = torch.cat([torch.full_like(tensor[:4], 7.0), tensor])
        elif "conv_logits" in name:
            tensor = torch.cat([torch.full_like(tensor[:1], 7.0), tensor])
        name = name.removeprefix("roi_head.").replace("conv2.conv_offset", "conv2_offset")
        old[name] = tensor
    return {name: tensor for name, tensor in old.items() if not name.endswith("num_batches_tracked")}


def equal(a: Detector, b: Detector) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[name])
        for name, tensor in ours.items()
        if not name.endswith("num_batches_tracked")
    )
