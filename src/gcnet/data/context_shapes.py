"""Context shapes: rendered pictures in which an object's class depends on a lamp far away from it.

Every picture holds one lit lamp (the cue) and a few textured stars and gears, all in one mess of lines,
blobs and noise. The class of an object is its shape *and* the colour of the lamp, so that a detector that
sees only locally can find and outline the objects but must guess between the classes. That is what the
global context block is for (arXiv 1904.11492). docs/context-shapes.md shows how the pictures are drawn.

Nothing but the lamp knows the cue: the same seed with another cue gives the same picture, pixel for pixel,
outside the lamp's halo. Lengths are given for the default size of 192 pixels and grow with the size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gcnet.errors import GCNetError

SHAPES = ("star", "gear")
CUES = ("red", "green", "blue")
CLASS_NAMES = tuple(f"{shape}/{cue}" for shape in SHAPES for cue in CUES)

LAMP_COLORS = np.array([[255, 24, 16], [16, 235, 40], [24, 64, 255]], np.float32)
REFERENCE_SIZE = 192
HALO = 1.7  # radius of the lamp's glow, in radii of the lamp
CLEARANCE = 66.0  # pixels from the lamp's centre to the circle around any object
SUPERSAMPLING = 4  # outlines are drawn this much larger, then averaged down
SMALLEST_FRAGMENT = 10.0  # square pixels; crumbs that an occluder leaves over are not annotated


@dataclass(frozen=True)
class Circle:
    """A place in the picture, in pixels."""

    x: float
    y: float
    radius: float

    def gap(self, other: Circle) -> float:
        return float(np.hypot(self.x - other.x, self.y - other.y)) - self.radius - other.radius


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        image: H x W x 3 uint8 RGB.
        cue: index into `CUES`.
        lamp: where the lamp is; its halo reaches `HALO` radii.
        labels: index into `CLASS_NAMES` of each object.
        polygons: for each object the outlines of its visible parts, each (P, 2) float64 xy in pixels.
    """

    image: np.ndarray
    cue: int
    lamp: Circle
    labels: tuple[int, ...]
    polygons: tuple[list[np.ndarray], ...]


def draw_scene(seed: int | Sequence[int], *, cue: int, size: int = REFERENCE_SIZE) -> Scene:
    """One picture of `size` x `size` pixels. Everything but the lamp's colour comes from `seed` alone."""
    rng = np.random.default_rng(seed)
    unit = size / REFERENCE_SIZE
    lamp, places = _arrange(rng, size)
    canvas = _background(rng, size)
    _scatter_clutter(rng, canvas, unit)

    shapes = rng.integers(len(SHAPES), size=len(places))
    visible: list[np.ndarray] = []
    for shape, place in zip(shapes, places, strict=True):
        outline = (_star if SHAPES[shape] == "star" else _gear)(rng, place)
        mask = _fill(outline, size)
        _paint_object(rng, canvas, mask, place, unit)
        visible = [below & ~mask for below in visible] + [mask]
    for place in places:
        if rng.random() < 0.35:
            mask = _fill(_occluder(rng, place), size)
            _blend(canvas, mask, _texture(rng, size))
            visible = [below & ~mask for below in visible]

    _light(rng, canvas)
    _paint_lamp(canvas, lamp, LAMP_COLORS[cue])
    canvas += rng.normal(0, rng.uniform(2, 6), canvas.shape).astype(np.float32)
    polygons = [_outlines(mask) for mask in visible]
    kept = [i for i, parts in enumerate(polygons) if parts]
    return Scene(
        image=np.clip(canvas + 0.5, 0, 255).astype(np.uint8),
        cue=cue,
        lamp=lamp,
        labels=tuple(int(shapes[i]) * len(CUES) + cue for i in kept),
        polygons=tuple(polygons[i] for i in kept),
    )


