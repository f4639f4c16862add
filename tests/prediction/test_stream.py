"""Images through a model a few at a time, however many there are."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gcnet.errors import GCNetError
from gcnet.prediction import stream
from gcnet.prediction.stream import Done, predict_all


class Heights:
    """Says of each image how high it is. `slow` is how long that takes to write down."""

    def __init__(self, slow: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.slow, self.held, self.most = slow, 0, 0
        self.lock = threading.Lock()

    def prepare(self, image: np.ndarray) -> int:
        with self.lock:
            self.held += image.shape[0] * image.shape[1]
            self.most = max(self.most, self.held)
        return image.shape[0]

    def frame(self, prepared: int) -> int:
        return prepared

    def predict(self, prepared: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(prepared))
        return prepared

    def finish(self, index: int, image: np.ndarray, result: Any) -> Done:
        time.sleep(self.slow)
        with self.lock:
            self.held -= image.shape[0] * image.shape[1]
        return Done(index, {"height": result})

    def failed(self, index: int, error: GCNetError) -> Done:
        return Done(index, {"error": str(error)})


def write_images(folder: Path, heights: Sequence[int]) -> list[str]:
    for number, height in enumerate(heights):
        assert cv2.imwrite(str(folder / f"{number:03}.png"), np.zeros((height, 20, 3), np.uint8))
    return [f"{folder}/{number:03}.png" for number in range(len(heights))]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_are_of_one_frame_and_all_images_come(tmp_path: Path, batch_size: int) -> None:
    heights = [10, 20, 10, 20, 10, 30, 10, 20, 10]
    paths = write_images(tmp_path, heights)
    Path(paths[4]).write_bytes(b"broken")
    steps, taken = Heights(), []
    predict_all(steps, paths, range(9), taken.append, batch_size=batch_size, max_pixels=10_000)
    assert sorted(done.index for done in taken) == list(range(9))
    entries = {done.index: done.entry for done in taken}
    assert "not an image" in entries.pop(4)["error"]
    assert entries == {index: {"height": heights[index]} for index in entries}
    assert all(len(set(batch)) == 1 and len(batch) <= batch_size for batch in steps.batches)
    assert sorted(map(len, steps.batches)) == ([1] * 8 if batch_size == 1 else [1, 1, 3, 3])


def test_no_more_is_held_than_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "AHEAD", 2_000)  # of images with 800 pixels: two before and two after
    steps, taken = Heights(slow=0.01), []
    paths = write_images(tmp_path, [40] * 30)
    predict_all(steps, paths, range(30), taken.append, max_pixels=10_000)
    assert [done.index for done in taken] == list(range(30))
    assert steps.most <= 5 * 800  # and the one that is predicted


def test_sizes_that_never_fill_a_batch_are_not_kept_to_the_end(tmp_path: Path) -> None:
    steps, taken = Heights(), []
    heights = [*range(10, 40)]
    predict_all(
        steps, write_images(tmp_path, heights), range(30), taken.append, batch_size=2, max_pixels=10_000
    )
    assert [done.index for done in taken] == list(range(30))
    assert steps.most < 28 * 20 * 30
