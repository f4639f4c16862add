"""All bad images are named before a training begins, those of `valid` too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from coco_files import content, write_split

from gcnet.data.check import check_images
from gcnet.data.load import load_splits
from gcnet.errors import GCNetError


def test_bad_images_are_named_together(tmp_path: Path) -> None:
    values = content([(48, 64)] * 3)
    write_split(tmp_path / "train", values)
    path = write_split(tmp_path / "valid", values)
    check_images(load_splits(tmp_path))
    cut = tmp_path / "train" / "1.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    values["images"][2] |= {"width": 32, "height": 24}
    path.write_text(json.dumps(values))
    with pytest.raises(GCNetError) as caught:
        check_images(load_splits(tmp_path))
    message = str(caught.value)
    assert message.startswith("2 of 6 images cannot be trained on:")
    assert "train/1.png is a damaged image file" in message
    assert "valid/2.png is 64x48 pixels, annotated as 32x24" in message
    assert "\n" not in message
