"""Images at addresses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fakes import Finds, write_photos

from gcnet import remote
from gcnet.errors import GCNetError
from gcnet.image_files import find_images
from gcnet.prediction.files import predict_files
from gcnet.prediction.wanted import Wanted

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    photos = write_photos(tmp_path / "photos", 3)
    memory = fsspec.filesystem("memory")
    memory.makedirs("/bucket/deep", exist_ok=True)
    for path in photos.iterdir():
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
    memory.pipe("/bucket/deep/001.jpg", b"broken")
    memory.pipe("/bucket/notes.txt", b"")
    return "memory://bucket"


def test_folders_patterns_and_files(bucket: str) -> None:
    assert find_images([bucket]) == [f"memory:///bucket/00{i}.jpg" for i in range(3)]
    both = [f"memory:///bucket/{path}" for path in ("001.jpg", "deep/001.jpg")]
    assert find_images([f"{bucket}/**/*1.jpg", f"{bucket}/deep/*"]) == both
    assert find_images(["https://a.b/c?d=1"]) == ["https://a.b/c?d=1"]
    with pytest.raises(GCNetError, match="no images at memory://bucket/x"):
        find_images([f"{bucket}/x*"])


def test_what_is_found_is_that_of_the_files(bucket: str, tmp_path: Path) -> None:
    wanted = Wanted(("coco-results", "labelme", "yolo"))
    paths = [*find_images([bucket]), f"{bucket}/deep/001.jpg", f"{bucket}/gone.jpg"]
    far = predict_files(Finds(), paths, tmp_path / "far", wanted=wanted, progress=False)
    near = predict_files(Finds(), find_images([tmp_path / "photos"]), tmp_path / "near", progress=False)
    assert [one["bbox"] for one in far.results] == [one["bbox"] for one in near.results]
    assert [one["overlay"] for one in far.images[:3]] == ["000.jpg", "001.jpg", "002.jpg"]
    assert (tmp_path / "far" / "001.jpg").read_bytes() == (tmp_path / "near" / "001.jpg").read_bytes()
    broken, gone = (one["error"] for one in far.failed)
    assert broken.startswith("memory://bucket/deep/001.jpg is not an image")
    assert gone.startswith("memory://bucket/gone.jpg cannot be read")
    assert json.loads((tmp_path / "far/labelme/000.json").read_text())["imagePath"] == paths[0]


def test_what_is_too_large_or_not_installed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LARGEST", 10)
    with pytest.raises(GCNetError, match="has more than 0 MB"):
        remote.fetch(f"{bucket}/000.jpg")
    with pytest.raises(GCNetError, match="nosuch://a cannot be read"):
        remote.list_address("nosuch://a")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(GCNetError, match=r"pip install 'gcnet\[remote\]'"):
        remote.fetch("s3://a/b.jpg")
