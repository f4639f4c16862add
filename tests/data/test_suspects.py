"""Odd objects are found, the worst of a kind first, and ordinary ones are not."""

from __future__ import annotations

from pathlib import Path

from coco_files import annotation, content, write_split

from gcnet.data.load import load_splits
from gcnet.data.survey import survey
from gcnet.data.suspects import Suspect, find_suspects


def suspects(folder: Path, *annotations: dict) -> dict[str, list[Suspect]]:
    values = content([(200, 300)] * 2)
    values["annotations"] = [one | {"id": place} for place, one in enumerate(annotations)]
    write_split(folder / "train", values)
    found = survey(load_splits(folder))
    every = find_suspects(found.objects, found.class_names)
    return {kind: [one for one in every if one.kind == kind] for kind in {one.kind for one in every}}


def test_ordinary_objects_are_none(tmp_path: Path) -> None:
    assert not suspects(tmp_path, annotation(0, 100), annotation(0, 101, box=(50, 50, 100, 90)))


def test_tiny_and_huge(tmp_path: Path) -> None:
    found = suspects(
        tmp_path,
        annotation(0, 100, box=(5, 5, 1.5, 1.5)),
        annotation(0, 100, box=(50, 50, 1, 1)),
        annotation(0, 101, box=(0, 0, 299, 199)),
    )
    assert set(found) == {"tiny", "huge"}
    assert [one.row for one in found["tiny"]] == [1, 0]
    assert found["tiny"][0].words == "1 x 1 pixels of 300 x 200"
    assert found["huge"][0].words == "99% of the image"


def test_boxes_beside_their_outlines_and_images(tmp_path: Path) -> None:
    small = [[10, 10, 40, 10, 40, 40, 10, 40]]
    found = suspects(
        tmp_path,
        annotation(0, 100, box=(0, 0, 100, 100), segmentation=small),
        annotation(0, 101, box=(250, 20, 100, 30), segmentation=[]),
        annotation(0, 101, box=(60, 90, 30, 30), segmentation=small),
    )
    assert set(found) == {"box against outline", "box outside", "box mended"}
    assert [one.row for one in found["box mended"]] == [2]
    assert found["box against outline"][0].words == "box and outline overlap by 9% only"
    assert found["box outside"][0].words == "50% of its box is outside the image"


def test_objects_annotated_twice_or_as_two_classes(tmp_path: Path) -> None:
    found = suspects(
        tmp_path,
        annotation(0, 100, box=(10, 10, 50, 50)),
        annotation(0, 100, box=(10, 10, 50, 51)),
        annotation(0, 101, box=(10, 10, 50, 50)),
        annotation(0, 101, box=(11, 10, 50, 50), category_id=9),
    )
    assert {kind: [one.row for one in some] for kind, some in found.items()} == {
        "twice": [1],
        "two classes": [3],
    }
    assert found["two classes"][0].words == "also annotated as cat"
