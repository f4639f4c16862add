"""What flows between the parts: batches in, targets beside them, detections out.

N images, H x W pixels, G objects in an image and I regions to ignore, D detections, M side of a predicted
mask, K classes, T of them named in a classification.
Boxes are xyxy float32 in pixels of the image they belong to; labels are 0-based, without background.
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
from gcnet.ops.images import Pixels, padded_size
from gcnet.ops.masks import paste_masks
from gcnet.ops.rle import encode_masks
from gcnet.ops.segmentations import Segmentation

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingImports]
    import supervision  # pyright: ignore[reportMissingImports]

Size = tuple[int, int]  # height, width
Record = TypeVar("Record", "Targets", "Detections")


def _with_tensors(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    """A copy whose tensors are changed."""
    tensors = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(record, **{name: change(t) for name, t in tensors.items() if isinstance(t, Tensor)})


def stack_images(images: Sequence[Pixels]) -> UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"]:
    """Images of any sizes in one tensor, zero-padded at the right and bottom to multiples of 32."""
    height, width = padded_size([max(image.shape[axis] for image in images) for axis in (0, 1)])
    kind = torch.uint8 if images[0].dtype == np.uint8 else torch.float32
    stack = torch.zeros(len(images), 3, height, width, dtype=kind)
    for i, image in enumerate(images):
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        stack[i, :, : image.shape[0], : image.shape[1]] = pixels
    return stack


@dataclass(frozen=True)
class Batch:
    """Resized images padded together to one size, still uint8 so that they travel cheaply.

    `images` are RGB, zero-padded at the right and bottom to a multiple of 32. `image_sizes` are the
    (height, width) of the valid part of each image, `original_sizes` those before resizing.
    """

    images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"]
    image_sizes: Sequence[Size]
    original_sizes: Sequence[Size]
    image_ids: Sequence[int | str]

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, part: slice) -> Batch:
        """The images of a slice, padded as they are."""
        return Batch(
            self.images[part], self.image_sizes[part], self.original_sizes[part], self.image_ids[part]
        )

    @classmethod
    def together(cls, batches: Sequence[Batch]) -> Batch:
        """Batches whose images are padded to one size, as one."""
        return cls(
            torch.cat([one.images for one in batches]),
            [size for one in batches for size in one.image_sizes],
            [size for one in batches for size in one.original_sizes],
            [id for one in batches for id in one.image_ids],
        )

    def to(self, device: torch.device | str) -> Batch:
        return replace(self, images=self.images.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; a data loader calls this where there is a GPU to copy to."""
        return replace(self, images=self.images.pin_memory())

    def scale_factors(self, index: int) -> tuple[float, float]:
        """(x, y) factors by which image `index` was resized, kept apart because rounding differs."""
        (height, width), (old_height, old_width) = self.image_sizes[index], self.original_sizes[index]
        return width / old_width, height / old_height


@dataclass(frozen=True)
class Targets:
    """The objects of one image, in pixels of the resized image. Crowd regions are not among them.

    `ignored` are regions that may hold objects: what lies in one is not learnt as background.
    `outlines` and `frames`, which a loader adds, are the same masks as `ops.mask_targets.draw_outlines`
    draws them: with them a training step never looks at `masks`.
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
    """What was found in one image, best first, in pixels of the original image.

    Masks are kept as the head predicts them (probabilities on an M x M grid over each box) and drawn
    at full size only when asked for: a hundred of them on a large photograph would fill gigabytes.
    `mask_probs` is None if the detector has no mask heads. `frames` is where masks lie, if not on the boxes.
    """

    boxes: Float[Tensor, "D 4"]
    scores: Float[Tensor, " D"]
    labels: Int64[Tensor, " D"]
    mask_probs: Float[Tensor, "D M M"] | None
    image_size: Size
    frames: Float[Tensor, "D 4"] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, keep: Any) -> Detections:
        """The detections that a slice, boolean mask or index tensor selects."""
        return _with_tensors(self, lambda tensor: tensor[keep])

    def to(self, device: torch.device | str) -> Detections:
        return _with_tensors(self, lambda tensor: tensor.to(device))

    @property
    def mask_frames(self) -> Float[Tensor, "D 4"]:
        """The boxes that masks lie over."""
        return self.boxes if self.frames is None else self.frames

    def to_dataframe(self, class_names: Sequence[str] = ()) -> pandas.DataFrame:
        """A row a detection; see `gcnet.found.Found.to_dataframe`."""
        return self.arrays().to_dataframe(class_names)

    def to_supervision(self, class_names: Sequence[str] = ()) -> supervision.Detections:
        """Roboflow's `supervision.Detections`; see `gcnet.found.Found.to_supervision`."""
        return self.arrays().to_supervision(class_names)

    def arrays(self) -> Found:
        """The same as NumPy arrays, for files and drawings."""
        probs = None if self.mask_probs is None else self.mask_probs.float().cpu().numpy()
        tensors = (self.boxes, self.scores, self.labels, self.mask_frames)
        boxes, scores, labels, frames = (tensor.cpu().numpy() for tensor in tensors)
        return Found(boxes, scores, labels, probs, self.image_size, frames)

    @classmethod
    def of_arrays(cls, found: Found) -> Detections:
        """The same as tensors, on the CPU."""
        arrays = (found.boxes, found.scores, found.labels, found.frames)
        boxes, scores, labels, frames = (torch.from_numpy(array) for array in arrays)
        probs = None if found.mask_probs is None else torch.from_numpy(found.mask_probs)
        return cls(boxes, scores, labels, probs, found.image_size, frames)

    @cached_property
    def masks(self) -> Bool[Tensor, "D H W"]:
        """Full-size masks; D * H * W bytes, computed on first use.

        Raises GCNetError, as `rles` does, if the detector has no mask heads.
        """
        return paste_masks(self._mask_probs(), self.mask_frames, self.image_size)

    def rles(self) -> list[dict[str, Any]]:
        """The masks as COCO run-length encodings, which are found without drawing them."""
        probs, frames = self._mask_probs().float().cpu().numpy(), self.mask_frames.cpu().numpy()
        counts = encode_masks(probs, frames, self.image_size)
        return [{"size": list(self.image_size), "counts": text.decode("ascii")} for text in counts]

    def _mask_probs(self) -> Float[Tensor, "D M M"]:
        if self.mask_probs is None:
            raise GCNetError("these detections have no masks: their detector finds boxes alone")
        return self.mask_probs


@dataclass(frozen=True)
class ClassTargets:
    """What a classifier should say of a batch: the share of each class in each image, rows that sum to 1.

    A share and not a label, because smoothing and mixing of images divide it among classes.
    """

    shares: Float[Tensor, "N K"]

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, part: slice) -> ClassTargets:
        """The targets of a slice of the images."""
        return ClassTargets(self.shares[part])

    def to(self, device: torch.device | str) -> ClassTargets:
        return ClassTargets(self.shares.to(device, non_blocking=True))

    def pin_memory(self) -> ClassTargets:
        return ClassTargets(self.shares.pin_memory())


@dataclass(frozen=True)
class Classification:
    """The most probable classes of one image, best first; probabilities in [0, 1] over all classes."""

    labels: Int64[Tensor, " T"]
    probabilities: Float[Tensor, " T"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)
