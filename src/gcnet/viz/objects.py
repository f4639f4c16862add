"""Drawings of detections and of annotated objects.

H x W images, D objects in the order in which they are drawn: the last is in front. Images are RGB uint8.
Masks are on a layer over the image (`gcnet.viz.canvas`), frames and names on both.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from gcnet.console import printable
from gcnet.data.dataset import ImageRecord
from gcnet.errors import GCNetError
from gcnet.found import AnyDetections
from gcnet.ops.segmentations import Segmentation
from gcnet.viz.canvas import DARK, FONT, Layer, Piece, as_canvas, line_width

TRACKS = 64  # colours, after which they come again

# Where a name may go if another is where it should, in heights of a name.
ACROSS, DOWN = np.arange(-20, 20.5, 0.5), np.arange(-10, 10.5, 0.5)


def draw_detections(
    image: np.ndarray,
    detections: AnyDetections,
    class_names: Sequence[str],
    score_threshold: float = 0.0,
    *,
    enlarge: int = 1,
    tracks: Int[np.ndarray, " _"] | None = None,
) -> np.ndarray:
    """Draws masks, boxes, names and scores on a copy of an image.

    Args:
        image: H x W x 3 RGB or H x W gray, uint8, as large as `detections.image_size`.
        detections: in pixels of `image`.
        class_names: name of each class, in the order of the labels.
        score_threshold: in [0, 1]; detections that score less are left out.
        enlarge: integer factor on the size of the result; small images need it to have room for names.
        tracks: track number of each detection, negative for none. It is written behind the name, and each
            track has a colour of its own.

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
    found = detections.arrays()
    shown = found.scores >= score_threshold
    kept = found[shown]
    layer = Layer.over(canvas)
    frames = (kept.frames * (enlarge / layer.step)).tolist()
    probs = [] if kept.mask_probs is None else kept.mask_probs
    pieces = [partial(Piece.of_detection, b, p, layer.size) for b, p in zip(frames, probs, strict=False)]
    names = [_name(class_names, int(label)) for label in kept.labels]
    texts = [f"{name} {score:.2f}" for name, score in zip(names, kept.scores.tolist(), strict=True)]
    if tracks is None:
        return _draw(canvas, layer, pieces, kept.boxes * enlarge, kept.labels, texts, len(class_names))
    numbers = tracks[shown]
    texts = [f"#{n} {text}" if n >= 0 else text for n, text in zip(numbers.tolist(), texts, strict=True)]
    return _draw(canvas, layer, pieces, kept.boxes * enlarge, numbers % TRACKS, texts, TRACKS)


def draw_targets(
    image: np.ndarray,
    targets: Any,
    class_names: Sequence[str],
    *,
    scores: Sequence[float] | None = None,
    enlarge: int = 1,
) -> np.ndarray:
    """Draws annotated masks, boxes and names on a copy of an image; crowds and ignored ones are labelled so.

    Arguments and result are as in `draw_detections`; `targets` are an `ImageRecord`, or
    `gcnet.types.Targets`, in pixels of `image`. With `scores` of all usable ones, these stand behind the
    names.
    """
    canvas = as_canvas(image, enlarge)
    if isinstance(targets, ImageRecord):
        objects = [item for item in targets.instances if item.usable]
        boxes = np.array([item.box for item in objects], np.float32).reshape(-1, 4)
        labels = np.array([item.label for item in objects], int)
        masks: Sequence[Segmentation] = [item.segmentation for item in objects]
        marks = [" (crowd)" if item.crowd else " (ignored)" if item.ignore else "" for item in objects]
    else:
        boxes, labels, masks = targets.boxes.cpu().numpy(), targets.labels.cpu().numpy(), targets.masks
        marks = [""] * len(labels)
    layer = Layer.over(canvas)
    scale = enlarge / layer.step
    pieces = [
        partial(Piece.of_segmentation, b, m, layer.size, scale)
        for b, m in zip((boxes * scale).tolist(), masks, strict=True)
    ]
    names = (_name(class_names, label) for label in labels.tolist())
    texts = [name + mark for name, mark in zip(names, marks, strict=True)]
    if scores is not None:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, scores, strict=True)]
    return _draw(canvas, layer, pieces, boxes * enlarge, labels, texts, len(class_names))


def class_colors(count: int) -> UInt8[np.ndarray, "K 3"]:
    """RGB colours that neighbours in the class list do not share: hues a golden angle apart."""
    shades = ((0.62, 1.0), (0.85, 0.9), (0.5, 0.9))
    colors = [colorsys.hsv_to_rgb((0.58 + i * 0.618034) % 1, *shades[i % 3]) for i in range(max(count, 1))]
    return (np.array(colors) * 255).round().astype(np.uint8)


def _name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if label < len(class_names) else f"class {label}"