def write_context_shapes(
    folder: str | Path, *, train: int = 400, valid: int = 50, seed: int = 0, size: int = REFERENCE_SIZE
) -> Path:
    """Writes the data set as PNG and COCO JSON, one folder a split: `train/_annotations.coco.json`, ...

    The same arguments give the same files; picture i of a split does not depend on how many there are.
    `train` and `valid` count pictures. Returns `folder`.
    Raises GCNetError if the folder cannot be written or a number makes no sense.
    """
    folder = Path(folder)
    if min(train, valid) < 0 or train + valid == 0 or size < 96:
        raise GCNetError(
            f"cannot draw {train} train and {valid} valid pictures of {size} pixels: "
            "ask for at least one picture of 96 pixels or more"
        )
    try:
        for index, (split, count) in enumerate((("train", train), ("valid", valid))):
            if count:
                _write_split(folder / split, count, (seed, index), size)
    except OSError as error:
        raise GCNetError(f"cannot write the data set to {folder} ({error}): choose another folder") from error
    return folder


def _write_split(folder: Path, count: int, seed: tuple[int, int], size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, cue in enumerate(_cues(count, seed)):
        scene = draw_scene((*seed, i), cue=cue, size=size)
        name = f"{i + 1:05d}.png"
        _, png = cv2.imencode(".png", scene.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
        (folder / name).write_bytes(png.tobytes())
        lamp = [round(value, 2) for value in (scene.lamp.x, scene.lamp.y, scene.lamp.radius)]
        images.append(
            {"id": i + 1, "file_name": name, "width": size, "height": size, "cue": CUES[cue], "lamp": lamp}
        )
        for label, polygons in zip(scene.labels, scene.polygons, strict=True):
            annotations.append(_annotation(len(annotations) + 1, i + 1, label, polygons))
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)]
    info = {"description": "context shapes", "seed": seed[0], "size": size}
    text = json.dumps(
        {"info": info, "images": images, "annotations": annotations, "categories": categories}
    )
    (folder / "_annotations.coco.json").write_text(text)


