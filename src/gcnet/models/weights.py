"""Our own model files: safetensors that know their architecture, class names and preprocessing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gcnet.errors import GCNetError
from gcnet.files import write_atomically
from gcnet.models.build import build_detector
from gcnet.models.detector import Detector
from gcnet.models.spec import ModelSpec

SUFFIX = ".safetensors"
LISTED = 10  # how many names of tensors that do not fit an error spells out


def save_model(detector: Detector, path: str | Path, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Writes weights and spec to `path`, whole or not at all.

    Args:
        provenance: where the weights come from; kept as JSON beside the spec.
    """
    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    metadata = {
        "format": "gcnet",
        "spec": json.dumps(asdict(detector.spec)),
        "provenance": json.dumps(dict(provenance or {})),
    }
    data = save(tensors, metadata)
    write_atomically(path, lambda file: file.write(data))


def load_model(path: str | Path) -> Detector:
    """The detector saved at `path`, on the CPU, in eval mode.

    Raises:
        GCNetError: the file is missing, damaged, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise GCNetError(f"there is no model file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "gcnet":
                raise GCNetError(f"{path} was not saved by gcnet: it does not say which model it holds")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        spec = ModelSpec.from_dict(json.loads(metadata["spec"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, GCNetError):
            raise
        raise GCNetError(f"{path} is damaged or not a safetensors file ({error}); get it again") from error
    detector = build_detector(spec)
    fill_weights(detector, tensors, source=str(path))
    return detector.eval()


def fill_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copies `tensors` into `module`; a 1x1 convolution's weight may fill a linear layer's.

    Raises:
        GCNetError: names or shapes differ; nothing has been copied then. At most ten are listed.
    """
    own = module.state_dict()
    # Files from before batch counts were stored lack them; nothing here depends on them.
    missing = [n for n in own if n not in tensors and not n.endswith("num_batches_tracked")]
    problems = [f"missing {name}" for name in missing]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {_shape(tensors[name])} there and {_shape(own[name])} here"
        for name in own
        if name in tensors and not _fits(tensors[name], own[name])
    ]
    if problems:
        listed = problems[:LISTED]
        if len(problems) > LISTED:
            listed.append(f"and {len(problems) - LISTED} more")
        raise GCNetError(f"{source} does not fit this model ({len(problems)} tensors): {'; '.join(listed)}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor.reshape(own[name].shape))


def _fits(theirs: Tensor, own: Tensor) -> bool:
    """Equal shapes. A 1x1 convolution's (P, C, 1, 1) also fits a linear layer, or with P = 1 a vector."""
    sides = list(theirs.shape)
    while len(sides) > own.dim() and sides[-1] == 1:
        sides.pop()
    if len(sides) > own.dim() and sides[0] == 1:
        sides = sides[1:]
    return sides == list(own.shape)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
