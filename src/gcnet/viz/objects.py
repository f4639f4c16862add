"""Pictures of what a model finds and of what is annotated.

H x W images, D detections, G annotated objects. Images are RGB uint8. Masks are drawn one
at a time and only where their box is, so that a hundred objects on a large photograph cost no memory.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import supervision as sv
from jaxtyping import Bool, UInt8
from pycocotools import mask
from torch import Tensor

from gcnet.data.coco import ImageRecord
from gcnet.errors import GCNetError
from gcnet.ops.masks import paste_mask
from gcnet.ops.segmentations import Segmentation, segmentation_to_rle
from gcnet.types import Detections, Targets
from gcnet.viz.canvas import as_canvas

coco_mask: Any = mask  # its type stubs know only half of what it accepts

Window = tuple[slice, slice]  # rows, columns

MASK_OPACITY = 0.4


def draw_detections(
    image: np.ndarray,
    detections: Detections,
    class_names: Sequence[str],
    score_threshold: float = 0.0,
    *,
    enlarge: int = 1,
) -> np.ndarray:
    """The image under masks, boxes, names and scores.

    Args:
        image: H x W x 3 RGB or H x W gray, uint8, as large as `detections.image_size`.
        detections: in pixels of `image`.
        class_names: by label.
        score_threshold: detections that score less are left out.
        enlarge: whole factor on the result's size; a small image has no room for names without it.

    Returns:
        H x W x 3 RGB uint8 (times `enlarge`), a new array.

    Raises:
        GCNetError: the image is not uint8, or its size is not that of the detections.
    """
    canvas = as_canvas(image, enlarge)
    if image.shape[:2] != tuple(detections.image_size):
        raise GCNetError(
            f"cannot draw: the image is {image.shape[:2]}, the detections are for {detections.image_size} "
            "(height, width); give the image that was predicted"
        )
    kept = detections[detections.scores >= score_threshold].to("cpu")
    boxes = kept.boxes * enlarge
    pieces = [_Piece.of_detection(b, p, canvas.shape) for b, p in zip(boxes, kept.mask_probs, strict=True)]
    names = [_name(class_names, int(label)) for label in kept.labels]
    texts = [f"{name} {score:.2f}" for name, score in zip(names, kept.scores.tolist(), strict=True)]
    return _draw(canvas, pieces, boxes.numpy(), kept.labels.numpy(), texts, len(class_names))


def draw_targets(
    image: np.ndarray, targets: ImageRecord | Targets, class_names: Sequence[str], *, enlarge: int = 1
) -> np.ndarray:
    """The image under annotated masks, boxes and names; crowd regions are named as such.

    Arguments and result are as in `draw_detections`; targets are in pixels of `image`.
    """
    canvas = as_canvas(image, enlarge)
    if isinstance(targets, ImageRecord):
        objects = targets.instances
        boxes = np.array([item.box for item in objects], np.float32).reshape(-1, 4)
        labels = np.array([item.label for item in objects], int)
        masks: Sequence[Segmentation] = [item.segmentation for item in objects]
        crowd = [item.crowd for item in objects]
    else:
        boxes, labels, masks = targets.boxes.cpu().numpy(), targets.labels.cpu().numpy(), targets.masks
        crowd = [False] * len(labels)
    boxes = boxes * enlarge
    pieces = [_Piece.of_segmentation(b, m, canvas.shape, enlarge) for b, m in zip(boxes, masks, strict=True)]
    names = (_name(class_names, label) for label in labels.tolist())
    texts = [name + " (crowd)" * many for name, many in zip(names, crowd, strict=True)]
    return _draw(canvas, pieces, boxes, labels, texts, len(class_names))


def class_colors(count: int) -> UInt8[np.ndarray, "K 3"]:
    """RGB colours that neighbours in the class list do not share: hues a golden angle apart."""
    shades = ((0.62, 1.0), (0.85, 0.9), (0.5, 0.9))
    colors = [colorsys.hsv_to_rgb((0.58 + i * 0.618034) % 1, *shades[i % 3]) for i in range(max(count, 1))]
    return (np.array(colors) * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class _Piece:
    """A mask, only where its box is."""

    window: Window
    mask: Bool[np.ndarray, "h w"]

    @classmethod
    def of_detection(cls, box: Tensor, probs: Tensor, shape: Sequence[int]) -> _Piece:
        (rows, columns), offset = _window(box.numpy(), shape)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        return cls((rows, columns), paste_mask(probs, box - box.new_tensor(offset * 2), size).numpy())

    @classmethod
    def of_segmentation(
        cls, box: np.ndarray, segmentation: Segmentation, shape: Sequence[int], enlarge: int
    ) -> _Piece:
        (rows, columns), offset = _window(box, shape)
        if isinstance(segmentation, dict):
            bitmap = coco_mask.decode(segmentation).astype(bool)
            bitmap = bitmap.repeat(enlarge, 0).repeat(enlarge, 1)[rows, columns]
        elif rows.stop == rows.start or columns.stop == columns.start:
            bitmap = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        else:
            moved = [polygon * enlarge - offset for polygon in segmentation]
            height, width = rows.stop - rows.start, columns.stop - columns.start
            bitmap = coco_mask.decode(segmentation_to_rle(moved, height, width)).astype(bool)
        return cls((rows, columns), bitmap)


def _window(box: np.ndarray, shape: Sequence[int]) -> tuple[Window, tuple[int, int]]:
    """The rows and columns of an image of `shape` around a box, and their x, y offset."""
    x1, y1 = np.floor(box[:2]).astype(int) - 1
    x2, y2 = np.ceil(box[2:]).astype(int) + 1
    (top, bottom), (left, right) = (
        np.clip((low, high), 0, side).tolist() for low, high, side in ((y1, y2, shape[0]), (x1, x2, shape[1]))
    )
    return (slice(top, max(top, bottom)), slice(left, max(left, right))), (left, top)


def _name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if label < len(class_names) else f"class {label}"


def _draw(
    canvas: np.ndarray,
    pieces: Sequence[_Piece],
    boxes: np.ndarray,
    labels: np.ndarray,
    texts: Sequence[str],
    classes: int,
) -> np.ndarray:
    """Masks, then boxes, then names, so that no name hides under a mask; small objects over large ones."""
    colors = class_colors(max([classes, *(labels + 1).tolist()]))
    side = float(np.sqrt(canvas.shape[0] * canvas.shape[1]))
    thickness = max(1, round(side / 450))
    order = np.argsort([-piece.mask.size for piece in pieces], kind="stable").astype(int)
    for i in order:
        _draw_mask(canvas, pieces[i], colors[labels[i]], thickness)
    if len(pieces):
        _draw_names(
            canvas, boxes[order], labels[order], [str(texts[i]) for i in order], colors, thickness, side
        )
    return canvas


def _draw_mask(canvas: np.ndarray, piece: _Piece, color: np.ndarray, thickness: int) -> None:
    """Tints the pixels of a mask and draws its outline, coloured on dark to show on any background."""
    if not piece.mask.any():
        return
    part = canvas[piece.window]
    tinted = part[piece.mask] * (1 - MASK_OPACITY) + color.astype(np.float32) * MASK_OPACITY
    part[piece.mask] = tinted.astype(np.uint8)
    contours, _ = cv2.findContours(piece.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rows, columns = piece.window
    for ink, width in (((20, 20, 20), thickness + 2), (color.tolist(), thickness)):
        cv2.drawContours(canvas, contours, -1, ink, width, cv2.LINE_AA, offset=(columns.start, rows.start))


def _draw_names(
    canvas: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    texts: Sequence[str],
    colors: np.ndarray,
    thickness: int,
    side: float,
) -> None:
    found = sv.Detections(xyxy=boxes.astype(np.float32), class_id=labels.astype(int))
    palette = sv.ColorPalette([_ink(color) for color in colors])
    dark = colors @ (0.299, 0.587, 0.114) > 130
    ink = sv.ColorPalette([_ink(np.zeros(3) if light else np.full(3, 255)) for light in dark])
    shadow = sv.BoxAnnotator(sv.Color(20, 20, 20), thickness=thickness + 2)
    frame = sv.BoxAnnotator(palette, thickness=thickness)
    names = sv.LabelAnnotator(
        palette,
        text_color=ink,
        # Slower than the image: names are to be read, not to fill it.
        text_scale=0.4 * max(1.0, side / 500) ** 0.8,
        text_thickness=max(1, round(side / 900)),
        text_padding=max(2, round(side / 220)),
        smart_position=True,
    )
    frame.annotate(shadow.annotate(canvas, found), found)
    names.annotate(canvas, found, list(texts))


def _ink(color: np.ndarray) -> sv.Color:
    # supervision thinks in OpenCV's BGR; the canvas is RGB, so red and blue change places.
    red, green, blue = (int(value) for value in color)
    return sv.Color(blue, green, red)
