"""The puzzle: each class is a colour under the red lamp, or the one before it under the blue one."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch

from gcnet.data.image_folder import load_image_folders
from gcnet.errors import GCNetError
from gcnet.lab.context_classes import (
    CLASS_NAMES,
    CLEARANCE,
    COLORS,
    LAMPS,
    SIZE,
    _arrange,
    class_of,
    draw_puzzle,
    write_context_classes,
)
from gcnet.lab.paint import HALO
from gcnet.models.resnet import ResNet
from gcnet.weights.catalog import find

KINDS = list(product(range(len(COLORS)), range(len(LAMPS))))


def test_names_say_what_the_classes_are() -> None:
    for color, lamp in KINDS:
        assert f"{COLORS[color]}-{LAMPS[lamp]}" in CLASS_NAMES[class_of(color, lamp)].split("+")


def test_no_sum_of_votes_solves_it() -> None:
    """The best votes of colour and lamp are found (the problem is convex), and do no better than colour."""
    color, lamp = torch.zeros(3, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    labels = torch.tensor([class_of(*kind) for kind in KINDS])
    optimizer = torch.optim.LBFGS([color, lamp], max_iter=200)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        votes = torch.stack([color[c] + lamp[k] for c, k in KINDS])
        value = torch.nn.functional.cross_entropy(votes, labels)
        value.backward()
        return value

    optimizer.step(loss)
    assert loss().item() == pytest.approx(np.log(2), abs=1e-3)


def test_only_the_paint_depends_on_colour_and_lamp() -> None:
    images = {kind: draw_puzzle((3, 1), color=kind[0], lamp=kind[1]).astype(int) for kind in KINDS}
    discs = (images[0, 0] != images[1, 0]).any(axis=2)
    light = (images[0, 0] != images[0, 1]).any(axis=2)
    assert 500 < discs.sum() < 2500
    assert 100 < light.sum() < 700
    assert not (discs & light).any()
    rest = ~(discs | light)
    for image in images.values():
        assert (image[rest] == images[0, 0][rest]).all()


def test_lamp_and_discs_are_farther_apart_than_the_tiny_resnet_sees() -> None:
    backbone = ResNet(find("resnet_tiny").spec.backbone).double().eval()
    picture = torch.rand(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    backbone(picture)[-1][0, :, 4, 4].sum().backward()
    assert picture.grad is not None
    rows, columns = picture.grad[0].abs().sum(0).nonzero(as_tuple=True)
    seen = max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) + 1
    assert seen == CLEARANCE
    for seed in range(50):
        lamp, discs = _arrange(np.random.default_rng(seed), 1.0)
        for disc in discs:
            across, down = disc.x - lamp.x, disc.y - lamp.y
            assert max(across, down) - disc.radius - HALO * lamp.radius >= CLEARANCE
            assert max(disc.x, disc.y) + disc.radius <= SIZE + 0.1


def test_an_image_folder_that_repeats(tmp_path: Path) -> None:
    roots = [write_context_classes(tmp_path / name, train=12, valid=6) for name in "ab"]
    splits = load_image_folders(roots[0])
    assert splits["train"].class_names == tuple(sorted(CLASS_NAMES))
    assert Counter(image.label for image in splits["train"].records) == {0: 4, 1: 4, 2: 4}
    assert Counter(image.label for image in splits["valid"].records) == {0: 2, 1: 2, 2: 2}
    files = [sorted(path for path in root.rglob("*.png")) for root in roots]
    assert [one.read_bytes() for one in files[0]] == [other.read_bytes() for other in files[1]]
    images = [splits["train"].read_image(i) for i in range(12)]
    assert not any(np.array_equal(a, b) for a, b in pairwise(images))


def test_numbers_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="64 pixels or more"):
        write_context_classes(tmp_path, size=20)


def test_a_split_of_no_pictures_is_not_there(tmp_path: Path) -> None:
    write_context_classes(tmp_path, train=3, valid=0, size=64)
    assert set(load_image_folders(tmp_path)) == {"train"}
