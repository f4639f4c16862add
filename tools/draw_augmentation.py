"""Draws docs/figures/augmentation.jpg: what each option of the recipe does to a generated image.

.venv/bin/python tools/draw_augmentation.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from gcnet.data.load import load_splits
from gcnet.data.transforms import Sample, apply, train_transforms
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.ops.images import write_image
from gcnet.recipe import Recipe
from gcnet.viz import draw_targets
from gcnet.viz.sheet import sheet

OUT = Path(__file__).parent.parent / "docs" / "figures" / "augmentation.jpg"
OPTIONS = [
    ("as it is", {}),
    ("--flip 0.5", {"flip": 1.0}),
    ("--scale-jitter '[0.5,1]'", {"scale_jitter": (0.5, 0.7)}),
    ("--color-jitter 0.5", {"color_jitter": 0.6}),
    ("--quarter-turns 0.75", {"quarter_turns": 1.0}),
    ("--rotation 20", {"rotation": 20.0}),
    ("--crop 0.5", {"crop": 0.5}),
    ("--copy-paste 0.5", {"copy_paste": 1.0}),
]


def main() -> None:
    """Draws the sheet, with the objects that a detector would be trained on."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_splits(write_context_shapes(folder, train=2, valid=0, seed=4))["train"]
        samples = [Sample.of(dataset.read_image(i), dataset.records[i]) for i in range(2)]
        drawn = []
        for _, options in OPTIONS:
            recipe = Recipe(**({"flip": 0.0} | options))
            transforms = train_transforms(recipe, samples[0].size, lambda rng: samples[1])
            changed = apply(transforms, samples[0], np.random.default_rng(4))
            drawn.append(draw_targets(changed.image, changed.targets(), dataset.class_names, enlarge=2))
        names = [name for name, _ in OPTIONS]
        write_image(OUT, sheet(drawn, names, columns=4, cell=280), quality=80)
        print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
