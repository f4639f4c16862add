"""All bad images are named before a training begins, those of `valid` too."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from coco_files import content, write_split
from PIL import Image

from gcnet.data import check
from gcnet.data.check import check_images
from gcnet.data.load import load_splits
from gcnet.errors import GCNetError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set with two bad images of six."""
    monkeypatch.setenv("GCNET_HOME", str(tmp_path / "cache"))
    root = tmp_path / "data"
    values = content([(48, 64)] * 3)
    write_split(root / "train", values)
    path = write_split(root / "valid", values)
    cut = root / "train" / "1.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    values["images"][2] |= {"width": 32, "height": 24}
    path.write_text(json.dumps(values))
    return root


def test_bad_images_are_named_together(root: Path) -> None:
    with pytest.raises(GCNetError) as caught:
        check_images(load_splits(root))
    message = str(caught.value)
    assert message.startswith("2 of 6 images cannot be trained on:")
    assert "train/1.png is a damaged image file" in message
    assert "valid/2.png is 64x48 pixels, annotated as 32x24" in message
    assert message.endswith("leave them out with --skip-bad-images")
    assert "\n" not in message


def test_a_line_holds_three_bad_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing one too, and the line is as short where the folder is given from here."""
    (root / "train" / "0.png").unlink()
    monkeypatch.chdir(root.parent)
    for data in (root, root.relative_to(root.parent)):
        with pytest.raises(GCNetError) as caught:
            check_images(load_splits(data))
        message = str(caught.value)
        assert message.startswith(
            f"3 of 6 images cannot be trained on: in {root}, train/0.png does not exist;"
        )
        assert "; train/1.png is a damaged image file" in message
        assert "; valid/2.png is 64x48 pixels, annotated as 32x24; " in message
        assert message.count(str(root)) == 1


def test_bad_images_can_be_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = check_images(load_splits(root), skip=True, max_pixels=5000)
    names = {split: [record.path.name for record in data.records] for split, data in splits.items()}
    assert names == {"train": ["0.png", "2.png"], "valid": ["0.png", "1.png"]}
    assert splits["train"].max_pixels == 5000
    assert "2 of 6 images are left out" in caplog.text
    with pytest.raises(GCNetError, match=r"train.* has no image that can be read"):
        check_images(load_splits(root), skip=True, max_pixels=100)


def test_what_was_whole_is_remembered_until_it_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def size(path: Path, **options: int) -> tuple[int, int]:
        opened.append(f"{path.parent.name}/{path.name}")
        return image_size(path, **options)

    image_size = check.image_size
    monkeypatch.setattr(check, "image_size", size)
    splits = load_splits(root)
    check_images(splits, skip=True)
    assert len(opened) == 6
    opened.clear()
    check_images(splits, skip=True)
    assert sorted(opened) == ["train/1.png", "valid/2.png"]
    changed = root / "train" / "0.png"
    Image.new("RGB", (20, 20)).save(changed)
    os.utime(changed, ns=(0, 1))
    with pytest.raises(GCNetError, match=r"train/0\.png is 20x20 pixels, annotated as 64x48"):
        check_images(splits)
    for damaged in ("", "[1]", '{"a": [1]}', "[" * 100_000):
        for file in (root.parent / "cache").rglob("*.json"):
            file.write_text(damaged)
        assert len(check_images(splits, skip=True)["train"]) == 1


def test_a_cache_that_cannot_be_written_does_not_matter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCNET_HOME", "/proc/nowhere")
    assert len(check_images(load_splits(root), skip=True)["train"]) == 2


def test_images_without_an_end_mark_are_decoded(root: Path) -> None:
    """A cut-off WebP has a good header, and nothing at its end to look for."""
    whole = root / "train" / "0.png"
    Image.open(whole).save(whole, "WEBP", lossless=True)
    assert len(check_images(load_splits(root), skip=True)["train"]) == 2
    whole.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(GCNetError, match=r"^3 of 6"):
        check_images(load_splits(root))
