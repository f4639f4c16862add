"""The inputs and outputs of models: batches of images, targets, detections and classifications.

N images of H x W pixels; G objects and I ignored regions in an image; D detections; M x M predicted mask;
K classes, T of them in a classification.
Boxes are float32 (x1, y1, x2, y2) in pixels of their image. Labels count from 0, without background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.found import Found
from gcnet.ops.boxes import Extents
from gcnet.ops.images import Pixels, padded_size
from gcnet.ops.masks import edges_at_once, paste_masks
from gcnet.ops.segmentations import Segmentation

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingImports]
    import supervision  # pyright: ignore[reportMissingImports]

Size = tuple[int, int]  # height, width
Record = TypeVar("Record", "Targets", "Detections")


def _with_tensors(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    """A copy in which `change` was applied to each tensor."""
    tensors = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(record, **{name: change(t) for name, t in tensors.items() if isinstance(t, Tensor)})


def stack_images(images: Sequence[Pixels]) -> UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"]:
    """Images of any sizes in one tensor, zero-padded at the right and bottom to multiples of 32.

    In memory it is N x H x W x 3, as images are: another order would take longer to write than a resize.
    """
    height, width = padded_size([max(image.shape[axis] for image in images) for axis in (0, 1)])
    kind = np.result_type(*(image.dtype for image in images))  # one that needed no resize is uint8
    stack = np.zeros((len(images), height, width, 3), kind)
    for own, image in zip(stack, images, strict=True):
        own[: image.shape[0], : image.shape[1]] = image
    return torch.from_numpy(stack).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Batch:
    """Resized images, padded to one size. They stay uint8, so that copies are small.

    Attributes:
        images: RGB, 0 to 255, padded with zeros at the right and bottom to multiples of 32. float32 only for
            models that resize by torchvision's rule.
        image_sizes: (height, width) of each image without its padding.
        original_sizes: (height, width) of each image before it was resized.
        image_ids: id of each image in its data set.
    """

    images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"]
    image_sizes: Sequence[Size]
    original_sizes: Sequence[Size]
    image_ids: Sequence[int | str]

    def __len__(self) -> int:
        return len(self.image_sizes)

    @property
    def extents(self) -> Extents:
        """The sizes of images as boxes are cut to them; on a GPU a tensor, which is made without a copy."""
        device = self.images.device
        if device.type == "cpu":
            return self.image_sizes
        sides = [torch.full((), side, device=device) for h, w in self.image_sizes for side in (w, h)]
        return torch.stack(sides).float().view(-1, 2).repeat(1, 2)

    def __getitem__(self, part: slice) -> Batch:
        """The images that a slice selects; their padding stays."""
        return Batch(
            self.images[part], self.image_sizes[part], self.original_sizes[part], self.image_ids[part]
        )

    @classmethod
    def together(cls, batches: Sequence[Batch]) -> Batch:
        """One batch of several, whose images must be padded to the same size."""
        return cls(
            torch.cat([one.images for one in batches]),
            [size for one in batches for size in one.image_sizes],
            [size for one in batches for size in one.original_sizes],
            [id for one in batches for id in one.image_ids],
        )

    def to(self, device: torch.device | str) -> Batch:
        return replace(self, images=self.images.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, for a fast copy to a GPU; data loaders call this."""
        return replace(self, images=self.images.pin_memory())

    def scale_factors(self, index: int) -> tuple[float, float]:
        """The factors in x and y by which image `index` was resized; rounding makes them differ."""
        (height, width), (old_height, old_width) = self.image_sizes[index], self.original_sizes[index]
        return width / old_width, height / old_height


