"""Which files the words of `gcnet predict` stand for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gcnet.errors import GCNetError
from gcnet.image_files import find_images


def test_files_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "deep/c.jpg", "deep/er/d.webp", ".hidden.png", "[1].png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")
    Path("notes.txt").write_text("")

    def names(*inputs: str | Path) -> list[str]:
        return find_images(inputs)

    assert names(".") == ["[1].png", "a.PNG", "b.jpg"]
    assert names("**/*.jpg") == ["b.jpg", "deep/c.jpg"]
    assert names("deep/**") == ["deep/c.jpg", "deep/er/d.webp"]
    assert names("b.jpg", tmp_path / "b.jpg", "*.jpg") == ["b.jpg"]
    assert names("[1].png") == ["[1].png"]
    assert names("notes.txt") == ["notes.txt"]  # named by hand: tried, and reported if it is no image
    Path("list").write_text("\ufeffdeep/c.jpg\n\nmissing.jpg \ndeep/../b.jpg\n./b.jpg\n")
    assert names("b.jpg", "@list") == ["b.jpg", "deep/c.jpg", "missing.jpg"]  # reading says what is missing
    Path("list").write_bytes(b"\xff\0.jpg\n")
    assert names("@list") == ["\udcff\0.jpg"]
    Path("@b.jpg").write_bytes(b"")
    assert names("@b.jpg") == ["@b.jpg"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg does not exist"),
        ("*.gif", r"no images match \*\.gif"),
        (".", "no images in ."),
        (None, "no images given"),
        ("@nowhere.txt", "the list nowhere.txt cannot be read"),
        ("@empty.txt", "the list empty.txt is empty"),
        ("", "an empty word names no images"),
    ],
)
def test_inputs_that_stand_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n")
    with pytest.raises(GCNetError, match=message):
        find_images([] if item is None else [item])


def test_files_left_aside_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jfif", "b.AVIF", "c.heic", "notes.txt", ".DS_Store", "list.csv"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    expected = f"{tmp_path}: 4 left aside, no image files: folder.jpg, list.csv, notes.txt and 1 more"
    for item in (tmp_path, f"{tmp_path}/*"):
        caplog.clear()
        assert [Path(path).name for path in find_images([item])] == ["a.jfif", "b.AVIF", "c.heic"]
        assert caplog.messages == [expected.replace(str(tmp_path), str(item))]
