"""What an earlier call left in the folder: its files go, everything else stays."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fakes import Finds, listed, write_photos

from gcnet.errors import GCNetError
from gcnet.prediction.files import predict_files
from gcnet.prediction.wanted import FORMATS, Wanted
from gcnet.prediction.written import NAME, Written

ALL: dict[str, Any] = {"formats": FORMATS, "crops": True, "cutouts": True, "images_a_file": 1}


class Stops(Finds):
    """Ctrl-C is pressed at the second image."""

    def predict(self, prepared: Any, *, score_threshold: float = 0.05) -> list[Any]:
        if self.calls == 1:
            raise KeyboardInterrupt
        return super().predict(prepared, score_threshold=score_threshold)


def predict(paths: Sequence[Path | str], out: Path, model: Finds | None = None, **wanted: Any) -> None:
    pytest.importorskip("pyarrow")
    names = [os.fspath(path) for path in paths]
    predict_files(model or Finds(), names, out, wanted=Wanted(**wanted), progress=False)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return sorted(write_photos(tmp_path / "photos", 3).iterdir())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {NAME}


def test_another_call_removes_what_the_one_before_wrote(photos: list[Path], out: Path) -> None:
    predict(photos, out, **ALL)
    assert {"002.jpg", "crops/002-0.jpg", "results-00002.jsonl", "coco.json"} < below(out)
    predict(photos[1:2], out, formats=("yolo",), overlays=False)
    assert below(out) == {
        *("images.json", "yolo/data.yaml", "yolo/images/001.jpg", "yolo/labels/001.txt"),
    }


def test_what_is_the_user_s_stays(photos: list[Path], out: Path) -> None:
    mine = ["results.csv", "crops/002-0.jpg", "yolo/labels/002.txt", "notes.txt", "results-00007.jsonl"]
    for name in mine:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    predict(photos, out, formats=("labelme",))
    (out / "labelme" / "002.json").write_text("corrected by hand")
    predict(photos[:1], out)
    assert [(out / name).read_text() for name in mine] == ["mine"] * len(mine)
    assert listed(out / "labelme") == ["002.json"]
    assert {"000.jpg", "results.json"} < below(out)
    assert "001.jpg" not in below(out)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("labelme/002.json", {"formats": ("labelme",)}),
        ("yolo/labels/002.txt", {"formats": ("yolo",)}),
        ("yolo/data.yaml", {"formats": ("yolo",)}),
        ("crops/002-0.jpg", {"crops": True}),
        ("coco.json", {"formats": ("coco",)}),
        ("results.json", {}),
        ("results-00000.jsonl", {"formats": ("jsonl",)}),
    ],
)
def test_what_was_changed_since_is_not_written_over(
    name: str, wanted: dict[str, Any], photos: list[Path], out: Path
) -> None:
    predict(photos, out, **wanted)
    (out / name).write_text("corrected by hand")
    before, model = below(out), Finds()
    with pytest.raises(GCNetError, match=f"{name} would be replaced; remove it or choose another folder"):
        predict(photos, out, model, **wanted)
    assert (model.calls, below(out)) == (0, before)
    if "002" in name:
        predict(photos[:2], out, **wanted)  # needs other names
    else:
        predict(photos, out, formats=("csv",))
    assert (out / name).read_text() == "corrected by hand"


def test_the_images_of_the_call_stay(photos: list[Path], out: Path, tmp_path: Path) -> None:
    predict(photos, out, crops=True, formats=("yolo",))
    (tmp_path / "link.jpg").symlink_to(out / "crops" / "001-0.jpg")
    crops = [out / "crops" / "000-0.jpg", tmp_path / "link.jpg", out / "yolo" / "images" / "002.jpg"]
    predict(crops, out, overlays=False)
    assert all("error" not in entry for entry in json.loads((out / "images.json").read_bytes()))
    assert (listed(out / "crops"), listed(out / "yolo" / "images")) == (
        ["000-0.jpg", "001-0.jpg"],
        ["002.jpg"],
    )


def test_what_is_gone_on_with_stays(photos: list[Path], out: Path, tmp_path: Path) -> None:
    predict(photos, out, **ALL)
    with pytest.raises(KeyboardInterrupt):
        predict(photos[:2], out, Stops(), **ALL)
    before = (out / "crops" / "000-0.jpg").stat().st_mtime_ns
    assert "crops/002-0.jpg" not in below(out)
    fewer: dict[str, Any] = ALL | {"formats": ("labelme", "yolo", "csv")}
    predict(photos[:2], out, **fewer)
    predict(photos[:2], tmp_path / "whole", **fewer)
    assert below(out) == below(tmp_path / "whole")
    assert (out / "crops" / "000-0.jpg").stat().st_mtime_ns == before


def test_crops_of_an_image_that_changed_meanwhile_are_gone(photos: list[Path], out: Path) -> None:
    names, crops = [os.fspath(path) for path in photos], Wanted(crops=True)
    with pytest.raises(KeyboardInterrupt):
        predict_files(Stops(), names, out, score_threshold=0.3, wanted=crops, progress=False)
    assert listed(out / "crops") == ["000-0.jpg", "000-1.jpg"]
    assert cv2.imwrite(names[0], np.zeros((6, 6, 3), np.uint8))  # the second object is not in it
    with pytest.raises(KeyboardInterrupt):
        predict_files(Stops(), names, out, score_threshold=0.3, wanted=crops, progress=False)
    predict_files(Finds(), names, out, score_threshold=0.3, wanted=crops, progress=False)
    assert listed(out / "crops") == ["000-0.jpg", *(f"00{i}-{k}.jpg" for i in (1, 2) for k in (0, 1))]


def test_a_call_that_was_ended_leaves_no_empty_parts(photos: list[Path], out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict(photos, out, Stops(), formats=("jsonl",), overlays=False, images_a_file=1)
    assert below(out) == {"images.json", "results-00000.jsonl", "unfinished.jsonl"}


@pytest.mark.parametrize("name", ["../photo.jpg", "{tmp_path}/photo.jpg", "", ".", "x\0", 3, None])
def test_a_list_of_a_stranger_removes_nothing(tmp_path: Path, out: Path, name: Any) -> None:
    out.mkdir()
    (tmp_path / "photo.jpg").write_text("mine")
    status = (tmp_path / "photo.jpg").stat()
    name = name.format(tmp_path=tmp_path) if isinstance(name, str) else name
    lines = [json.dumps([name, status.st_size, status.st_mtime_ns]), "[", "[[[]]]", '{"a": 1}', "[" * 9999]
    (out / NAME).write_text("\n".join(lines))
    Written(out).begin([])
    assert below(tmp_path) == {"photo.jpg"}


def test_what_a_kill_left_half_written_is_removed(photos: list[Path], out: Path) -> None:
    predict(photos, out, crops=True)
    (out / "crops" / ".000-0.jpg.123.part").touch()
    predict(photos, out, crops=True)
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("left", [0, 10])
def test_a_file_that_the_list_does_not_take_is_removed(tmp_path: Path, left: int) -> None:
    (tmp_path / NAME).write_bytes(b"\n" * 2000)
    (tmp_path / "crop.png").touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000 + left, hard))
    try:
        with pytest.raises(GCNetError, match="cannot write"):
            Written(tmp_path).add("crop.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == [NAME]
