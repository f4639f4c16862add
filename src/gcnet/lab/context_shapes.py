"""Context shapes: rendered images in which an object's class depends on a lamp far away from it.

Every image holds one lit lamp (the cue) and a few textured stars and gears, all in one mess of lines,
blobs and noise. The class of an object is its shape *and* the colour of the lamp, so that a detector that
sees only locally can find and outline the objects but must guess between the classes. That is what the
global context block is for (arXiv 1904.11492). docs/context-shapes.md shows how the images are drawn.

Nothing but the lamp knows the cue: the same seed with another cue gives the same image, pixel for pixel,
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
from gcnet.files import disk_errors, write_bytes
from gcnet.lab import paint
from gcnet.lab.paint import Circle

SHAPES = ("star", "gear")
CUES = ("red", "green", "blue")
ANNOTATIONS, DESCRIPTION = "_annotations.coco.json", "context shapes"
CLASS_NAMES = tuple(f"{shape}/{cue}" for shape in SHAPES for cue in CUES)

LAMP_COLORS = np.array([[255, 24, 16], [16, 235, 40], [24, 64, 255]], np.float32)
REFERENCE_SIZE, SMALLEST = 192, 96
CLEARANCE = 66.0  # pixels from the lamp's centre to the circle around any object


@dataclass(frozen=True)
class Scene:
    """An image and what is in it.

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
    """One image of `size` x `size` pixels. Everything but the lamp's colour comes from `seed` alone."""
    rng = np.random.default_rng(seed)
    unit = size / REFERENCE_SIZE
    lamp, places = _arrange(rng, size)
    canvas = paint.add_clutter(rng, paint.background(rng, size, unit), unit)

    shapes = rng.integers(len(SHAPES), size=len(places))
    visible: list[np.ndarray] = []
    for drawn, place in zip(shapes, places, strict=True):
        outline = (_star if SHAPES[drawn] == "star" else _gear)(rng, place)
        mask = paint.fill(outline, size)
        paint.add_object(rng, canvas, mask, place, unit)
        visible = [below & ~mask for below in visible] + [mask]
    for place in places:
        if rng.random() < 0.35:
            mask = paint.fill(_occluder(rng, place), size)
            paint.cover(rng, canvas, mask, unit)
            visible = [below & ~mask for below in visible]

    canvas *= (0.75 + 0.5 * paint.noise(rng, (size, size), 64 * unit))[..., None]  # uneven light
    paint.add_lamp(canvas, lamp, LAMP_COLORS[cue])
    image = paint.with_noise(rng, canvas)
    polygons = [paint.outlines(mask) for mask in visible]
    kept = [i for i, parts in enumerate(polygons) if parts]
    return Scene(
        image=image,
        cue=cue,
        lamp=lamp,
        labels=tuple(int(shapes[i]) * len(CUES) + cue for i in kept),
        polygons=tuple(polygons[i] for i in kept),
    )


def write_context_shapes(
    folder: str | Path, *, train: int = 800, valid: int = 50, seed: int = 0, size: int = REFERENCE_SIZE
) -> Path:
    """Writes the data set as PNG and COCO JSON, one folder a split: `train/_annotations.coco.json`, ...

    The same arguments give the same files; image i of a split does not depend on how many there are.
    `train` and `valid` count images. Returns `folder`.
    Raises GCNetError if the folder cannot be written, holds another data set, or a number makes no sense.
    """
    folder, counts = Path(folder), {"train": train, "valid": valid}
    if min(train, valid, seed) < 0 or not train + valid or size < SMALLEST:
        raise GCNetError(
            f"cannot draw {train} train and {valid} valid images of {size} pixels with seed {seed}: "
            f"ask for at least one image, {SMALLEST} pixels or more, and a seed that is not negative"
        )
    with disk_errors(folder):
        for split in counts:
            known = folder / split / ANNOTATIONS
            if known.is_file() and DESCRIPTION.encode() not in known.read_bytes():
                raise GCNetError(
                    f"{known} is another data set's, and would be replaced: choose another folder"
                )
        for index, (split, count) in enumerate(counts.items()):
            if count:
                (folder / split).mkdir(parents=True, exist_ok=True)
                _write_split(folder / split, count, (seed, index), size)
    return folder


def _write_split(folder: Path, count: int, seed: tuple[int, int], size: int) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ours = (folder / ANNOTATIONS).exists()
    rng = np.random.default_rng((*seed, 0, 1))  # longer than any image's seed: a stream of its own
    rounds = [rng.permutation(len(CUES)) for _ in range(-(-count // len(CUES)))]  # as many of each as may be
    for i, cue in enumerate(np.concatenate(rounds)[:count].tolist()):
        scene = draw_scene((*seed, i), cue=cue, size=size)
        name = f"{i + 1:05d}.png"
        _, png = cv2.imencode(".png", scene.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
        if not ours and (folder / name).exists():
            there = (folder / name).read_bytes()
            if not png.tobytes().startswith(there):  # whole or in part of a call that was killed
                raise GCNetError(f"{folder / name} would be replaced: choose another folder")
        (folder / name).write_bytes(png.tobytes())
        lamp = [round(value, 2) for value in (scene.lamp.x, scene.lamp.y, scene.lamp.radius)]
        images.append(
            {"id": i + 1, "file_name": name, "width": size, "height": size, "cue": CUES[cue], "lamp": lamp}
        )
        for label, polygons in zip(scene.labels, scene.polygons, strict=True):
            annotations.append(_annotation(len(annotations) + 1, i + 1, label, polygons))
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)]
    info = {"description": DESCRIPTION, "seed": seed[0], "size": size}
    text = json.dumps({"info": info, "images": images, "annotations": annotations, "categories": categories})
    write_bytes(folder / ANNOTATIONS, text.encode())


def _annotation(annotation_id: int, image_id: int, label: int, polygons: list[np.ndarray]) -> dict[str, Any]:
    points = np.concatenate(polygons)
    low, high = points.min(0), points.max(0)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": label + 1,
        "segmentation": [polygon.round(2).ravel().tolist() for polygon in polygons],
        "bbox": np.concatenate([low, high - low]).round(2).tolist(),
        "area": round(sum(paint.area(polygon) for polygon in polygons), 2),
        "iscrowd": 0,
    }


# Composition ------------------------------------------------------------------------------------------


def _arrange(rng: np.random.Generator, size: int) -> tuple[Circle, list[Circle]]:
    """The lamp near the border, and three to six objects far from it that do not overlap."""
    unit = size / REFERENCE_SIZE
    radius = rng.uniform(16, 20) * unit
    along, depth = rng.uniform(0.1, 0.9) * size, rng.uniform(20, 34) * unit
    side = rng.integers(4)
    x, y = (along, depth) if side % 2 else (depth, along)
    lamp = Circle(size - x, size - y, radius) if side >= 2 else Circle(x, y, radius)

    clear_of_lamp = CLEARANCE * unit - radius
    wanted, places = rng.integers(3, 7), []
    for _ in range(120):
        r = float(np.exp(rng.uniform(np.log(13), np.log(26)))) * unit
        place = Circle(rng.uniform(r + 1, size - r - 1), rng.uniform(r + 1, size - r - 1), r)
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