@dataclass(frozen=True)
class Targets:
    """The annotated objects of one image, in pixels of the resized image, without crowds.

    Attributes:
        boxes: (x1, y1, x2, y2) of each object; none is empty.
        labels: class of each object, from 0.
        masks: polygons or RLE of each object.
        outlines, frames: the masks as `ops.mask_targets.draw_outlines` draws them, which the data loader
            adds. A training step with these does not read `masks`.
        ignored: boxes of regions that are not learnt as background.
    """

    boxes: Float[Tensor, "G 4"]
    labels: Int64[Tensor, " G"]
    masks: Sequence[Segmentation]
    outlines: UInt8[Tensor, "G S S"] | None = None
    frames: Float[Tensor, "G 4"] | None = None
    ignored: Float[Tensor, "I 4"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Targets:
        return _with_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Targets:
        return _with_tensors(self, Tensor.pin_memory)


@dataclass(frozen=True)
class Detections:
    """The detections of one image, best first, in pixels of the original image.

    Masks are kept as the mask head predicts them, and drawn at full size only by `masks`: a hundred masks of
    a large photograph would fill gigabytes.

    Attributes:
        boxes: (x1, y1, x2, y2) of each detection.
        scores: probability of its class, in [0, 1].
        labels: its class, from 0.
        mask_probs: probabilities on an M x M grid over each frame; None if the detector has no mask heads.
        image_size: (height, width) of the image.
        frames: the boxes that the masks lie over; None if they are `boxes`.
        edges: of each mask, as `gcnet.ops.rle.mask_edges` finds them, if a GPU has done so.
    """

    boxes: Float[Tensor, "D 4"]
    scores: Float[Tensor, " D"]
    labels: Int64[Tensor, " D"]
    mask_probs: Float[Tensor, "D M M"] | None
    image_size: Size
    frames: Float[Tensor, "D 4"] | None = None
    edges: Sequence[Int64[np.ndarray, " _E"]] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, keep: Any) -> Detections:
        """The detections that a number, slice, boolean mask or index tensor selects."""
        keep = [keep] if isinstance(keep, int | np.integer) else keep
        edges = self.edges and [self.edges[index] for index in torch.arange(len(self))[keep].tolist()]
        return replace(_with_tensors(self, lambda tensor: tensor[keep]), edges=edges)

    def to(self, device: torch.device | str) -> Detections:
        return _with_tensors(self, lambda tensor: tensor.to(device))

    def on_cpu(self) -> Detections:
        """The same on the CPU. A GPU finds the edges of masks first, which it does sooner."""
        edges = self.edges
        if self.mask_probs is not None and self.mask_probs.is_cuda:
            edges = edges_at_once(self.mask_probs, self.mask_frames, self.image_size)
        return replace(self.to("cpu"), edges=edges)

    def clone(self) -> Detections:
        """The same in memory of its own."""
        return _with_tensors(self, Tensor.clone)

    @property
    def mask_frames(self) -> Float[Tensor, "D 4"]:
        """The boxes that masks lie over."""
        return self.boxes if self.frames is None else self.frames

    def to_dataframe(self, class_names: Sequence[str] = ()) -> pandas.DataFrame:
        """A pandas table with one row for each detection; see `gcnet.found.Found.to_dataframe`."""
        return self.arrays().to_dataframe(class_names)

    def to_supervision(self, class_names: Sequence[str] = ()) -> supervision.Detections:
        """Roboflow's `supervision.Detections`, with full-size masks; see `Found.to_supervision`."""
        return self.arrays().to_supervision(class_names)

    def arrays(self) -> Found:
        """The same as NumPy arrays, for files and drawings."""
        probs = None if self.mask_probs is None else self.mask_probs.float().cpu().numpy()
        tensors = (self.boxes, self.scores, self.labels, self.mask_frames)
        boxes, scores, labels, frames = (tensor.cpu().numpy() for tensor in tensors)
        return Found(boxes, scores, labels, probs, self.image_size, frames, self.edges)

    @classmethod
    def of_arrays(cls, found: Found) -> Detections:
        """The same as tensors, on the CPU."""
        arrays = (found.boxes, found.scores, found.labels, found.frames)
        boxes, scores, labels, frames = (torch.from_numpy(array) for array in arrays)
        probs = None if found.mask_probs is None else torch.from_numpy(found.mask_probs)
        return cls(boxes, scores, labels, probs, found.image_size, frames, found.edges)

    @cached_property
    def masks(self) -> Bool[Tensor, "D H W"]:
        """Masks of the size of the image, D * H * W bytes, computed on first use.

        Raises GCNetError if the detector has no mask heads.
        """
        return paste_masks(self._mask_probs(), self.mask_frames, self.image_size)

    def rles(self) -> list[dict[str, Any]]:
        """The masks as COCO run-length encodings, computed without drawing them.

        Raises GCNetError if the detector has no mask heads.
        """
        self._mask_probs()
        size, counts = list(self.image_size), self.on_cpu().arrays().encoded() or ()
        return [{"size": size, "counts": text.decode("ascii")} for text in counts]

    def _mask_probs(self) -> Float[Tensor, "D M M"]:
        if self.mask_probs is None:
            raise GCNetError("these detections have no masks: their detector finds boxes alone")
        return self.mask_probs


@dataclass(frozen=True)
class ClassTargets:
    """The classes of the images of a batch, as a share of each class; the shares of an image sum to 1.

    They are not labels, because label smoothing and mixup divide an image among several classes.
    """

    shares: Float[Tensor, "N K"]

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, part: slice) -> ClassTargets:
        """The targets of the images that a slice selects."""
        return ClassTargets(self.shares[part])

    def to(self, device: torch.device | str) -> ClassTargets:
        return ClassTargets(self.shares.to(device, non_blocking=True))

    def pin_memory(self) -> ClassTargets:
        return ClassTargets(self.shares.pin_memory())


@dataclass(frozen=True)
class Classification:
    """The most probable classes of one image, best first.

    Attributes:
        labels: the classes, from 0.
        probabilities: in [0, 1]; those of all classes of the model would sum to 1.
        names: the names of these classes.
    """

    labels: Int64[Tensor, " T"]
    probabilities: Float[Tensor, " T"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)
