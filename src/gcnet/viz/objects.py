"""Pictures of what a model finds and of what is annotated.

H x W images, D detections, G annotated objects. Images are RGB uint8. Masks are on a layer over the image
(`gcnet.viz.layer`), frames and names (`gcnet.viz.names`) on both.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import UInt8

from gcnet.data.dataset import ImageRecord
from gcnet.errors import GCNetError
from gcnet.ops.segmentations import Segmentation
from gcnet.types import Detections, Targets
from gcnet.viz.canvas import as_canvas
from gcnet.viz.layer import Layer, Piece
from gcnet.viz.names import draw_frames, draw_names


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
    layer = Layer.over(canvas)
    shown = (kept.boxes * (enlarge / layer.step)).tolist()
    probs = [] if kept.mask_probs is None else kept.mask_probs.float().numpy()
    pieces = [partial(Piece.of_detection, b, p, layer.size) for b, p in zip(shown, probs, strict=False)]
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
        objects = [item for item in targets.instances if item.usable]
        boxes = np.array([item.box for item in objects], np.float32).reshape(-1, 4)
        labels = np.array([item.label for item in objects], int)
        masks: Sequence[Segmentation] = [item.segmentation for item in objects]
        crowd = [item.crowd for item in objects]
    else:
        boxes, labels, masks = targets.boxes.cpu().numpy(), targets.labels.cpu().numpy(), targets.masks
        crowd = [False] * len(labels)
    layer = Layer.over(canvas)
    scale = enlarge / layer.step
    pieces = [
        partial(Piece.of_segmentation, b, m, layer.size, scale)
        for b, m in zip((boxes * scale).tolist(), masks, strict=True)
    ]
    names = (_name(class_names, label) for label in labels.tolist())
    texts = [name + " (crowd)" * many for name, many in zip(names, crowd, strict=True)]
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
