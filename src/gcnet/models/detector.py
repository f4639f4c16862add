"""The whole detector: backbone, neck, RPN, heads.

N images, H x W pixels of the padded batch, C channels, h x w map of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from gcnet.errors import GCNetError, check_threshold
from gcnet.models.backbone import make_backbone
from gcnet.models.fpn import make_neck
from gcnet.models.modes import in_eval_mode
from gcnet.models.postprocess import Threshold, to_original
from gcnet.models.pretrained import Pretrained
from gcnet.models.read_spec import LARGEST, check_spec
from gcnet.models.recordings import Recordings
from gcnet.models.roi_heads import RoIHeads
from gcnet.models.rpn import RPN
from gcnet.models.spec import ModelSpec, Precision
from gcnet.ops.boxes import Extents
from gcnet.ops.decode import as_list, as_rgb_array
from gcnet.ops.images import PAD_MULTIPLE, fit_size, resize_image
from gcnet.types import Batch, Detections, Targets, stack_images

Shapes = Literal["auto", "dynamic", "static"]


class PaddedDetections(NamedTuple):
    """The result of `Detector.forward`: D rows for each image, best first; only the `valid` ones count."""

    boxes: Float[Tensor, "N D 4"]
    scores: Float[Tensor, "N D"]
    labels: Int64[Tensor, "N D"]
    mask_probs: Float[Tensor, "N D M M"] | None
    valid: Bool[Tensor, "N D"]


class Detector(Pretrained, nn.Module):
    """A Mask, Faster or Cascade R-CNN with an FPN (arXiv 1703.06870). The backbone may hold context blocks.

    Attributes:
        spec: the structure, the class names, and how images are prepared.
        provenance: where the weights come from; it is saved with them.
        shapes: "dynamic" computes as many regions as there are, so that tensor shapes depend on the image.
            "static" computes a fixed number, some of them empty; a GPU then need not wait for the CPU, and
            the network can be compiled and exported. "auto" is "dynamic" on the CPU and "static" elsewhere.
    """

    mean: Tensor
    std: Tensor
    backbone: Any
    recordings: Recordings | None = None  # of optimised copies

    def __init__(self, spec: ModelSpec, backbone: nn.Module | None = None) -> None:
        super().__init__()
        check_spec(spec)
        self.spec = spec
        self.provenance: dict[str, Any] = {}
        coordinates, channels = spec.coordinates, spec.fpn_channels
        self.backbone = backbone or make_backbone(spec.backbone)
        # Before neck and RPN, though they stand before it: a seed gives the weights that it always gave.
        heads = RoIHeads(channels, spec.num_classes, spec.roi, spec.cascade, coordinates=coordinates)
        self.neck = make_neck(self.backbone.out_channels, spec)
        self.rpn = RPN(channels, spec.rpn, coordinates=coordinates)
        self.roi_heads = heads
        self.shapes: Shapes = "auto"
        self.compute_dtype = torch.float32  # of the network; boxes and scores stay float32
        self.register_buffer("mean", torch.tensor(spec.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.image_std).view(3, 1, 1), persistent=False)

    @property
    def static(self) -> bool:
        """Whether shapes are static now; for "auto", on every device except the CPU."""
        return self.mean.device.type != "cpu" if self.shapes == "auto" else self.shapes == "static"

    def limit_detections(self, most: int) -> None:
        """Sets the largest number of detections in an image (100 by default). It is saved with the model.

        The number of proposals in inference is raised to `most` if it is less. Raises GCNetError if `most`
        is less than 1, or more than a model's file may say.
        """
        if not 1 <= most <= LARGEST:
            raise GCNetError(f"max_detections is {most}; give 1 to {LARGEST}")
        rpn, roi = self.spec.rpn, replace(self.spec.roi, detections=most)
        each, whole = max(rpn.pre_nms_test, most), max(rpn.proposals_test, most)
        rpn = replace(rpn, pre_nms_test=each, proposals_test=whole)
        self.spec = replace(self.spec, rpn=rpn, roi=roi)
        self.rpn.spec, self.roi_heads.spec = rpn, replace(self.roi_heads.spec, detections=most)
        if self.recordings is not None:
            self.recordings.clear()

    def losses(self, batch: Batch, targets: list[Targets]) -> dict[str, Tensor]:
        """The training losses by name, each a scalar. The sum of all is minimised.

        Args:
            batch: N images.
            targets: the objects of each image, in pixels of the resized image.
        """
        features, static = self.features(batch), self.static
        proposals, rpn_losses = self.rpn.losses(features, batch, targets, static=static)
        return rpn_losses | self.roi_heads.losses(features, proposals, targets, batch, static=static)

    @torch.no_grad()
    def predict(self, batch: Batch, *, score_threshold: float = 0.05) -> list[Detections]:
        """The detections of each image that score above `score_threshold`, in pixels before resizing.

        Soft NMS lowers scores after that, as far as to its own `min_score`.
        Eval mode is not needed, and the model is not changed, so threads can share it.
        """
        check_threshold(score_threshold)
        found = None
        if self.recordings is not None and batch.images.is_cuda and self.static:
            found = self.recordings.find(self, self._find_static, batch, score_threshold)
        if found is None:
            found = in_eval_mode(self)._find(batch, score_threshold)
        coordinates = self.spec.coordinates
        return [to_original(one, batch, index, coordinates) for index, one in enumerate(found)]

    def _find(self, batch: Batch, threshold: float) -> list[Detections]:
        """The detections of each image in pixels of the resized one."""
        if not self.static:
            return self._find_in(self.features(batch), batch.image_sizes, threshold)
        padded = self._find_static(batch.images, batch.extents, threshold)
        # The filled places come first. Their numbers are all that is waited for.
        counts = torch.stack([(one.scores > 0).sum() for one in padded]).tolist()
        return [one[:count] for one, count in zip(padded, counts, strict=True)]

    def _find_static(self, images: Tensor, sizes: Extents, threshold: Threshold) -> list[Detections]:
        """With empty places: nothing depends on what is in the images."""
        return self._find_in(self._features(images, sizes), sizes, threshold, static=True)

    def _find_in(
        self, features: list[Tensor], sizes: Extents, threshold: Threshold, *, static: bool = False
    ) -> list[Detections]:
        proposals = self.rpn.predict(features, sizes, static=static)
        return self.roi_heads.predict(features, proposals, sizes, threshold, static=static)

    def forward(
        self, images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"], score_threshold: float = 0.05
    ) -> PaddedDetections:
        """Detections with static shapes, for compilers and exporters. The model must be in eval mode.

        `torch.export` needs `import torchvision` before, for the shapes of its operators.

        Args:
            images: RGB, 0 to 255, resized as the model's spec says.
            score_threshold: in [0, 1]; detections score above it.
        """
        count, _, height, width = images.shape
        batch = Batch(images, [(height, width)] * count, [(height, width)] * count, range(count))
        # Padding after standardising leaves nothing to set to zero; runtimes cannot assign to slices.
        padding = (0, -width % PAD_MULTIPLE, 0, -height % PAD_MULTIPLE)
        normal = self._for_network(functional.pad(self._standardise(images), padding))
        features = self.neck(self.backbone(normal))
        found = self._find_in(features, batch.image_sizes, score_threshold, static=True)
        coordinates = self.spec.coordinates
        found = [to_original(one, batch, index, coordinates) for index, one in enumerate(found)]
        boxes, scores, labels = (
            torch.stack([getattr(one, name) for one in found]) for name in ("boxes", "scores", "labels")
        )
        masks = [one.mask_probs for one in found if one.mask_probs is not None]
        return PaddedDetections(boxes, scores, labels, torch.stack(masks) if masks else None, scores > 0)

    def predict_images(
        self, images: Any | Sequence[Any], *, score_threshold: float = 0.05
    ) -> list[Detections]:
        """Finds the objects in images of any size, one image after the other. Eval mode is not needed.

        Args:
            images: one image or a list of them, each a path, a file opened in binary or its bytes, a PIL
                image, an array or a tensor: see `gcnet.ops.decode.as_rgb_array`.
            score_threshold: in [0, 1]; detections score above it.

        Returns:
            One `Detections` for each image, in pixels of the image as given, on the CPU.

        Raises:
            GCNetError: an image cannot be read or is none of these, or the threshold is not in [0, 1].
        """
        model = in_eval_mode(self)
        batches = map(model.prepare, as_list(images))
        return [model.predict(batch, score_threshold=score_threshold)[0].on_cpu() for batch in batches]

    def _apply(self, fn: Any, recurse: bool = True) -> Detector:
        if self.recordings is not None:
            self.recordings.clear()
        return super()._apply(fn, recurse)

    def optimize(self, *, precision: Precision = "fp32", compiled: bool = False) -> Detector:
        """A faster copy for inference, with the same detections: see `gcnet.models.fused.optimize`.

        Args:
            precision: "fp32", "bf16" or "fp16"; the last two change scores and boxes slightly.
            compiled: use `torch.compile`.
        """
        from gcnet.models.fused import optimize

        return optimize(self, precision=precision, compiled=compiled)

    def prepare(self, image: Any) -> Batch:
        """A batch of one image, resized and padded, on the model's device; see `predict_images`."""
        array = as_rgb_array(image)
        original = (array.shape[0], array.shape[1])
        rule = self.spec.resize
        size = fit_size(original, self.spec.image_size, rule)
        pixels = stack_images([resize_image(array, size, rule)])
        return Batch(pixels, [size], [original], [0]).to(self.mean.device)

    def features(self, batch: Batch) -> list[Float[Tensor, "N C _h _w"]]:
        """The levels of the feature pyramid, finest first, which are the input of all heads."""
        return self._features(batch.images, batch.extents)

    def _features(self, images: Tensor, sizes: Extents) -> list[Float[Tensor, "N C _h _w"]]:
        return self.neck(self.backbone(self._normalise(images, sizes)))

    def normalise(self, batch: Batch) -> Float[Tensor, "N 3 H W"]:
        """Images with zero mean and unit variance. Padding stays exactly zero, as in mmdetection."""
        return self._normalise(batch.images, batch.extents)

    def _normalise(self, images: Tensor, sizes: Extents) -> Float[Tensor, "N 3 H W"]:
        images = self._standardise(images)
        if isinstance(sizes, Tensor):
            rows, columns = (torch.arange(side, device=sizes.device) for side in images.shape[2:])
            inside = (rows < sizes[:, 1, None])[:, :, None] & (columns < sizes[:, 0, None])[:, None]
            return self._for_network(images * inside[:, None])
        for image, (height, width) in zip(images, sizes, strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return self._for_network(images)

    def _standardise(self, images: Tensor) -> Float[Tensor, "N 3 H W"]:
        return (images.float() - self.mean) / self.std

    def _for_network(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 H W"]:
        weights = next(self.neck.parameters()).dtype
        # A copy in half precision keeps some parts exact, as the mean is.
        if weights != self.compute_dtype or self.mean.dtype != torch.float32:
            raise GCNetError(
                f"the weights were cast to {weights}: leave them as they are, and use "
                'optimize(precision="bf16") or "fp16", which keeps the last layers exact'
            )
        images = images.to(self.compute_dtype)
        # All maps inherit the images' memory layout. Convolutions are fastest channels-last.
        return images.contiguous(memory_format=torch.channels_last)
