"""Generated images: how their textures, clutter and lamp are painted.

H x W pixels, S times as many each way in an *enlarged* mask, which is how outlines keep smooth edges.
A canvas is H x W x 3 float32 RGB in 0..255 and is painted in place. `unit` is the length of one pixel of
the default image size: what is drawn grows with the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

HALO = 1.7  # radius of the lamp's glow, in radii of the lamp
SUPERSAMPLING = 4
SMALLEST_FRAGMENT = 10.0  # square pixels; smaller visible parts of an object are not annotated


@dataclass(frozen=True)
class Circle:
    """A place in the image, in pixels."""

    x: float
    y: float
    radius: float

    def gap(self, other: Circle) -> float:
        return float(np.hypot(self.x - other.x, self.y - other.y)) - self.radius - other.radius


def fill(outline: np.ndarray, size: int) -> np.ndarray:
    """(size * S, size * S) bool: the enlarged pixels whose centre is inside an outline, (P, 2) xy."""
    enlarged = np.zeros((size * SUPERSAMPLING,) * 2, np.uint8)
    # OpenCV puts integer coordinates on pixel centres, COCO on pixel corners: half a pixel apart.
    points = np.round((outline * SUPERSAMPLING - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(enlarged, [points], 1, cv2.LINE_8, 4)
    return enlarged.view(bool)


def _covered(
    canvas: np.ndarray, mask: np.ndarray, margin: int = 0
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """The canvas around an enlarged mask, the share of each pixel that it covers, and where that is (x, y).

    One pixel at least, `margin` more on each side.
    """
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    size, s = len(canvas), SUPERSAMPLING
    x1, y1 = max(0, left // s - margin), max(0, top // s - margin)
    x2 = min(size, -(-(left + width) // s) + margin) or 1
    y2 = min(size, -(-(top + height) // s) + margin) or 1
    part = mask[y1 * s : y2 * s, x1 * s : x2 * s].astype(np.float32)
    share = cv2.resize(part, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA)
    return canvas[y1:y2, x1:x2], share, (x1, y1)


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The outer outlines of an enlarged mask in image pixels, without parts below `SMALLEST_FRAGMENT`."""
    found, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    simpler = (cv2.approxPolyDP(contour, 0.8, True)[:, 0] for contour in found)
    polygons = ((contour + 0.5) / SUPERSAMPLING for contour in simpler if len(contour) >= 3)
    return [polygon for polygon in polygons if area(polygon) >= SMALLEST_FRAGMENT]


