"""What a person is told of a data set, and in which order."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent / "data"))

from coco_files import annotation, content, write_split

from gcnet.data.load import load_splits
from gcnet.lab.data_look import findings, look_through, notes_of_readers
from gcnet.lab.data_page import write_page


def lines(folder: Path, train: dict[str, Any], valid: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    write_split(folder / "train", train)
    if valid:
        write_split(folder / "valid", valid)
    return findings(look_through(folder, load_splits(folder), []))


def test_classes_that_are_rare_or_unseen(tmp_path: Path) -> None:
    train = content([(48, 64)] * 3)
    train["annotations"] += [
        annotation(20 + i, 100, box=(4 * i, 2, 20, 30), category_id=9) for i in range(10)
    ]
    train["categories"].append({"id": 30, "name": "fox"})
    found = lines(tmp_path, train, content([(40, 60)]))
    assert ("look", "1 class without an object in train: fox") in found
    assert ("look", "1 class of fewer than 10 objects in train: cat (3)") in found
    assert ("look", "1 class without an object in valid: dog") in found


def test_a_validation_split_without_objects_is_odd(tmp_path: Path) -> None:
    nothing = content([(48, 64)]) | {"annotations": []}
    found = lines(tmp_path, content([(48, 64)] * 3), nothing)
    assert ("look", "there is no object in the validation split: a training on this is not scored") in found
    assert "good" not in [level for level, _ in found]


def test_what_to_mend_comes_first_and_nothing_odd_is_said(tmp_path: Path) -> None:
    train = content([(48, 64)] * 12)
    train["categories"] = train["categories"][1:]
    good = lines(tmp_path / "good", train)
    assert [level for level, _ in good] == ["note", "note", "good"]
    assert ("note", "there is no validation split: a training on this is not scored") in good
    (tmp_path / "bad").mkdir()
    train["images"][3]["width"] = 60
    del train["annotations"][8:]
    found = lines(tmp_path / "bad", train, content([(48, 64)]))
    assert [level for level, _ in found][:2] == ["fix", "look"]
    assert ("note", "4 images without an object to learn from; only --keep-empty trains on them") in found


def test_boxes_without_outlines_name_the_models_for_them(tmp_path: Path) -> None:
    train = content([(48, 64)] * 2)
    for one in train["annotations"]:
        del one["segmentation"]
    assert any("faster_rcnn_*" in text for _, text in lines(tmp_path / "none", train))
    train["annotations"][0] |= {"segmentation": [[1, 1, 20, 1, 20, 20]], "bbox": [1, 1, 19, 19]}
    some = lines(tmp_path / "some", train)
    assert ("look", "1 of 2 objects have no outline: models with masks leave them out") in some


def test_objects_that_are_small_at_every_size_ask_for_tiles(tmp_path: Path) -> None:
    train = content([(600, 800)])
    train["annotations"] = [annotation(i, 100, box=(9 * i, 4, 4, 4)) for i in range(4)]
    found = lines(tmp_path, train)
    assert any("cut the images into tiles" in text for _, text in found)
    assert not any("compared" in text for _, text in found)
    assert ("look", "4 objects: tiny, under 8 pixels a side where images are fitted in 1333 x 800") in found


def test_notes_of_readers_are_collected_and_not_printed(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("gcnet.data.load")
    with notes_of_readers() as notes:
        log.warning("%d of %d", 1, 3)
    log.warning("after")
    assert notes == ["1 of 3"]
    assert caplog.messages == ["after"]


def test_it_is_said_how_many_images_were_compared(tmp_path: Path) -> None:
    write_split(tmp_path / "train", content([(48, 64)] * 3))
    look = look_through(tmp_path, load_splits(tmp_path), [], most_decoded=1)
    assert "1 of 3 images were compared by what they show, all by bytes" in {
        text for _, text in findings(look)
    }


def test_a_page_of_suspects_whose_images_are_missing(tmp_path: Path) -> None:
    train = content([(48, 64)])
    train["annotations"] = [annotation(i, 100) for i in range(2)]
    path = write_split(tmp_path / "train", train)
    splits = load_splits(tmp_path)
    path.with_name("0.png").unlink()
    look = look_through(tmp_path, splits, [])
    assert look.suspects
    write_page(look, tmp_path / "page.html")
    assert "Look at these first" in (tmp_path / "page.html").read_text()
