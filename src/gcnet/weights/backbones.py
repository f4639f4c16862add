"""Any file with a ResNet in it, as the beginning of a detector.

torchvision's and timm's names are those of our ResNet. mmpretrain and mmdetection put them behind
`backbone.`, MoCo behind `encoder_q.` (v3 `base_encoder.`), DINO behind `backbone.` of its teacher, and
transformers has names of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from gcnet.console import listed
from gcnet.errors import GCNetError
from gcnet.weights.checkpoints import read_checkpoint

PREFIXES = ("encoder_q.", "base_encoder.", "backbone.", "encoder.", "resnet.")
_TRANSFORMERS = [
    (r"embedder\.embedder\.convolution\.", "conv1."),
    (r"embedder\.embedder\.normalization\.", "bn1."),
    (r"stages\.(\d)\.layers\.(\d+)\.shortcut\.convolution\.", r"layer<\1>.\2.downsample.0."),
    (r"stages\.(\d)\.layers\.(\d+)\.shortcut\.normalization\.", r"layer<\1>.\2.downsample.1."),
    (r"stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.convolution\.", r"layer<\1>.\2.conv<\3>."),
    (r"stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.normalization\.", r"layer<\1>.\2.bn<\3>."),
]
_OURS = re.compile(r"(conv1|bn1|layer[1-4])\.")


def read_backbone(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a ResNet under our names, and a line on what was found, renamed and left over.

    Raises:
        GCNetError: the file cannot be read, or there is no ResNet in it.
    """
    tensors = read_checkpoint(path, part="teacher").tensors
    named = {name: _our_name(name) for name in tensors}
    found = {ours: tensors[name] for name, ours in named.items() if _OURS.match(ours)}
    if "conv1.weight" not in found and "conv1.0.weight" not in found:
        raise GCNetError(f"{path} holds no ResNet under names that are known: {listed(list(tensors), 3)}")
    renamed = sum(1 for name, ours in named.items() if ours != name and ours in found)
    left = [name for name, ours in named.items() if ours not in found]
    line = f"{path}: {len(found)} tensors of a ResNet, {renamed} of them renamed"
    return found, line + (f"; left over: {len(left)} ({listed(left, 3)})" if left else "")


def _our_name(name: str) -> str:
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    for pattern, replacement in _TRANSFORMERS:
        if match := re.match(pattern, name):
            new = re.sub(r"<(\d)>", lambda number: str(int(number[1]) + 1), match.expand(replacement))
            return new + name[match.end() :]
    return name
