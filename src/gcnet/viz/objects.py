"""Pictures of what a model finds and of what is annotated.

H x W images, h x w layer, D detections, G annotated objects. Images are RGB uint8. Masks are drawn one at a
time and only where their box is, on a transparent layer of a megapixel or less that is then laid over the
image: a hundred objects on a large photograph cost little more than on a small one.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
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
LAYER_SIDE = 900  # pixels, of a square as large as a layer; lines on it are two pixels wide


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
    layer = _Layer.over(canvas)
    shown = kept.boxes * (enlarge / layer.step)
    pieces = [
        partial(_Piece.of_detection, b, p, layer.size) for b, p in zip(shown, kept.mask_probs, strict=True)
    ]
    names = [_name(class_names, int(label)) for label in kept.labels]
    texts = [f"{name} {score:.2f}" for name, score in zip(names, kept.scores.tolist(), strict=True)]
    boxes = (kept.boxes * enlarge).numpy()
    return _draw(canvas, layer, pieces, boxes, kept.labels.numpy(), texts, len(class_names))


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
    layer = _Layer.over(canvas)
    scale = enlarge / layer.step
    pieces = [
        partial(_Piece.of_segmentation, b * scale, m, layer.size, scale)
        for b, m in zip(boxes, masks, strict=True)
    ]
    names = (_name(class_names, label) for label in labels.tolist())
    texts = [name + " (crowd)" * many for name, many in zip(names, crowd, strict=True)]
    return _draw(canvas, layer, pieces, boxes * enlarge, labels, texts, len(class_names))


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
        cls, box: np.ndarray, segmentation: Segmentation, shape: Sequence[int], scale: float
    ) -> _Piece:
        (rows, columns), offset = _window(box, shape)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if isinstance(segmentation, dict):
            bitmap = coco_mask.decode(segmentation)
            bitmap = cv2.resize(bitmap, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)[rows, columns]
        elif not height or not width:
            bitmap = np.zeros((height, width))
        else:
            moved = [polygon * scale - offset for polygon in segmentation]
            bitmap = coco_mask.decode(segmentation_to_rle(moved, height, width))
        return cls((rows, columns), bitmap.astype(bool))


@dataclass(frozen=True)
class _Layer:
    """What is laid over an image: RGBA, each pixel as large as `step` x `step` of the image's.

    Colours are premultiplied: black where it is transparent.
    """

    pixels: UInt8[np.ndarray, "h w 4"]
    step: int

    @classmethod
    def over(cls, canvas: UInt8[np.ndarray, "H W 3"]) -> _Layer:
        step = max(1, int(np.sqrt(canvas.shape[0] * canvas.shape[1]) / LAYER_SIDE))
        return cls(np.zeros((-(-canvas.shape[0] // step), -(-canvas.shape[1] // step), 4), np.uint8), step)

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    def draw(self, piece: _Piece, color: np.ndarray) -> None:
        """Tints the pixels of a mask and draws its outline, coloured on dark to show on any background."""
        if not piece.mask.any():
            return
        part, mask = self.pixels[piece.window], piece.mask.astype(np.uint8)
        ink = (*color.tolist(), 255)
        levels = np.arange(256)[:, None] * (1 - MASK_OPACITY) + np.array(ink) * MASK_OPACITY
        tinted = cv2.LUT(part, levels.astype(np.uint8)[None])
        part[:] = cv2.copyTo(tinted, mask, part.copy())
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        # Half a pixel off at most, with a third of the lines, each of which takes its time.
        contours = [cv2.approxPolyDP(contour, 0.5, True) for contour in contours]
        thickness = max(1, round(float(np.sqrt(self.pixels.shape[0] * self.pixels.shape[1])) / 450))
        rows, columns = piece.window
        for line, width in (((20, 20, 20, 255), thickness + 2), (ink, thickness)):
            offset = (columns.start, rows.start)
            cv2.drawContours(self.pixels, contours, -1, line, width, cv2.LINE_AA, offset=offset)

    def lay_over(self, canvas: UInt8[np.ndarray, "H W 3"], band: int = 64) -> None:
        """Blends the layer into the image, some rows at a time."""
        height, width = self.size
        for top in range(0, height, band):
            # A row more on either side, so that bands meet without a seam.
            first, last = max(top - 1, 0), min(top + band + 1, height)
            rows = self.pixels[first:last]
            target = canvas[top * self.step : (top + band) * self.step]
            if not rows[..., 3].any() or not len(target):
                continue
            if self.step > 1:
                size = (width * self.step, len(rows) * self.step)
                rows = cv2.resize(rows, size, interpolation=cv2.INTER_LINEAR)
            skip = (top - first) * self.step
            rows = rows[skip : skip + len(target), : target.shape[1]]
            clear = cv2.cvtColor(255 - rows[..., 3], cv2.COLOR_GRAY2RGB)
            color = cv2.cvtColor(rows, cv2.COLOR_RGBA2RGB)
            target[:] = cv2.add(cv2.multiply(target, clear, scale=1 / 255), color)


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
    layer: _Layer,
    pieces: Sequence[Callable[[], _Piece]],
    boxes: np.ndarray,
    labels: np.ndarray,
    texts: Sequence[str],
    classes: int,
) -> np.ndarray:
    """Masks, then boxes, then names, so that no name hides under a mask; small objects over large ones.

    A piece is made when its turn comes: a hundred that fill the layer would take as much memory as the image.
    """
    colors = class_colors(max([classes, *(labels + 1).tolist()]))
    side = float(np.sqrt(canvas.shape[0] * canvas.shape[1]))
    thickness = max(1, round(side / 450))
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")
    for i in order:
        layer.draw(pieces[i](), colors[labels[i]])
    layer.lay_over(canvas)
    if len(pieces):
        _draw_names(
            canvas, boxes[order], labels[order], [str(texts[i]) for i in order], colors, thickness, side
        )
    return canvas


def _draw_names(
    canvas: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    texts: Sequence[str],
    colors: np.ndarray,
    thickness: int,
    side: float,
) -> None:
    import supervision as sv  # with scipy, two seconds: `gcnet predict` takes them beside the network

    found = sv.Detections(xyxy=boxes.astype(np.float32), class_id=labels.astype(int))
    palette = sv.ColorPalette([sv.Color(*_bgr(color)) for color in colors])
    dark = colors @ (0.299, 0.587, 0.114) > 130
    ink = sv.ColorPalette([sv.Color(*([0] * 3 if light else [255] * 3)) for light in dark])
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


def _bgr(color: np.ndarray) -> tuple[int, int, int]:
    # supervision thinks in OpenCV's BGR; the canvas is RGB, so red and blue change places.
    red, green, blue = (int(value) for value in color)
    return blue, green, red
