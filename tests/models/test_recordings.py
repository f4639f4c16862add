"""Which predictions are recorded as CUDA graphs, and that a recording gives what is computed without it.

What needs a GPU is left out where there is none; there stand-ins are recorded.
"""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from contextlib import nullcontext
from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn

from gcnet.context import record
from gcnet.lab.subjects import busy_detector, random_batch
from gcnet.models import recordings
from gcnet.models.recordings import Recordings
from gcnet.types import Batch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def batch(height: int = 32, images: int = 1) -> Batch:
    pixels = torch.zeros(images, 3, height, 32, dtype=torch.uint8)
    return Batch(pixels, [(height, 32)] * images, [(height, 32)] * images, range(images))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The shapes that are recorded, by a stand-in that finds nothing."""
    shapes: list[Any] = []

    def stand_in(find: Any, batch: Batch, threshold: float, pool: Any) -> Any:
        if batch.images.shape[2] == 999:
            raise RuntimeError("operation not permitted when stream is capturing\nmore words")
        shapes.append(tuple(batch.images.shape))
        return lambda given, threshold: []

    monkeypatch.setattr(recordings, "Recording", stand_in)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: object())
    return shapes


def find(kept: Recordings, given: Batch, threshold: float = 0.05) -> Any:
    return kept.find(nn.Identity().eval(), lambda *_: [], given, threshold)


def test_a_shape_that_comes_again_is_recorded_once(made: list[Any]) -> None:
    kept = Recordings()
    answers = [find(kept, batch()) for _ in range(5)]
    assert answers == [None, None, [], [], []]
    assert made == [(1, 3, 32, 32)]
    assert find(kept, batch(), threshold=0.5) == []  # as services choose it
    assert find(kept, batch(64)) is None
    assert find(kept, batch(images=2)) is None


def test_hooks_and_training_are_not_passed_over(made: list[Any]) -> None:
    kept, model = Recordings(), nn.Sequential(nn.ReLU()).eval()

    def answers() -> Any:
        return [kept.find(model, lambda *_: [], batch(), 0.05) for _ in range(4)]

    hook = model[0].register_forward_hook(lambda *_: None)
    assert answers() == [None] * 4
    assert not made
    hook.remove()
    assert answers() == [None, None, [], []]
    assert answers() == [[]] * 4
    assert kept.find(model.train(), lambda *_: [], batch(), 0.05) is None


def test_the_last_used_are_kept(made: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MOST", 2)
    kept = Recordings()
    for height in (32, 64, 96):
        for _ in range(3):
            find(kept, batch(height))
        find(kept, batch(32))
    assert len(kept._recorded) == 2
    find(kept, batch(32))
    assert [shape[2] for shape in made] == [32, 64, 96]
    find(kept, batch(64))
    assert [shape[2] for shape in made] == [32, 64, 96, 64]


def test_what_cannot_be_recorded_is_tried_once_and_said_in_one_line(made: list[Any]) -> None:
    kept = Recordings()
    with pytest.warns(UserWarning, match=r"not recorded as a CUDA graph: operation .* capturing$"):
        assert [find(kept, batch(999)) for _ in range(3)] == [None] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find(kept, batch(999)) is None


def test_a_copy_has_none_and_a_model_that_moves_forgets_them(made: list[Any]) -> None:
    model = busy_detector("mask_rcnn_tiny").optimize()
    kept = model.recordings
    assert kept is not None
    for _ in range(3):
        find(kept, batch())
    for one in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert len(kept._recorded) == 1
        assert one.recordings is not kept
        assert not one.recordings._recorded
    for change in (lambda: model.to(torch.float32), lambda: model.limit_detections(7)):
        for _ in range(3):
            find(kept, batch())
        assert kept._recorded
        change()
        assert not kept._recorded
        assert find(kept, batch()) is None


def test_only_optimised_copies_record() -> None:
    assert busy_detector("mask_rcnn_tiny").recordings is None
    assert busy_detector("mask_rcnn_tiny").optimize().recordings is not None


def on_gpu(row: str, **options: Any) -> tuple[Any, list[Batch]]:
    model = busy_detector(row).to("cuda").optimize(**options)
    batches = [random_batch(2, (96, 128)).to("cuda") for _ in range(5)]
    sizes = [[(96, 128), (70, 100)], [(96, 100), (96, 128)]]
    batches = [Batch(one.images, sizes[i % 2], sizes[i % 2], range(2)) for i, one in enumerate(batches)]
    return model, batches


@needs_gpu
@pytest.mark.parametrize("row", ["mask_rcnn_tiny_gc4", "cascade_mask_rcnn_x101_syncbn_dcn_gc4"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_recording_finds_what_is_found_without_it(row: str, precision: str) -> None:
    model, batches = on_gpu(row, precision=precision)
    recorded = [model.predict(one) for one in batches][3:]
    assert [one is not None for one in model.recordings._recorded.values()] == [True]
    kept, model.recordings = model.recordings, None
    usual = [model.predict(one) for one in batches][3:]
    for ours, theirs in zip(chain(*recorded), chain(*usual), strict=True):
        assert len(ours) == len(theirs) > 0
        torch.testing.assert_close(ours.boxes, theirs.boxes, atol=0.01, rtol=0)
        torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-3, rtol=0)
    model.recordings = kept


@needs_gpu
def test_hooks_are_called_though_a_recording_is_there() -> None:
    model, batches = on_gpu("mask_rcnn_tiny_gc4")
    for one in batches:
        model.predict(one)
    with record(model) as maps:
        model.predict(batches[0])
    assert maps


@needs_gpu
def test_a_model_that_is_dropped_gives_its_memory_back() -> None:
    model, batches = on_gpu("mask_rcnn_tiny_gc4")
    for one in batches:
        model.predict(one)
    there = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert there() is None
    finally:
        gc.enable()
