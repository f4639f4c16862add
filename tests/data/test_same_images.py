"""The same image is found under another name, in another format or size; others are not taken for it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pytest

from gcnet.data.same_images import same_images


def photograph(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


def test_copies_are_found_however_they_were_saved(tmp_path: Path) -> None:
    image = photograph(0)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    cv2.imwrite(str(tmp_path / "c.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 80])
    cv2.imwrite(str(tmp_path / "d.png"), cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA))
    cv2.imwrite(str(tmp_path / "e.png"), photograph(1))
    (tmp_path / "f.png").write_bytes(b"no image")
    paths = [
        tmp_path / name for name in ("e.png", "a.png", "missing.png", "c.jpg", "f.png", "b.png", "d.png")
    ]
    seen = []
    assert same_images(paths, done=lambda: seen.append(1)) == [[1, 3, 5, 6]]
    assert len(seen) == 6  # b.png is a.png, byte by byte
    assert same_images(paths, most_decoded=0) == [[1, 5]]
    assert same_images([]) == []


def test_a_file_that_cannot_be_read_is_like_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found among the broken images, and ended the look at a data set in a traceback here."""
    paths = [tmp_path / name for name in ("a.bin", "b.bin", "c.bin")]
    for path in paths:
        path.write_bytes(b"the same")
    whole = hashlib.file_digest

    def digest(file: BinaryIO, name: str) -> object:
        if file.name == str(paths[0]):
            raise PermissionError
        return whole(file, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert same_images(paths) == [[1, 2]]


def test_images_that_differ_in_a_thing_are_two(tmp_path: Path) -> None:
    plain = np.full((240, 320, 3), 128, np.uint8)
    for name, x in (("a.png", 40), ("b.png", 200)):
        image = plain.copy()
        cv2.rectangle(image, (x, 100), (x + 20, 120), (255, 255, 255), -1)
        cv2.imwrite(str(tmp_path / name), image)
    cv2.imwrite(str(tmp_path / "c.png"), plain[:120])
    cv2.imwrite(str(tmp_path / "d.png"), plain)
    assert same_images([tmp_path / name for name in ("a.png", "b.png", "c.png", "d.png")]) == []
