"""Context shapes as a classification problem: the class is a puzzle that no part of a picture answers.

Every picture holds one lit lamp and a few objects that are all stars or all gears (`context_shapes`). Three
classes pair each shape with each lamp once: class k is a star under lamp k, or a gear under lamp k + 1 of the
cycle red, green, blue. Neither the shape nor the lamp tells anything alone, and no sum of what is seen at
single places does: each place would vote for the same classes whatever is elsewhere. A network has to bring
lamp and shape together before it averages over the picture.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from gcnet.data.context_shapes import CUES, REFERENCE_SIZE, SHAPES, draw_scene
from gcnet.errors import GCNetError

CLASS_NAMES = tuple(f"star-{CUES[k]}+gear-{CUES[(k + 1) % len(CUES)]}" for k in range(len(CUES)))


def class_of(shape: int, cue: int) -> int:
    """The label of a picture of this shape (index into `SHAPES`) and lamp (index into `CUES`)."""
    return (cue - shape) % len(CUES)


def write_context_classes(
    folder: str | Path, *, train: int = 1200, valid: int = 300, seed: int = 0, size: int = REFERENCE_SIZE
) -> Path:
    """Writes PNGs as `train/CLASS/00001.png`, ..., `val/CLASS/...`: an image folder. Returns `folder`.

    `train` and `valid` count pictures; shapes and lamps are as even as they can be. The same arguments give
    the same files. Raises GCNetError if the folder cannot be written or a number makes no sense.
    """
    folder = Path(folder)
    if min(train, valid, seed) < 0 or train + valid == 0 or size < 96:
        raise GCNetError(
            f"cannot draw {train} train and {valid} valid pictures of {size} pixels with seed {seed}: "
            "ask for at least one picture, 96 pixels or more, and a seed that is not negative"
        )
    try:
        for index, (split, count) in enumerate((("train", train), ("val", valid))):
            _write_split(folder / split, count, (seed, index), size)
    except OSError as error:
        raise GCNetError(f"cannot write the pictures to {folder} ({error}): choose another folder") from error
    return folder


def _write_split(folder: Path, count: int, seed: tuple[int, int], size: int) -> None:
    kinds = len(SHAPES) * len(CUES)
    rng = np.random.default_rng((*seed, 0, 2))  # longer than any picture's seed: a stream of its own
    order = np.concatenate([rng.permutation(kinds) for _ in range(-(-count // kinds))])[:count]
    for i, kind in enumerate(order.tolist()):
        shape, cue = divmod(kind, len(CUES))
        scene = draw_scene((*seed, i), cue=cue, shape=shape, size=size)
        path = folder / CLASS_NAMES[class_of(shape, cue)] / f"{i + 1:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _, png = cv2.imencode(".png", scene.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
        path.write_bytes(png.tobytes())
