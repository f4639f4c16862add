"""The whole detector: backbone, neck, RPN, heads.

N images, H x W pixels of the padded batch, C channels, h x w map of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.models.fpn import FPN
from gcnet.models.modes import eval_mode
from gcnet.models.postprocess import to_original
from gcnet.models.pretrained import Pretrained
from gcnet.models.resnet import ResNet
from gcnet.models.roi_heads import RoIHeads
from gcnet.models.rpn import RPN
from gcnet.models.spec import ModelSpec, Precision
from gcnet.ops.images import as_rgb_array, fit_size, resize_image, stack_images
from gcnet.types import Batch, Detections, Targets


class Detector(Pretrained, nn.Module):
    """Mask R-CNN (arXiv 1703.06870) with an FPN, or its cascade; the backbone may hold context blocks.

    `spec` says what it is made of, which classes it knows, and how pictures are prepared for it.
    `provenance` says where its weights come from and travels with them into files.
    """

    mean: Tensor
    std: Tensor
    backbone: Any

    def __init__(self, spec: ModelSpec, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.provenance: dict[str, Any] = {}
        inclusive, channels = spec.coordinates == "inclusive", spec.fpn_channels
        self.backbone = backbone or ResNet(spec.backbone)
        # Before neck and RPN, though they stand before it: a seed gives the weights that it always gave.
        heads = RoIHeads(channels, spec.num_classes, spec.roi, spec.cascade, inclusive=inclusive)
        self.neck = FPN(self.backbone.out_channels, channels, norm=spec.fpn_norm)
        self.rpn = RPN(channels, spec.rpn, inclusive=inclusive)
        self.roi_heads = heads
        self.compute_dtype = torch.float32  # of the network; boxes and scores stay float32
        self.register_buffer("mean", torch.tensor(spec.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.image_std).view(3, 1, 1), persistent=False)

    def losses(self, batch: Batch, targets: list[Targets]) -> dict[str, Tensor]:
        """The training losses by name; their sum is what to minimise."""
        features = self.features(batch)
        proposals, rpn_losses = self.rpn.losses(features, batch, targets)
        return rpn_losses | self.roi_heads.losses(features, proposals, targets, batch)

    @torch.no_grad()
    def predict(self, batch: Batch, *, score_threshold: float = 0.05) -> list[Detections]:
        """The detections of each image, in pixels of the image before resizing. Call it in eval mode."""
        features = self.features(batch)
        proposals = self.rpn.predict(features, batch)
        found = self.roi_heads.predict(features, proposals, batch, score_threshold)
        inclusive = self.spec.coordinates == "inclusive"
        return [to_original(f, batch, index, inclusive=inclusive) for index, f in enumerate(found)]

    def predict_images(
        self, images: Any | Sequence[Any], *, score_threshold: float = 0.05
    ) -> list[Detections]:
        """Detections in pictures as they come, one after the other, whatever the training mode is.

        Args:
            images: one picture or a list of them, each a path, a PIL image or an H x W x 3 uint8 RGB array.
            score_threshold: in [0, 1]; detections score above it.

        Returns:
            One `Detections` for each picture, in pixels of the picture as given, on the CPU.

        Raises:
            GCNetError: a picture cannot be read, or is not of one of these kinds.
        """
        several = isinstance(images, Sequence) and not isinstance(images, str | PathLike)
        with eval_mode(self):
            return [
                self._predict_image(image, score_threshold) for image in (images if several else [images])
            ]

    def optimize(self, *, precision: Precision = "fp32", compiled: bool = False) -> Detector:
        """A copy that gives the same detections sooner, for inference alone: `gcnet.models.optimize`."""
        from gcnet.models.optimize import optimize

        return optimize(self, precision=precision, compiled=compiled)

    def _predict_image(self, image: Any, score_threshold: float) -> Detections:
        return self.predict(self.prepare(image), score_threshold=score_threshold)[0].to("cpu")

    def prepare(self, image: Any) -> Batch:
        """A picture as `predict_images` takes it, resized and padded, as a batch on the model's device."""
        array = as_rgb_array(image)
        original = (array.shape[0], array.shape[1])
        size = fit_size(original, self.spec.image_size)
        return Batch(stack_images([resize_image(array, size)]), [size], [original], [0]).to(self.mean.device)

    def features(self, batch: Batch) -> list[Float[Tensor, "N C _h _w"]]:
        """The levels of the feature pyramid, finest first: what all heads work on."""
        return self.neck(self.backbone(self.normalise(batch)))

    def normalise(self, batch: Batch) -> Float[Tensor, "N 3 H W"]:
        """Zero mean and unit variance; the padding stays exactly zero, as the reference pads afterwards."""
        images = (batch.images.float() - self.mean) / self.std
        for image, (height, width) in zip(images, batch.image_sizes, strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        images = images.to(self.compute_dtype)
        # All maps take after the images. On the CPU this order saves convolutions a rearrangement.
        layout = torch.channels_last if images.device.type == "cpu" else torch.contiguous_format
        return images.contiguous(memory_format=layout)