def _cues(count: int, seed: tuple[int, int]) -> list[int]:
    """As many pictures of each cue as possible, in random order."""
    rng = np.random.default_rng((*seed, 0, 1))  # longer than any picture's seed: a stream of its own
    rounds = [rng.permutation(len(CUES)) for _ in range(-(-count // len(CUES)))]
    return np.concatenate(rounds)[:count].tolist()


def _annotation(annotation_id: int, image_id: int, label: int, polygons: list[np.ndarray]) -> dict[str, Any]:
    points = np.concatenate(polygons)
    low, high = points.min(0), points.max(0)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": label + 1,
        "segmentation": [polygon.round(2).ravel().tolist() for polygon in polygons],
        "bbox": np.concatenate([low, high - low]).round(2).tolist(),
        "area": round(sum(_area(polygon) for polygon in polygons), 2),
        "iscrowd": 0,
    }


# Composition ------------------------------------------------------------------------------------------


def _arrange(rng: np.random.Generator, size: int) -> tuple[Circle, list[Circle]]:
    """The lamp near the border, and one to four objects well away from it and from each other."""
    unit = size / REFERENCE_SIZE
    radius = rng.uniform(11, 14) * unit
    along, depth = rng.uniform(0.1, 0.9) * size, rng.uniform(16, 34) * unit
    side = rng.integers(4)
    x, y = (along, depth) if side % 2 else (depth, along)
    lamp = Circle(size - x, size - y, radius) if side >= 2 else Circle(x, y, radius)

    clear_of_lamp = CLEARANCE * unit - radius
    wanted, places = rng.integers(1, 5), []
    for _ in range(60):
        r = np.exp(rng.uniform(np.log(13), np.log(30))) * unit
        place = Circle(*rng.uniform(r + 1, size - r - 1, 2), r)
        # A negative gap lets neighbours touch: gears and stars rarely fill their circles.
        clear = all(place.gap(other) > -0.25 * min(r, other.radius) for other in places)
        if clear and place.gap(lamp) > clear_of_lamp:
            places.append(place)
        if len(places) == wanted:
            break
    return lamp, places


def _star(rng: np.random.Generator, place: Circle) -> np.ndarray:
    inner = rng.uniform(0.44, 0.52)
    radii = np.tile([1.0, inner], 5)
    return _around(place, rng.uniform(0, 2 * np.pi) + np.arange(10) * np.pi / 5, radii)


def _gear(rng: np.random.Generator, place: Circle) -> np.ndarray:
    teeth, root = int(rng.integers(7, 10)), rng.uniform(0.72, 0.78)
    # Each tooth: up, along the top, down, along the root; tops are a little narrower than feet.
    steps = (np.arange(teeth)[:, None] + np.array([0.0, 0.09, 0.41, 0.5])) * 2 * np.pi / teeth
    radii = np.tile([root, 1.0, 1.0, root], teeth)
    return _around(place, rng.uniform(0, 2 * np.pi) + steps.ravel(), radii)


def _occluder(rng: np.random.Generator, place: Circle) -> np.ndarray:
    """A pebble that hides a part of an object's rim."""
    angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.45) * place.radius
    centre = Circle(
        place.x + 0.85 * place.radius * np.cos(angle), place.y + 0.85 * place.radius * np.sin(angle), size
    )
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wave = 1 + 0.15 * np.sin(2 * angles + rng.uniform(0, 6)) + 0.1 * np.sin(3 * angles + rng.uniform(0, 6))
    return _around(centre, angles, wave)


def _around(place: Circle, angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    rays = np.stack([np.cos(angles), np.sin(angles)], 1) * (radii * place.radius)[:, None]
    return rays + (place.x, place.y)


# Paint ------------------------------------------------------------------------------------------------


def _muted_color(rng: np.random.Generator, darkest: float = 40, brightest: float = 235) -> np.ndarray:
    """(3,) RGB, never as saturated as a lamp."""
    value, saturation = rng.uniform(darkest, brightest), rng.uniform(0.05, 0.5)
    shade = rng.uniform(0, 1, 3)
    shade = (shade - shade.min()) / max(float(np.ptp(shade)), 1e-3)
    return (value * (1 - saturation * (1 - shade))).astype(np.float32)


def _noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """(size, size) float32 smooth noise in 0..1 with about `cells` bumps a side."""
    coarse = rng.random((cells, cells), np.float32)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) float32: two muted colours in stripes, checks or blotches, with grain."""
    first, second = _muted_color(rng), _muted_color(rng)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(5, 12)
    along = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / pitch)
    across = (y * np.cos(angle) - x * np.sin(angle)) * (2 * np.pi / pitch)
    kind = rng.integers(3)
    if kind == 0:
        pattern = np.sin(along)
    elif kind == 1:
        pattern = np.sin(along) * np.sin(across)
    else:
        pattern = 2 * _noise(rng, size, int(rng.integers(size // 12, size // 5))) - 1
    mix = np.clip(0.5 + rng.uniform(0.5, 2) * pattern, 0, 1)[..., None]
    return first + (second - first) * mix + rng.normal(0, 5, (size, size, 1)).astype(np.float32)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    first, second = _muted_color(rng, 50, 170), _muted_color(rng, 50, 170)
    mix = 0.5 * _noise(rng, size, 4) + 0.3 * _noise(rng, size, 12) + 0.2 * _noise(rng, size, 48)
    return np.ascontiguousarray(first + (second - first) * mix[..., None])


def _scatter_clutter(rng: np.random.Generator, canvas: np.ndarray, unit: float) -> None:
    size = len(canvas)
    for _ in range(rng.integers(2, 5)):  # textured patches
        box = cv2.boxPoints((rng.uniform(0, size, 2), rng.uniform(12, 60, 2) * unit, rng.uniform(0, 180)))
        _blend(canvas, _fill(box, size), _texture(rng, size), rng.uniform(0.4, 0.9))
    for _ in range(rng.integers(6, 14)):  # discs and ellipses
        centre, axes = _fixed_point(rng.uniform(0, size, 2)), _fixed_point(rng.uniform(2, 12, 2) * unit)
        color = _muted_color(rng).tolist()
        width = -1 if rng.random() < 0.6 else max(1, round(2 * unit))
        cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, color, width, cv2.LINE_AA, 4)
    for _ in range(rng.integers(4, 10)):  # wires
        knots = rng.uniform(-0.1, 1.1, (3, 2)) * size
        t = np.linspace(0, 1, 24)[:, None]
        curve = (1 - t) ** 2 * knots[0] + 2 * t * (1 - t) * knots[1] + t**2 * knots[2]
        width = max(1, round(rng.uniform(1, 3.5) * unit))
        points = [np.round(curve * 16).astype(np.int32)]
        cv2.polylines(canvas, points, False, _muted_color(rng).tolist(), width, cv2.LINE_AA, 4)


def _fixed_point(values: np.ndarray) -> tuple[int, int]:
    return round(values[0] * 16), round(values[1] * 16)


def _paint_object(
    rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray, place: Circle, unit: float
) -> None:
    """A soft shadow, a textured face lit from one side, and a rim that is lighter or darker than it."""
    size = len(canvas)
    cover = _coverage(mask)
    blur = cv2.GaussianBlur(cover, (0, 0), 2.5 * unit)
    canvas *= 1 - 0.5 * blur[..., None]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = ((x - place.x) * np.cos(angle) + (y - place.y) * np.sin(angle)) / place.radius
    face = _texture(rng, size) * (1 + 0.2 * np.clip(slope, -1, 1))[..., None]
    rim = np.clip(1 - cv2.GaussianBlur(cover, (0, 0), 1.2 * unit), 0, 0.5)[..., None] * 2
    edge = np.float32(245 if rng.random() < 0.5 else 12)
    face += (edge - face) * rim * rng.uniform(0.6, 0.9)
    canvas += (face - canvas) * cover[..., None]


def _light(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Uneven light over the whole picture."""
    canvas *= (0.75 + 0.5 * _noise(rng, len(canvas), 3))[..., None]


def _paint_lamp(canvas: np.ndarray, lamp: Circle, color: np.ndarray) -> None:
    """A dark housing, a white ring, and a saturated core; the glow ends at `HALO` radii exactly."""
    size = len(canvas)
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    distance = np.hypot(x - lamp.x, y - lamp.y)
    pixel = 1 / lamp.radius
    r = distance * pixel
    glow = np.clip((HALO - r) / (HALO - 1), 0, 1) ** 2 * 0.6
    canvas += (color - canvas) * glow[..., None]
    hot = np.exp(-((r / 0.25) ** 2))[..., None] * 0.7
    layers = ((1.0, np.float32(22)), (0.84, np.float32(250)), (0.72, color + (255 - color) * hot))
    for radius, paint in layers:
        inside = np.clip((radius - r) / pixel + 0.5, 0, 1)[..., None]
        canvas += (paint - canvas) * inside


# Outlines ---------------------------------------------------------------------------------------------


def _fill(outline: np.ndarray, size: int) -> np.ndarray:
    """(size * S, size * S) bool: the enlarged pixels whose centre is inside an outline, (P, 2) xy."""
    enlarged = np.zeros((size * SUPERSAMPLING,) * 2, np.uint8)
    # OpenCV puts integer coordinates on pixel centres, COCO on pixel corners: half a pixel apart.
    points = np.round((outline * SUPERSAMPLING - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(enlarged, [points], 1, cv2.LINE_8, 4)
    return enlarged.astype(bool)


def _coverage(mask: np.ndarray) -> np.ndarray:
    """(size, size) float32 share of each pixel that an enlarged mask covers."""
    size = len(mask) // SUPERSAMPLING
    return cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)


def _blend(canvas: np.ndarray, mask: np.ndarray, paint: np.ndarray, opacity: float = 1.0) -> None:
    canvas += (paint - canvas) * (_coverage(mask) * opacity)[..., None]


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The outer outlines of an enlarged mask in picture pixels, without crumbs."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    simpler = (cv2.approxPolyDP(contour, 0.8, True)[:, 0] for contour in found)
    polygons = ((contour + 0.5) / SUPERSAMPLING for contour in simpler if len(contour) >= 3)
    return [polygon for polygon in polygons if _area(polygon) >= SMALLEST_FRAGMENT]


def _area(polygon: np.ndarray) -> float:
    """Square pixels inside a (P, 2) polygon, by the shoelace formula."""
    x, y = polygon.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
