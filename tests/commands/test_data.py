"""`gcnet data`: the page and the tables say what is there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import pytest
from coco_files import annotation, content, write_split

from gcnet.cli import main


def page_of(path: Path) -> str:
    """The text of a page, without its images and markup."""
    text = re.sub(r"(?s)<style>.*?</style>|<[^>]*>", " ", path.read_text())
    return " ".join(text.split())


def test_page_and_tables(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", str(shapes), "--out", str(tmp_path)]) == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err
    out = tmp_path / "new" / "page.html"
    assert main(["data", str(shapes), "--out", str(out), "--show", "2"]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out}" in printed
    assert "star/red" in printed
    page = out.read_text()
    assert page.count("data:image/jpeg") >= 2
    # A page that asks for nothing: no address but images that are in it, no script.
    assert not re.search(r"<script|<link(?! rel=\"icon\" href=\"data:,\")|@import|https?:", page)
    assert "2 of 5 images, some of every class as far as they go" in page_of(out)


def test_names_that_are_markup_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = content([(48, 64)] * 2)
    names = ["<script>alert(1)</script>", "bolt [m8] \x1b[31m"]
    values["categories"] = [{"id": 4, "name": names[0]}, {"id": 9, "name": names[1]}]
    values["annotations"].append(annotation(7, 100, category_id=9))
    write_split(tmp_path / "<i>set</i>" / "train", values)
    out = tmp_path / "page.html"
    assert main(["data", str(tmp_path / "<i>set</i>"), "--out", str(out)]) == 0
    printed, page = capsys.readouterr().out, out.read_text()
    assert "bolt [m8] \\x1b[31m" in printed
    assert "<script>alert(1)</script>" in printed
    assert "\x1b[31m" not in printed
    assert "<script" not in page
    assert "<i>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "bolt [m8] \\x1b[31m" in page


def test_what_is_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = content([(48, 64)] * 3)
    train["annotations"] += [annotation(50, 100, box=(1, 1, 0.2, 9), segmentation=[]), annotation(51, 999)]
    valid = content([(48, 64)] * 2)
    write_split(tmp_path / "data" / "train", train)
    write_split(tmp_path / "data" / "valid", valid | {"images": valid["images"]})
    folder = tmp_path / "data"
    (folder / "valid" / "0.png").write_bytes((folder / "train" / "1.png").read_bytes())
    shutil.copy(folder / "train" / "0.png", folder / "train" / "2.png")
    (folder / "valid" / "1.png").write_bytes((folder / "train" / "1.png").read_bytes()[:300])
    out = tmp_path / "page.html"
    assert main(["data", str(folder), "--out", str(out)]) == 1
    text, printed = page_of(out), capsys.readouterr()
    for words in (
        "1 image missing, cut off or not of the annotated size",
        "valid/1.png is a damaged image file",
        "1 image in more than one split",
        "train/1.png = valid/0.png",
        "1 image more than once in a split",
        "1 of 5 annotations point at an image that is not listed (first: id 51, image id 999); left out",
    ):
        assert words in text, words
    assert "fix: 1 image in more than one split" in printed.out
    assert "1 of 5 annotations" not in printed.err


def test_nothing_to_learn_from_is_said(tmp_path: Path) -> None:
    values = content([(48, 64)] * 2)
    out = tmp_path / "page.html"
    for one in values["annotations"]:
        one["ignore"] = 1
    write_split(tmp_path / "ignored" / "train", values)
    assert main(["data", str(tmp_path / "ignored"), "--out", str(out)]) == 0
    for words in ("none of 2 objects can be learnt from", "2 of 2 objects are marked to be ignored"):
        assert words in page_of(out)
    for one in values["annotations"]:
        one |= {"iscrowd": 1, "ignore": 0}
    write_split(tmp_path / "data" / "train", values)
    assert main(["data", str(tmp_path / "data"), "--out", str(out)]) == 0
    assert "none of 2 objects can be learnt from; all are marked iscrowd" in page_of(out)
    assert main(["data", str(tmp_path / "data"), "--out", str(out), "--crowd-as-objects"]) == 0
    assert "none of 2 objects" not in page_of(out)


def test_a_set_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    assert main(["data", str(tmp_path), "--out", str(tmp_path / "p.html")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["data", str(tmp_path / "gone")]) == 2
    assert not (tmp_path / "p.html").exists()


def test_all_images_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "data", tmp_path / "drawn"
    values = content([(48, 64)] * 3)
    write_split(folder / "train", values)
    write_split(folder / "valid", content([(48, 64)]))
    (folder / "train" / "1.png").write_bytes(b"no image")
    words = ["data", str(folder), "--out", str(tmp_path / "p.html"), "--show", "0", "--draw", str(out)]
    assert main(words) == 1
    assert f"drew 3 images in {out}" in capsys.readouterr().out
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == [
        "train/0.png",
        "train/2.png",
        "valid/0.png",
    ]
    drawn = cv2.imread(str(out / "train" / "0.png"))
    plain = cv2.imread(str(folder / "train" / "0.png"))
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()
    # Drawings of images that are there no more go, what is the user's stays.
    values["images"][2]["file_name"] = "3.png"
    write_split(folder / "train", values)
    (out / "train" / "mine.png").write_text("mine")
    assert main(words) == 0
    assert sorted(path.name for path in (out / "train").iterdir()) == [
        *("0.png", "1.png", "3.png", "mine.png")
    ]
    # Images of the data set are never drawn over.
    assert main([*words[:-1], str(folder)]) == 2


def test_the_folder_of_the_images_may_be_seen_from_the_data(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    shutil.copytree(shapes / "valid", tmp_path / "set" / "pictures")
    (tmp_path / "set" / "pictures" / "_annotations.coco.json").rename(tmp_path / "set" / "annotations.json")
    words = ["data", str(tmp_path / "set"), "--images", "pictures", "--out", str(tmp_path / "page.html")]
    assert main(words) == 0
