"""The requests and responses of the service, as types: they check requests, make JSON, and describe the API.

D detections, P points of an outline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field

from gcnet.found import Classified, Found
from gcnet.types import Classification
from gcnet.viz.canvas import Piece

Masks = Literal["rle", "polygon", "none"]
Outline = list[float]

FINEST, LONGEST = 8, 512  # an outline is found on a grid: cells in a pixel, and in the box's long side


class Nothing(BaseModel):
    """No options."""

    model_config = ConfigDict(extra="forbid")


class Least(Nothing):
    """The score threshold of a request."""

    score_threshold: float | None = Field(
        None, ge=0, le=1, description="what scores above it is given; by default as the service was started"
    )


class Options(Least):
    """The options of a request to a detector."""

    masks: Masks = Field("rle", description="how masks are given: see Detection")


class ClassOptions(Nothing):
    """The options of a request to a classifier."""

    top: int = Field(5, ge=1, description="how many classes are given")


class Urls(Options):
    """Addresses of images, and the options for a detector."""

    urls: list[str] = Field(min_length=1, max_length=16)


class ClassUrls(ClassOptions):
    """Addresses of images, and the options for a classifier."""

    urls: list[str] = Field(min_length=1, max_length=16)


class Rle(BaseModel):
    """A mask as a compressed run-length encoding of COCO's."""

    size: list[int] = Field(description="height, width")
    counts: str


class Detection(BaseModel):
    """An object. Coordinates are pixels of the image as given, turned as its EXIF orientation says."""

    box: list[float] = Field(description="x1, y1, x2, y2", min_length=4, max_length=4)
    score: float
    label: int = Field(description="counts from 0")
    class_name: str
    mask: Rle | list[Outline] | None = Field(
        None,
        description="`rle`: COCO's run-length encoding. `polygon`: outlines x, y, x, y, ...; what lies in an "
        "even number of them is not in the mask. `none`, or a model of boxes alone: null",
    )


class Objects(BaseModel):
    """The detections in an image, best first."""

    detections: list[Detection]
    width: int
    height: int

    @classmethod
    def of(cls, found: Found, class_names: Sequence[str], masks: Masks) -> Objects:
        """Boxes are rounded to 1/1000 pixel and scores to seven digits, as in results files."""
        boxes = found.boxes.astype(np.float64).round(3).tolist()
        scores = found.scores.astype(np.float64).round(7).tolist()
        labels: list[int] = found.labels.tolist()
        columns = zip(boxes, scores, labels, _masks(found, masks), strict=True)
        detections = [
            Detection(box=box, score=score, label=label, class_name=class_names[label], mask=mask)
            for box, score, label, mask in columns
        ]
        return cls(detections=detections, width=found.image_size[1], height=found.image_size[0])


class Class(BaseModel):
    """A class and its probability."""

    label: int = Field(description="counts from 0")
    class_name: str
    probability: float = Field(description="in [0, 1] over all classes")


class Classes(BaseModel):
    """The most probable classes of an image, best first."""

    classes: list[Class]

    @classmethod
    def of(cls, found: Classification | Classified) -> Classes:
        """Probabilities are rounded to seven digits."""
        columns = zip(found.labels.tolist(), found.names, found.probabilities.tolist(), strict=True)
        return cls(
            classes=[Class(label=i, class_name=name, probability=round(p, 7)) for i, name, p in columns]
        )


class Map(BaseModel):
    """The attention map of one block; of a block with a map for each query, that of the middle."""

    block: str = Field(description="stage and place: c4.0 is the first block of c4")
    png: str = Field(description="a gray PNG in base64, brighter where the block looks")


class Attention(BaseModel):
    """The attention maps of the context blocks for an image."""

    maps: list[Map]
    filled: list[float] = Field(
        description="share of a map's width and height, from the top left, that is image"
    )
    width: int
    height: int


class Problem(BaseModel):
    """Why there is no result."""

    detail: str


class Results(BaseModel):
    """A result for each address, in their order."""

    results: list[Objects | Classes | Problem]


class Health(BaseModel):
    """Whether requests are accepted."""

    live: bool
    ready: bool
    model: str


def _masks(found: Found, masks: Masks) -> Sequence[Rle | list[Outline] | None]:
    if masks == "none" or found.mask_probs is None:
        return [None] * len(found)
    if masks == "polygon":
        pairs = zip(found.mask_probs, found.frames.astype(np.float64).tolist(), strict=True)
        return [mask_outlines(probs, box, found.image_size) for probs, box in pairs]
    size = list(found.image_size)
    return [Rle(size=size, counts=text.decode("ascii")) for text in found.encoded() or ()]


def mask_outlines(probs: Float[np.ndarray, "M M"], box: list[float], size: tuple[int, int]) -> list[Outline]:
    """The outlines of a mask and of its holes, in pixels of an image of `size` (height, width).

    They are found on a grid that is finer than the pixels of a small object and coarser than those of a
    large one, so that their time does not grow with the image.
    """
    longest = max(box[2] - box[0], box[3] - box[1], 1.0)
    scale = min(FINEST, LONGEST / longest)
    whole = (round(size[0] * scale), round(size[1] * scale))
    piece = Piece.of_detection([side * scale for side in box], probs, whole)
    rows, columns = piece.window
    # One cell of nothing around it, so that what leaves the image is closed.
    contours, _ = cv2.findContours(np.pad(piece.mask, 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    offset = np.array([columns.start, rows.start]) - 0.5  # to the middle of a cell
    lines = (cv2.approxPolyDP(contour, 0.5, True)[:, 0] for contour in contours)
    return [((line + offset) / scale).round(2).ravel().tolist() for line in lines if len(line) > 2]
