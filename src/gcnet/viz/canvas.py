"""The canvas of drawings: a copy of an image, and a transparent layer of masks over it.

H x W image, h x w layer or part of it, M x M grid of probabilities over a box. A layer has a few megapixels
at most: a hundred objects on a large photograph cost little more than on a small one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gcnet.errors import GCNetError
from gcnet.ops.rle import MASK_THRESHOLD, sample_positions, window
from gcnet.ops.segmentations import Segmentation, rle_to_mask, segmentation_to_mask

FONT = cv2.FONT_HERSHEY_SIMPLEX
DARK = (20, 20, 20)  # around coloured lines, to show on any background

MASK_OPACITY = 0.4
LAYER_SIDE = 900  # pixels, of a square as large as a layer; lines on it are two pixels wide


def as_canvas(image: np.ndarray, enlarge: int) -> np.ndarray:
    """A copy to draw on: RGB, contiguous, enlarged."""
    channels = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or channels.ndim != 3 or channels.shape[2] not in (1, 3):
        raise GCNetError(
            f"cannot draw on an image of {image.dtype} and shape {image.shape}: "
            "give H x W x 3 RGB or H x W gray, uint8"
        )
    canvas = np.array(np.broadcast_to(channels, (*channels.shape[:2], 3)), order="C")
    if enlarge == 1:
        return canvas
    return cv2.resize(canvas, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)


def resized(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The image in another size (height, width)."""
    smaller = size[0] < image.shape[0]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def at_most(image: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """The image, made smaller where its longer side has more than so many pixels."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(round(edge * scale), 1) for edge in image.shape[:2])
    return resized(image, (height, width))


def line_width(canvas: np.ndarray) -> int:
    """The width of frames and outlines [px], which grows with the image."""
    return max(1, round(float(np.sqrt(canvas.shape[0] * canvas.shape[1])) / 450))


@dataclass(frozen=True)
class Piece:
    """A mask within its box: 0 is background."""

    window: tuple[slice, slice]  # rows, columns
    mask: UInt8[np.ndarray, "h w"]

    @classmethod
    def of_detection(cls, box: list[float], probs: Float[np.ndarray, "M M"], size: tuple[int, int]) -> Piece:
        """As `gcnet.ops.masks.paste_masks`, by matrix products; a pixel in a million may differ."""
        rows, columns = window(box, size)
        down = _weights(rows, box[1], box[3], len(probs))
        across = _weights(columns, box[0], box[2], len(probs))
        samples = down @ (probs @ across.T)
        return cls((rows, columns), (samples >= MASK_THRESHOLD).view(np.uint8))

    @classmethod
    def of_segmentation(
        cls, box: list[float], segmentation: Segmentation, size: tuple[int, int], scale: float
    ) -> Piece:
        """An annotated mask; `box` is in pixels of the layer, which are `scale` of the segmentation's."""
        rows, columns = window(box, size)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if not height or not width:
            bitmap = np.zeros((0, 0), np.uint8)
        elif isinstance(segmentation, dict):
            whole = rle_to_mask(segmentation)
            bitmap = cv2.resize(whole, size[::-1], interpolation=cv2.INTER_NEAREST)[rows, columns]
        else:
            moved = [polygon * scale - (columns.start, rows.start) for polygon in segmentation]
            bitmap = segmentation_to_mask(moved, (height, width))
        return cls((rows, columns), np.ascontiguousarray(bitmap))


@dataclass(frozen=True)
class Layer:
    """A layer over an image: RGBA; each of its pixels covers `step` x `step` of the image's.

    Colours are premultiplied: black where it is transparent.
    """

    pixels: UInt8[np.ndarray, "h w 4"]
    step: int

    @classmethod
    def over(cls, canvas: UInt8[np.ndarray, "H W 3"]) -> Layer:
        """An empty layer over an image."""
        step = max(1, int(np.sqrt(canvas.shape[0] * canvas.shape[1]) / LAYER_SIDE))
        return cls(np.zeros((-(-canvas.shape[0] // step), -(-canvas.shape[1] // step), 4), np.uint8), step)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def draw(self, piece: Piece, color: UInt8[np.ndarray, " 3"]) -> None:
        """Tints the pixels of a mask and draws its outline, coloured on dark to show on any background."""
        if not piece.mask.any():
            return
        ink = np.append(color, np.uint8(255))
        part = self.pixels[piece.window]
        # Four bytes at a time; OpenCV with one colour in place of an image takes three times as long.
        plain = np.full(part.shape[:2], ink.view(np.uint32)[0]).view(np.uint8).reshape(part.shape)
        tinted = cv2.addWeighted(part, 1 - MASK_OPACITY, plain, MASK_OPACITY, 0)
        cv2.copyTo(tinted, piece.mask, part)
        contours, _ = cv2.findContours(piece.mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        # Half a pixel off at most, with a third of the lines, each of which takes its time.
        contours = [cv2.approxPolyDP(contour, 0.5, True) for contour in contours]
        width = line_width(self.pixels)
        rows, columns = piece.window
        for line, wide in (((*DARK, 255), width + 2), (ink.tolist(), width)):
            offset = (columns.start, rows.start)
            cv2.drawContours(self.pixels, contours, -1, line, wide, cv2.LINE_AA, offset=offset)

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


def _weights(pixels: slice, low: float, high: float, grid: int) -> Float[np.ndarray, "P M"]:
    """The weight of each of `grid` cells over [low, high] at the centre of each pixel."""
    cells, shares = sample_positions(pixels.start, pixels.stop, low, high, grid)
    weights = np.zeros((len(cells), grid + 2), np.float32)  # an empty cell at either end
    every = np.arange(len(cells))
    weights[every, cells], weights[every, cells + 1] = 1 - shares, shares
    return weights[:, 1:-1]
