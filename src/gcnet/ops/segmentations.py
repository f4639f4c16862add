"""Instance masks as annotations store them: polygons or COCO run-length encodings (RLE).

G objects, P points, H x W image. Coordinates are pixels, with (0, 0) the outer corner of the first pixel, as
in COCO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from pycocotools import mask

from gcnet.console import shown
from gcnet.errors import GCNetError

coco_mask: Any = mask  # its type stubs know only half of what it accepts

# Pixels of outline that pycocotools draws at a time: it takes memory in proportion, 40 bytes a pixel.
LONGEST_OUTLINE = 5_000_000
_FAR = 1e9  # further out, sums of coordinates lose pixels

# Polygons, each (P, 2) float64 x, y; or a compressed COCO RLE {"size": [height, width], "counts": bytes}.
Segmentation: TypeAlias = list[np.ndarray] | dict[str, Any]


def parse_segmentation(raw: Any, height: int, width: int) -> tuple[Segmentation, int]:
    """A segmentation as JSON holds it, made uniform, and how many of its parts were no outlines.

    Polygons are x, y, x, y, ... or pairs of x, y; one alone may come without the list around it. Parts of
    fewer than 3 points, of odd length, or with something that is not a finite number are left out. An RLE
    has counts as a list or a string. Raises GCNetError saying what is wrong with one; the caller adds where.
    """
    if isinstance(raw, dict):
        return _parse_rle(raw, height, width), 0
    if not isinstance(raw, list):
        return [], 1
    if len(raw) > 2 and all(isinstance(part, (int, float)) or _is_pair(part) for part in raw):
        raw = [raw]
    polygons = [polygon for part in raw if (polygon := parse_polygon(part)) is not None]
    return polygons, len(raw) - len(polygons)


def parse_polygon(raw: Any) -> Float[np.ndarray, "P 2"] | None:
    """The points of a polygon; None if it has fewer than three, or values that are no numbers."""
    try:
        points = np.array(raw, np.float64)
    except (TypeError, ValueError, OverflowError):  # text, lists of unequal depth, endless integers
        return None
    if points.ndim == 1 and points.size % 2 == 0:
        points = points.reshape(-1, 2)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
        return None
    return points


def outline_bounds(segmentations: Sequence[Segmentation]) -> Float[np.ndarray, "G 4"]:
    """The box (xyxy) around each; NaN where it is empty."""
    bounds = np.full((len(segmentations), 4), np.nan)
    rles = [i for i, one in enumerate(segmentations) if isinstance(one, dict)]
    if rles:
        boxes = np.asarray(coco_mask.toBbox([segmentations[i] for i in rles]), np.float64)
        bounds[rles] = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    drawn = [i for i, one in enumerate(segmentations) if isinstance(one, list) and one]
    if drawn:
        lengths = [sum(map(len, segmentations[i])) for i in drawn]
        starts = np.cumsum([0, *lengths[:-1]])
        points = np.concatenate([polygon for i in drawn for polygon in segmentations[i]])
        bounds[drawn, :2] = np.minimum.reduceat(points, starts)
        bounds[drawn, 2:] = np.maximum.reduceat(points, starts)
    return bounds


def outline_length(segmentation: Segmentation) -> float:
    """The length of polygons in pixels, where a slanted step counts as its longer side; 0 of an RLE."""
    if isinstance(segmentation, dict):
        return 0.0
    steps = (np.abs(np.diff(polygon, axis=0, append=polygon[:1])).max(1).sum() for polygon in segmentation)
    return float(sum(steps))


def resize_segmentation(
    segmentation: Segmentation, scale_x: float, scale_y: float, size: tuple[int, int]
) -> Segmentation:
    """The segmentation in an image resized by (scale_x, scale_y) to `size` (height, width)."""
    if not isinstance(segmentation, dict):
        return [polygon * (scale_x, scale_y) for polygon in segmentation]
    if tuple(segmentation["size"]) == size:
        return segmentation
    height, width = size
    # Nearest, because that is how the reference resizes its bitmaps.
    return mask_to_rle(
        cv2.resize(rle_to_mask(segmentation), (width, height), interpolation=cv2.INTER_NEAREST)
    )


def flip_segmentation(segmentation: Segmentation, width: float) -> Segmentation:
    """The segmentation mirrored left to right in an image `width` pixels wide."""
    if isinstance(segmentation, dict):
        return mask_to_rle(rle_to_mask(segmentation)[:, ::-1])
    return [polygon * (-1, 1) + (width, 0) for polygon in segmentation]


def move_segmentation(
    segmentation: Segmentation, matrix: Float[np.ndarray, "2 3"], size: tuple[int, int]
) -> Segmentation:
    """The segmentation in an image of `size` (height, width) to whose pixels `matrix` takes those of its own.

    Points go where they are taken, also out of the image. Of an RLE, what leaves the image is lost.
    """
    if not isinstance(segmentation, dict):
        return [polygon @ matrix[:, :2].T + matrix[:, 2] for polygon in segmentation]
    pixels = matrix.copy()  # OpenCV counts from the middle of the first pixel
    pixels[:, 2] += (matrix[:, :2].sum(1) - 1) / 2
    height, width = size
    return mask_to_rle(
        cv2.warpAffine(rle_to_mask(segmentation), pixels, (width, height), flags=cv2.INTER_NEAREST)
    )


def crop_segmentation(segmentation: Segmentation, size: tuple[int, int]) -> Segmentation:
    """The part of it that lies in an image of `size`; polygons are cut at the borders."""
    return segmentation if isinstance(segmentation, dict) else crop_polygons(segmentation, size)


def crop_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> list[np.ndarray]:
    """What of each polygon lies in an image of `size`; none of those that lie outside."""
    height, width = size
    cut = []
    for polygon in polygons:
        polygon = polygon.clip(-_FAR, _FAR)
        for axis, sign, limit in ((0, 1, 0), (0, -1, width), (1, 1, 0), (1, -1, height)):
            polygon = _cut(polygon, sign * (polygon[:, axis] - limit))
        if len(polygon) > 2:
            cut.append(polygon.clip(0, (width, height)))  # rounding
    return cut


def _cut(polygon: Float[np.ndarray, "P 2"], inside: Float[np.ndarray, " P"]) -> Float[np.ndarray, "P2 2"]:
    """The part of a polygon where `inside`, a linear function of its points, is not negative.

    (Sutherland and Hodgman, "Reentrant polygon clipping", 1974.)
    """
    if (inside >= 0).all():
        return polygon
    points = []
    for a, b, u, v in zip(polygon, np.roll(polygon, -1, 0), inside, np.roll(inside, -1), strict=True):
        if u >= 0:
            points.append(a)
        if (u >= 0) != (v >= 0):
            points.append(a + (b - a) * (u / (u - v)))
    return np.array(points, np.float64).reshape(-1, 2)


def cover_segmentation(segmentation: Segmentation, cover: UInt8[np.ndarray, "H W"]) -> Segmentation:
    """What is left of it beside `cover` in an image of that size, as an RLE; itself if nothing is covered."""
    if not segmentation:
        return segmentation
    bitmap = segmentation_to_mask(segmentation, (cover.shape[0], cover.shape[1]))
    return mask_to_rle(bitmap & ~cover & 1) if (bitmap & cover).any() else segmentation


def segmentation_to_mask(segmentation: Segmentation, size: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
    """The mask, 0 and 1, in an image of `size` (height, width)."""
    return rle_to_mask(segmentation_to_rle(segmentation, *size))


def segmentation_to_rle(segmentation: Segmentation, height: int, width: int) -> dict[str, Any]:
    """A compressed RLE of the segmentation in an image of height x width."""
    if isinstance(segmentation, dict):
        return segmentation
    if not segmentation:
        return mask_to_rle(np.zeros((height, width), np.uint8))
    # The outline is very long if a tiny region lies on a large object; then its pixels are filled instead.
    if sum(map(len, segmentation)) * _extent(segmentation) > LONGEST_OUTLINE < outline_length(segmentation):
        return _fill(segmentation, height, width)
    flat = [np.ravel(polygon) for polygon in segmentation]
    rles = coco_mask.frPyObjects(flat, height, width)
    return rles[0] if len(rles) == 1 else coco_mask.merge(rles)


def _extent(polygons: Sequence[np.ndarray]) -> float:
    return float(max(np.ptp(polygon) for polygon in polygons))


def _fill(polygons: Sequence[np.ndarray], height: int, width: int) -> dict[str, Any]:
    """An RLE of polygons by OpenCV, which rounds to pixels."""
    canvas = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [polygon.clip(-1e6, 1e6).round().astype(np.int32)], 1)
    return mask_to_rle(canvas)


def segmentation_area(segmentation: Segmentation, height: int, width: int) -> float:
    """Area in pixels inside an image of height x width."""
    return float(coco_mask.area(segmentation_to_rle(segmentation, height, width)))


def _is_pair(part: Any) -> bool:
    return isinstance(part, list) and len(part) == 2 and all(isinstance(x, (int, float)) for x in part)


def _parse_rle(raw: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    size, counts = raw.get("size"), raw.get("counts")
    if size != [height, width]:
        raise GCNetError(f"its RLE has size {shown(size)}, its image is {[height, width]} (height, width)")
    pixels = height * width
    if isinstance(counts, list) and all(isinstance(n, int) and 0 <= n <= pixels for n in counts):
        runs = counts
    elif isinstance(counts, (str, bytes)) and counts.isascii():
        counts = counts.encode() if isinstance(counts, str) else counts
        runs = run_lengths(counts)
    else:
        raise GCNetError(
            f"its RLE counts are neither a string nor a list of whole numbers of 0 to {pixels} pixels"
        )
    # pycocotools does not check RLEs: it reads and writes past the end if one does not fill its mask.
    if sum(runs) != pixels:
        raise GCNetError(f"its RLE covers {sum(runs)} pixels, its image has {height} x {width}")
    rle = {"size": [height, width], "counts": counts}
    return coco_mask.frPyObjects(rle, height, width) if isinstance(counts, list) else rle


def run_lengths(text: bytes) -> list[int]:
    """The lengths of the runs in a compressed RLE: 5 bits a character, low ones first; all but the first
    three are differences from the last run but one.
    """
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 0x20) == 0) + 1
    lengths = np.diff(ends, prepend=0)
    if not len(ends) or ends[-1] != len(codes) or codes.min() < 0 or codes.max() > 63 or lengths.max() > 7:
        raise GCNetError("its RLE counts are not a compressed run-length string")
    starts = ends - lengths
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 0x1F) << (5 * places), starts)
    runs = np.where(codes[ends - 1] & 0x10, runs - (1 << (5 * lengths)), runs)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    if runs.min() < 0:
        raise GCNetError("its RLE counts are not a compressed run-length string")
    return runs.tolist()


def rle_to_mask(rle: dict[str, Any]) -> UInt8[np.ndarray, "H W"]:
    """The mask of an RLE, 0 and 1."""
    return coco_mask.decode(rle)


def mask_to_rle(bitmap: UInt8[np.ndarray, "H W"] | Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """The compressed RLE of a mask of 0 and 1."""
    return coco_mask.encode(np.asfortranarray(bitmap, np.uint8))