def _draw(
    canvas: np.ndarray,
    layer: Layer,
    pieces: Sequence[Callable[[], Piece]],
    boxes: np.ndarray,
    labels: np.ndarray,
    texts: Sequence[str],
    classes: int,
) -> np.ndarray:
    """Masks if there are some, then boxes, then names: no name hides under a mask. Small objects come last.

    A piece is made when its turn comes: a hundred that fill the layer would take as much memory as the image.
    """
    palette = class_colors(max([classes, *(labels + 1).tolist()]))
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")
    colors, corners = palette[labels[order]], boxes[order].astype(int)
    for i, color in zip(order, colors, strict=True):
        if pieces:
            layer.draw(pieces[i](), color)
    layer.lay_over(canvas)
    draw_frames(canvas, corners, colors)
    draw_names(canvas, corners[:, :2], [str(texts[i]) for i in order], colors)
    return canvas


def draw_frames(
    canvas: UInt8[np.ndarray, "H W 3"], boxes: Int[np.ndarray, "D 4"], colors: UInt8[np.ndarray, "D 3"]
) -> None:
    """Draws boxes into the image, coloured on dark to show on any background."""
    width = line_width(canvas)
    for x1, y1, x2, y2 in boxes.tolist():
        cv2.rectangle(canvas, (x1, y1), (x2, y2), DARK, width + 2)
    for (x1, y1, x2, y2), color in zip(boxes.tolist(), colors.tolist(), strict=True):
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, width)


def draw_names(
    canvas: UInt8[np.ndarray, "H W 3"],
    corners: Int[np.ndarray, "D 2"],
    texts: Sequence[str],
    colors: UInt8[np.ndarray, "D 3"],
) -> None:
    """Writes names above `corners` (x, y), each on a plate of its colour; see `place_names`."""
    height, width = canvas.shape[:2]
    side = float(np.sqrt(height * width))
    # Slower than the image: names are to be read, not to fill it.
    scale = 0.4 * max(1.0, side / 500) ** 0.8
    thickness, padding = max(1, round(side / 900)), max(2, round(side / 220))
    texts = [*map(printable, texts)]  # as in sheets
    extents = [cv2.getTextSize(text, FONT, scale, thickness)[0] for text in texts]
    sizes = np.array(extents, int).reshape(-1, 2) + 2 * padding
    wanted = np.stack([corners[:, 0], corners[:, 1] - sizes[:, 1]], 1)
    places = place_names(wanted, sizes, (width, height))
    light = colors @ (0.299, 0.587, 0.114) > 130
    for i, (x, y) in enumerate(places.tolist()):
        plate_width, plate_height = sizes[i].tolist()
        cv2.rectangle(canvas, (x, y), (x + plate_width, y + plate_height), colors[i].tolist(), cv2.FILLED)
        foot = (x + padding, y + plate_height - padding)
        ink = (0, 0, 0) if light[i] else (255, 255, 255)
        cv2.putText(canvas, texts[i], foot, FONT, scale, ink, thickness, cv2.LINE_AA)


def place_names(
    wanted: Int[np.ndarray, "D 2"], sizes: Int[np.ndarray, "D 2"], frame: tuple[int, int]
) -> Int[np.ndarray, "D 2"]:
    """The positions of names: where they should be, or the nearest that is free or least covered.

    The ones in front choose first. All are inside the frame, or begin there.

    Args:
        wanted: left top corners (x, y).
        sizes: widths and heights.
        frame: width and height of the image.
    """
    places = np.zeros_like(wanted)
    for i in reversed(range(len(wanted))):
        height = sizes[i, 1] + 2  # with a line between two names
        (x, y), (x_end, y_end) = wanted[i], np.array(frame) - sizes[i]
        xs = np.maximum(np.minimum(x + ACROSS * height, x_end), 0)
        ys = np.maximum(np.minimum(y + DOWN * height, y_end), 0)
        across, down = (
            _common(first, sizes[i, axis] + 2, places[i + 1 :, axis], sizes[i + 1 :, axis] + 2)
            for axis, first in enumerate((xs, ys))
        )
        covered = down @ across.T
        distance = (ys - y)[:, None] ** 2 + (xs - x) ** 2
        row, column = divmod(np.where(covered == covered.min(), distance, np.inf).argmin(), len(xs))
        places[i] = xs[column], ys[row]
    return places


def _common(
    first: Float[np.ndarray, " P"],
    length: np.integer,
    others: Int[np.ndarray, " D"],
    lengths: Int[np.ndarray, " D"],
) -> Float[np.ndarray, "P D"]:
    """How much of each of P intervals of one length lies in each of D others."""
    ends = np.minimum(first[:, None] + length, others + lengths)
    return (ends - np.maximum(first[:, None], others)).clip(0)
