"""A classification puzzle: the class is the colour of the objects, read in the light of a lamp far away.

An image has one lamp in a corner, lit red or blue, and two to four discs of one colour along the two sides
opposite. The class is the colour under a red lamp, and the next colour of the cycle under a blue one. So the
colour alone leaves two classes, the lamp alone all three, and no sum of votes of single places can do better
than the colour: a network has to bring lamp and colour together before it averages over the image. At the
default size they are farther apart than the receptive field of the tiny ResNet is wide.

Lengths are given for the default size of 128 pixels and grow with the size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gcnet.lab import paint
from gcnet.lab.paint import HALO, Circle

COLORS = ("yellow", "cyan", "magenta")
LAMPS = ("red", "blue")
CLASS_NAMES = tuple(
    "+".join(f"{COLORS[(k - lamp) % len(COLORS)]}-{LAMPS[lamp]}" for lamp in range(len(LAMPS)))
    for k in range(len(COLORS))
)  # "yellow-red+magenta-blue": yellow discs under a red lamp, or magenta ones under a blue lamp

SIZE = 128
CLEARANCE = 75.0  # pixels between the lamp's glow and any disc, across or down: no square of 75 has both

_PAINTS = np.array([[235, 205, 50], [50, 205, 225], [215, 70, 200]], np.float32)
_LAMP_PAINTS = np.array([[255, 24, 16], [24, 64, 255]], np.float32)


def class_of(color: int, lamp: int) -> int:
    """The label of an image of this colour (index into `COLORS`) and lamp (index into `LAMPS`)."""
    return (color + lamp) % len(COLORS)


def draw_puzzle(seed: tuple[int, ...], *, color: int, lamp: int, size: int = SIZE) -> np.ndarray:
    """One image, (size, size, 3) uint8 RGB. Of colour and lamp only their paint depends on them."""
    rng = np.random.default_rng(seed)
    unit = size / SIZE
    canvas = paint.add_clutter(rng, paint.background(rng, size, unit), unit)
    canvas *= (0.75 + 0.5 * paint.noise(rng, (size, size), 64 * unit))[..., None]  # uneven light
    light, discs = _arrange(rng, unit)
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    for disc in discs:
        shade = _PAINTS[color] * np.float32(rng.uniform(0.75, 1.05))
        paint.cover_flat(canvas, paint.fill((disc.x, disc.y) + disc.radius * ring, size), shade)
    paint.add_lamp(canvas, light, _LAMP_PAINTS[lamp])
    across, down = rng.random(2) < 0.5  # the corner: mirrored, the geometry stays
    return np.ascontiguousarray(paint.with_noise(rng, canvas)[:: -1 if down else 1, :: -1 if across else 1])


def write_context_classes(
    folder: str | Path, *, train: int = 2000, valid: int = 300, seed: int = 0, size: int = SIZE
) -> Path:
    """Writes PNGs as `train/CLASS/00001.png`, ..., `val/CLASS/...`: an image folder. Returns `folder`.

    `train` and `valid` count images; colours and lamps are as even as they can be. The same arguments give
    the same files. Raises GCNetError if the folder cannot be written or a number makes no sense.
    """
    counts = {"train": train, "val": valid}
    return paint.write_splits(folder, counts, _write_split, seed=seed, size=size, smallest=SIZE // 2)


def _write_split(folder: Path, count: int, seed: tuple[int, int], size: int) -> None:
    kinds = len(COLORS) * len(LAMPS)
    rng = np.random.default_rng((*seed, 0, 2))  # longer than any image's seed: a stream of its own
    for i, kind in enumerate(paint.even_order(rng, kinds, count)):
        color, lamp = divmod(kind, len(LAMPS))
        image = draw_puzzle((*seed, i), color=color, lamp=lamp, size=size)
        path = folder / CLASS_NAMES[class_of(color, lamp)] / f"{i + 1:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        paint.write_png(path, image)


def _arrange(rng: np.random.Generator, unit: float) -> tuple[Circle, list[Circle]]:
    """The lamp at the upper left, and the discs side by side along the right and the lower border."""
    lamp = Circle(rng.uniform(12, 14) * unit, rng.uniform(12, 14) * unit, 7 * unit)
    wanted, discs = rng.integers(2, 5), []
    nearest = max(lamp.x, lamp.y) + HALO * lamp.radius + CLEARANCE * unit
    while len(discs) < wanted:
        radius = rng.uniform(9, 12) * unit
        far, along = rng.uniform(nearest + radius, SIZE * unit - radius + 0.1), rng.uniform(12, 116) * unit
        disc = Circle(far, along, radius) if rng.random() < 0.5 else Circle(along, far, radius)
        if all(disc.gap(other) > 2 * unit for other in discs):
            discs.append(disc)
    return lamp, discs
