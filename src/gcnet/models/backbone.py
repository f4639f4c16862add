"""The backbone that a spec names: our ResNet, or a network of timm or torchvision.

A backbone is any module that returns its maps c2 to c5, at strides 4, 8, 16 and 32, and says their
`out_channels`. N images, C channels, h x w map.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.context import insert
from gcnet.context.residual import residual_blocks
from gcnet.errors import GCNetError
from gcnet.models.resnet import ResNet
from gcnet.models.spec import LibrarySpec, ResNetSpec

STRIDES = (4, 8, 16, 32)
PROBE = (64, 96)  # height and width of an image that shows where the maps are


def make_backbone(spec: ResNetSpec | LibrarySpec) -> nn.Module:
    """The backbone of a spec, with random weights."""
    return ResNet(spec) if isinstance(spec, ResNetSpec) else LibraryBackbone(spec)


class LibraryBackbone(nn.Module):
    """A network of a library as a chain of its parts, of which the last at each stride gives a map.

    Raises GCNetError if the library or the name is not there, or the network is no such chain, or has no
    residual blocks for the spec's context blocks.
    """

    def __init__(self, spec: LibrarySpec) -> None:
        super().__init__()
        self.frozen_stages = 0  # of the stem, c2, c3, ...
        self.blocks: list[str] = []  # the names of the spec's context blocks in `parts`
        network = _timm_network(spec.name) if spec.library == "timm" else _torchvision_network(spec.name)
        self.parts = nn.ModuleDict(dict(network.named_children()))
        shapes = self._probe()
        ends = [[name for name, (step, *_) in shapes.items() if step == stride] for stride in STRIDES]
        if not all(ends):
            raise GCNetError(f"{spec.library}'s {spec.name} has no maps at strides 4, 8, 16 and 32 in a row")
        self.ends = {names[-1]: shapes[names[-1]][2] for names in ends}
        self.out_channels = [shapes[name][1] for name in self.ends]
        for name in list(self.parts)[list(self.parts).index(ends[-1][-1]) + 1 :]:
            del self.parts[name]  # the parts after c5 belong to the classifier
        context: Any = spec.context
        if context is not None:
            if context.only:
                raise GCNetError(
                    f"in {spec.library}'s {spec.name} context blocks are in all residual blocks of a stage; "
                    "leave `only` out"
                )
            marked = [name for names, has in zip(ends, context.stages, strict=True) if has for name in names]
            where = [name for name in marked if residual_blocks(self.parts[name])]
            if not where:
                raise GCNetError(
                    f"{spec.library}'s {spec.name} has no residual blocks there to put context blocks into; "
                    "name other stages, or leave the blocks out"
                )
            options, position = context.options, context.position
            self.blocks = insert(self.parts, context.block, options=options, where=where, position=position)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _C _h _w"]]:
        features = []
        for name, part in self.parts.items():
            x = part(x)
            if name in self.ends:
                features.append(x.permute(0, 3, 1, 2) if self.ends[name] else x)
        return features

    def stages(self) -> list[list[nn.Module]]:
        """The parts of the stem, c2, c3, ...; all before the part that gives c2 is the stem."""
        names, parts = list(self.parts), list(self.parts.values())
        ends = [names.index(name) for name in self.ends]
        bounds = [0, ends[0], *(end + 1 for end in ends)]
        return [parts[start:end] for start, end in pairwise(bounds)]

    def train(self, mode: bool = True) -> LibraryBackbone:
        """As usual, but frozen stages stay in eval mode."""
        super().train(mode)
        frozen = self.stages()[: self.frozen_stages] if self.frozen_stages else []
        for module in (module for stage in frozen for module in stage):
            module.eval()
        return self

    @torch.no_grad()
    def _probe(self) -> dict[str, tuple[int, int, bool]]:
        """Stride, channels, and whether they come last, of each map, as far as the parts are a chain."""
        shapes: dict[str, tuple[int, int, bool]] = {}
        training = self.training
        self.eval()
        x = torch.zeros(1, 3, *PROBE)
        for name, part in self.parts.items():
            try:
                x = part(x)
            except Exception:  # the end of the chain: a classifier, or a part that takes something else
                break
            if not isinstance(x, Tensor) or x.dim() != 4:
                break
            last = x.shape[1] * PROBE[1] == x.shape[2] * PROBE[0]
            height, channels = (x.shape[1], x.shape[3]) if last else (x.shape[2], x.shape[1])
            shapes[name] = PROBE[0] // height, channels, last
        self.train(training)
        return shapes


def _timm_network(name: str) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise GCNetError(f"{name} is a network of timm: pip install 'gcnet[timm]'") from None
    try:
        return timm.create_model(name, pretrained=False, features_only=True)
    except (RuntimeError, AttributeError, ValueError) as error:
        raise GCNetError(f"timm has no network {name} that gives maps: {error}") from None


def _torchvision_network(name: str) -> nn.Module:
    from torchvision.models import get_model

    try:
        network = get_model(name, weights=None)
    except ValueError:
        raise GCNetError(f"torchvision has no network {name}") from None
    features = getattr(network, "features", None)
    return features if isinstance(features, nn.Sequential) else network