def area(polygon: np.ndarray) -> float:
    """Square pixels inside a (P, 2) polygon, by the shoelace formula."""
    x, y = polygon.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def _muted_color(rng: np.random.Generator, darkest: float = 40.0, brightest: float = 235.0) -> np.ndarray:
    """(3,) RGB, never as saturated as a lamp."""
    value, saturation = rng.uniform(darkest, brightest), rng.uniform(0.0, 0.3)
    shade = rng.uniform(0, 1, 3)
    shade = (shade - shade.min()) / max(float(np.ptp(shade)), 1e-3)
    return (value * (1 - saturation * (1 - shade))).astype(np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, ...], bump: float) -> np.ndarray:
    """(height, width) = shape float32 smooth noise in 0..1 with bumps about `bump` pixels across."""
    height, width = shape
    cells = max(2, round(height / bump)), max(2, round(width / bump))
    coarse = rng.random(cells, np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def _texture(rng: np.random.Generator, shape: tuple[int, ...], unit: float) -> np.ndarray:
    """(*shape, 3) float32: two muted colours in stripes, checks or blotches."""
    first, second = _muted_color(rng), _muted_color(rng)
    angle, pitch, contrast = rng.uniform(0, np.pi), rng.uniform(5, 12) * unit, rng.uniform(0.5, 2)
    kind = rng.integers(3)
    if kind == 2:
        pattern = 2 * noise(rng, shape, pitch) - 1
    else:
        pattern = np.sin(_ramp(shape, angle) * np.float32(2 * np.pi / pitch))
    if kind == 1:
        pattern *= np.sin(_ramp(shape, angle + np.pi / 2) * np.float32(2 * np.pi / pitch))
    mix = np.clip(0.5 + contrast * pattern, 0, 1)[..., None]
    return first + (second - first) * mix


def _ramp(shape: tuple[int, ...], angle: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """(height, width) = shape float32 pixels from (x, y), measured along the direction `angle`."""
    height, width = shape
    across = (np.arange(width, dtype=np.float32) - np.float32(x)) * np.float32(np.cos(angle))
    down = (np.arange(height, dtype=np.float32) - np.float32(y)) * np.float32(np.sin(angle))
    return across + down[:, None]


def background(rng: np.random.Generator, size: int, unit: float) -> np.ndarray:
    """A canvas of two muted colours, mixed in clouds of several sizes."""
    first, second = _muted_color(rng, 50.0, 170.0), _muted_color(rng, 50.0, 170.0)
    layers = ((0.5, 48), (0.3, 16), (0.2, 4))
    mix = sum(share * noise(rng, (size, size), bump * unit) for share, bump in layers)
    return first + (second - first) * np.asarray(mix)[..., None]


def add_clutter(rng: np.random.Generator, canvas: np.ndarray, unit: float) -> np.ndarray:
    """The canvas under textured patches, discs, rings and wires."""
    size = len(canvas)
    for _ in range(rng.integers(2, 5)):
        centre, sides = rng.uniform(0, size, 2), rng.uniform(12, 60, 2) * unit
        box = cv2.boxPoints((centre.tolist(), sides.tolist(), rng.uniform(0, 180)))
        cover(rng, canvas, fill(box, size), unit, opacity=rng.uniform(0.4, 0.9))
    drawing = canvas.clip(0, 255).astype(np.uint8)  # OpenCV smooths edges in 8 bits only
    for _ in range(rng.integers(6, 14)):
        centre, axes = _fixed_point(rng.uniform(0, size, 2)), _fixed_point(rng.uniform(2, 12, 2) * unit)
        color = _muted_color(rng).tolist()
        width = -1 if rng.random() < 0.6 else max(1, round(2 * unit))
        cv2.ellipse(drawing, centre, axes, rng.uniform(0, 180), 0, 360, color, width, cv2.LINE_AA, 4)
    for _ in range(rng.integers(4, 10)):
        knots = rng.uniform(-0.1, 1.1, (3, 2)) * size
        t = np.linspace(0, 1, 24)[:, None]
        curve = (1 - t) ** 2 * knots[0] + 2 * t * (1 - t) * knots[1] + t**2 * knots[2]
        width = max(1, round(rng.uniform(1, 3.5) * unit))
        points = [np.round(curve * 16).astype(np.int32)]
        cv2.polylines(drawing, points, False, _muted_color(rng).tolist(), width, cv2.LINE_AA, 4)
    return drawing.astype(np.float32)


def _fixed_point(values: np.ndarray) -> tuple[int, int]:
    return round(values[0] * 16), round(values[1] * 16)


def add_object(
    rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray, place: Circle, unit: float
) -> None:
    """A soft shadow, a textured face lit from one side, and a rim that is lighter or darker than it."""
    part, share, (left, top) = _covered(canvas, mask, margin=round(8 * unit))
    part *= (1 - 0.5 * cv2.GaussianBlur(share, (0, 0), 2.5 * unit))[..., None]
    angle = rng.uniform(0, 2 * np.pi)
    slope = _ramp(share.shape, angle, place.x - left, place.y - top) / np.float32(place.radius)
    face = _texture(rng, share.shape, unit) * (1 + 0.2 * slope.clip(-1, 1))[..., None]
    rim = np.clip(1 - cv2.GaussianBlur(share, (0, 0), 1.2 * unit), 0, 0.5)[..., None] * 2
    edge = np.float32(245 if rng.random() < 0.5 else 12)
    face += (edge - face) * rim * rng.uniform(0.6, 0.9)
    part += (face - part) * share[..., None]


def cover(
    rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray, unit: float, opacity: float = 1.0
) -> None:
    """Paints a mask in some texture."""
    part, share, _ = _covered(canvas, mask)
    part += (_texture(rng, share.shape, unit) - part) * (share * np.float32(opacity))[..., None]


def add_lamp(canvas: np.ndarray, lamp: Circle, color: np.ndarray) -> None:
    """A dark housing, a white ring, and a saturated core; the glow ends at `HALO` radii exactly."""
    reach = HALO * lamp.radius + 1
    left, top = max(0, int(lamp.x - reach)), max(0, int(lamp.y - reach))
    part = canvas[top : int(lamp.y + reach) + 1, left : int(lamp.x + reach) + 1]
    x = np.arange(part.shape[1]) + (left + 0.5 - lamp.x)
    y = np.arange(part.shape[0]) + (top + 0.5 - lamp.y)
    r = np.hypot(x, y[:, None]).astype(np.float32) / np.float32(lamp.radius)
    glow = np.clip((HALO - r) / (HALO - 1), 0, 1) ** 2 * 0.6
    part += (color - part) * glow[..., None]
    hot = np.exp(-((r / 0.25) ** 2))[..., None] * 0.7
    layers = ((1.0, np.float32(22)), (0.84, np.float32(250)), (0.72, color + (255 - color) * hot))
    for radius, paint in layers:
        inside = np.clip((radius - r) * np.float32(lamp.radius) + 0.5, 0, 1)[..., None]
        part += (paint - part) * inside


def with_noise(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """The canvas as an image, uint8, with the noise of a camera."""
    canvas += rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(2, 6))
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
