"""Which files the words of `gcnet predict` stand for."""

from __future__ import annotations

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
        return [path.as_posix() for path in find_images(inputs)]

    assert names(".") == ["[1].png", "a.PNG", "b.jpg"]
    assert names("**/*.jpg") == ["b.jpg", "deep/c.jpg"]
    assert names("deep/**") == ["deep/c.jpg", "deep/er/d.webp"]
    assert names("b.jpg", tmp_path / "b.jpg", "*.jpg") == ["b.jpg"]
    assert names("[1].png") == ["[1].png"]
    assert names("notes.txt") == ["notes.txt"]  # named by hand: tried, and reported if it is no image


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg does not exist"),
        ("*.gif", r"no images match \*\.gif"),
        (".", "no images in ."),
        (None, "no images given"),
    ],
)
def test_inputs_that_stand_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GCNetError, match=message):
        find_images([] if item is None else [item])
