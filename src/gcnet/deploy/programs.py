"""Models as modules from tensors to tensors, for `torch.export` to trace.

N images of H x W pixels, S side of a classifier's squares.
"""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.ops.images import fit_size


class Program(torch.nn.Module):
    """A detector with its outputs in the order of `runtime.OUTPUTS`.

    Given the factors by which an image was resized, x, y, x, y, and its width and height twice, boxes are in
    its pixels.
    """

    end: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        end = [0.0, 0.0, 1.0, 1.0] if detector.spec.coordinates == "inclusive" else [0.0] * 4
        self.register_buffer("end", torch.tensor(end))

    def forward(
        self, images: Tensor, factors: Tensor | None = None, limits: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        found = self.detector(images)
        masks = () if found.mask_probs is None else (found.mask_probs,)
        boxes, others = found.boxes, (found.scores, found.labels, found.valid, *masks)
        if factors is not None and limits is not None:
            boxes = ((boxes - self.end) / factors + self.end).clamp(min=0).minimum(limits)
        return boxes, *others


class ResizedProgram(torch.nn.Module):
    """As `Program`, for images of one (height, width), which it resizes."""

    def __init__(self, detector: Detector, size: tuple[int, int]) -> None:
        super().__init__()
        spec = detector.spec
        self.program, self.rule = Program(detector), spec.resize
        self.fitted = fit_size(size, spec.image_size, spec.resize)
        x, y = (self.fitted[side] / size[side] for side in (1, 0))
        self.register_buffer("factors", torch.tensor([x, y, x, y]))
        self.register_buffer("limits", torch.tensor([size[1], size[0]] * 2, dtype=torch.float32))

    def forward(self, image: UInt8[Tensor, "H W 3"]) -> tuple[Tensor, ...]:
        values = image.permute(2, 0, 1)[None].float()
        antialias = self.rule == "pillow"
        images = functional.interpolate(
            values, self.fitted, mode="bilinear", align_corners=False, antialias=antialias
        )
        images = images if self.rule == "torchvision" else images.round()
        return self.program(images, self.factors, self.limits)


class Probabilities(torch.nn.Module):
    """A classifier followed by the softmax."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: UInt8[Tensor, "N 3 S S"]) -> tuple[Tensor, ...]:
        return (self.classifier.logits(images).float().softmax(dim=1),)
