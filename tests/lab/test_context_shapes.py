"""The pictures are what they claim to be: the class needs the lamp, and nothing but the lamp tells it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from gcnet.errors import GCNetError
from gcnet.lab import paint
from gcnet.lab.context_shapes import CLASS_NAMES, CLEARANCE, CUES, SHAPES, draw_scene, write_context_shapes


def decode(polygons: list[np.ndarray], size: int) -> np.ndarray:
    flat = [polygon.ravel().tolist() for polygon in polygons]
    return rle.decode(rle.merge(rle.frPyObjects(flat, size, size))).astype(bool)


def test_same_seed_gives_the_same_picture() -> None:
    first, again, other = draw_scene(5, cue=1), draw_scene(5, cue=1), draw_scene(6, cue=1)
    assert np.array_equal(first.image, again.image)
    assert first.labels == again.labels
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("seed", range(8))
def test_only_the_lamp_knows_the_cue(seed: int) -> None:
    """With the same seed, cues change pixels under the lamp's halo only, and no object's place or outline."""
    scenes = [draw_scene(seed, cue=cue) for cue in range(len(CUES))]
    first = scenes[0]
    y, x = np.mgrid[:192, :192] + 0.5
    halo = np.hypot(x - first.lamp.x, y - first.lamp.y) < paint.HALO * first.lamp.radius
    for scene in scenes[1:]:
        differs = (scene.image != first.image).any(-1)
        assert differs.any()
        assert not (differs & ~halo).any()
        assert [label // len(CUES) for label in scene.labels] == [
            label // len(CUES) for label in first.labels
        ]
        assert {label % len(CUES) for label in scene.labels} == {scene.cue}
        assert all(
            np.array_equal(a, b)
            for mine, theirs in zip(scene.polygons, first.polygons, strict=True)
            for a, b in zip(mine, theirs, strict=True)
        )


@pytest.mark.parametrize("size", [128, 192, 256])
def test_objects_are_inside_and_far_from_the_lamp(size: int) -> None:
    counts = []
    for seed in range(30):
        scene = draw_scene(seed, cue=0, size=size)
        assert scene.image.shape == (size, size, 3)
        assert scene.image.dtype == np.uint8
        for polygons in scene.polygons:
            points = np.concatenate(polygons)
            assert points.min() >= 0
            assert points.max() <= size
            distance = np.hypot(points[:, 0] - scene.lamp.x, points[:, 1] - scene.lamp.y)
            assert distance.min() > CLEARANCE * size / 192 - 0.5
        counts.append(len(scene.labels))
    assert set(counts) == {3, 4, 5, 6}


def test_cue_is_plain_to_see_and_nothing_else_looks_like_it() -> None:
    for seed in range(12):
        for cue in range(len(CUES)):
            scene = draw_scene(seed, cue=cue)
            y, x = np.mgrid[:192, :192] + 0.5
            distance = np.hypot(x - scene.lamp.x, y - scene.lamp.y) / scene.lamp.radius
            core = scene.image[(distance > 0.45) & (distance < 0.65)].mean(0)
            assert core.argmax() == cue
            assert core.max() - np.delete(core, cue).max() > 100
            hsv = cv2.cvtColor(scene.image, cv2.COLOR_RGB2HSV)
            lit = (hsv[..., 1] > 190) & (hsv[..., 2] > 150) & (distance > paint.HALO)
            assert lit.mean() < 0.001


def test_outlines_fit_what_is_drawn() -> None:
    rng = np.random.default_rng(0)
    angles = np.arange(10) * np.pi / 5
    for _ in range(20):
        radii = np.tile([1.0, 0.48], 5)[:, None] * rng.uniform(13, 30)
        star = np.stack([np.cos(angles), np.sin(angles)], 1) * radii + rng.uniform(60, 130, 2)
        mask = paint.fill(star, 192)
        polygons = paint.outlines(mask)
        assert len(polygons) == 1
        assert paint.area(polygons[0]) == pytest.approx(paint.area(star), rel=0.02)
        drawn = cv2.resize(mask.astype(np.float32), (192, 192), interpolation=cv2.INTER_AREA) >= 0.5
        decoded = decode(polygons, 192)
        assert (drawn & decoded).sum() / (drawn | decoded).sum() > 0.9


def test_hidden_parts_are_left_out_and_masks_do_not_overlap() -> None:
    for seed in range(20):
        scene = draw_scene(seed, cue=0)
        total = sum(decode(polygons, 192).astype(int) for polygons in scene.polygons)
        # pycocotools rounds an outline to whole pixels, so that neighbours may share their border.
        assert (np.asarray(total) > 1).sum() <= 8


def test_written_data_set_reads_as_coco(tmp_path: Path) -> None:
    folder = write_context_shapes(tmp_path / "shapes", train=9, valid=3, seed=2, size=96)
    for split, count in (("train", 9), ("valid", 3)):
        coco = COCO(folder / split / "_annotations.coco.json")
        assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASS_NAMES)
        assert len(coco.getImgIds()) == count
        assert len({image["cue"] for image in coco.dataset["images"]}) == len(CUES)
        for image in coco.dataset["images"]:
            pixels = cv2.imread(str(folder / split / image["file_name"]))
            assert pixels is not None
            assert pixels.shape == (image["height"], image["width"], 3)
        for annotation in coco.dataset["annotations"]:
            x, y, width, height = annotation["bbox"]
            assert 0 <= x < x + width <= 96
            assert 0 <= y < y + height <= 96
            assert coco.annToMask(annotation).sum() == pytest.approx(annotation["area"], rel=0.2)


def test_writing_again_gives_the_same_files_and_more_pictures_extend_them(tmp_path: Path) -> None:
    short = write_context_shapes(tmp_path / "short", train=4, valid=2, seed=1, size=96)
    again = write_context_shapes(tmp_path / "again", train=4, valid=2, seed=1, size=96)
    longer = write_context_shapes(tmp_path / "longer", train=6, valid=2, seed=1, size=96)
    for path in sorted(short.rglob("*.*")):
        assert path.read_bytes() == (again / path.relative_to(short)).read_bytes()
        if path.suffix == ".png":
            assert path.read_bytes() == (longer / path.relative_to(short)).read_bytes()


def test_splits_and_seeds_differ(tmp_path: Path) -> None:
    folders = [
        write_context_shapes(tmp_path / str(seed), train=2, valid=2, seed=seed, size=96) for seed in (0, 1)
    ]
    pictures = [path.read_bytes() for folder in folders for path in folder.rglob("*.png")]
    assert len(set(pictures)) == len(pictures) == 8


def test_classes_are_balanced(tmp_path: Path) -> None:
    folder = write_context_shapes(tmp_path, train=90, valid=0, size=96)
    assert not (folder / "valid").exists()
    content = json.loads((folder / "train" / "_annotations.coco.json").read_text())
    cues = [image["cue"] for image in content["images"]]
    assert all(cues.count(cue) == 30 for cue in CUES)
    counts = np.bincount([annotation["category_id"] - 1 for annotation in content["annotations"]])
    assert len(counts) == len(SHAPES) * len(CUES)
    assert counts.min() > 0.6 * counts.max()


@pytest.mark.parametrize("arguments", [{"train": 0, "valid": 0}, {"train": -1}, {"size": 20}, {"seed": -1}])
def test_senseless_numbers_are_refused(tmp_path: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(GCNetError, match="cannot draw"):
        write_context_shapes(tmp_path, **arguments)


def test_another_data_set_is_not_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "valid" / "_annotations.coco.json"
    mine.parent.mkdir()
    mine.write_text('{"info": {}, "images": []}')
    with pytest.raises(GCNetError, match="is another data set's, and would be replaced"):
        write_context_shapes(tmp_path, train=1, valid=1)
    assert mine.read_text() == '{"info": {}, "images": []}'
    assert not (tmp_path / "train").exists()
    mine.rename(mine.with_name("00001.png"))
    with pytest.raises(GCNetError, match=r"00001\.png would be replaced"):
        write_context_shapes(tmp_path, train=1, valid=1)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GCNetError, match="choose another folder"):
        write_context_shapes(tmp_path / "file", train=1, valid=0)
