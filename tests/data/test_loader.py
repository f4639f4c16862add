from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_files import annotation, content, write_split

from gcnet.data.dataset import collection_paused
from gcnet.data.detection import describe_left_out, trainable
from gcnet.data.loader import (
    IterationSampler,
    eval_loader,
    iterations_per_epoch,
    repeat_factors,
    train_loader,
    training_images,
)
from gcnet.data.readers.coco import CocoDataset
from gcnet.data.transforms import Sample
from gcnet.errors import GCNetError
from gcnet.recipe import Recipe

SIZES = [(48, 64), (64, 48)] * 4 + [(40, 70), (20, 60), (50, 50)]
SIZE = (96, 64)
RECIPE = Recipe(batch_size=3, seed=3, workers=0, scale_jitter=(0.8, 1.2), color_jitter=0.2)
EVERYTHING = replace(RECIPE, quarter_turns=0.5, rotation=20, crop=0.6, copy_paste=0.8)


@pytest.fixture
def dataset(tmp_path: Path) -> CocoDataset:
    """Eleven images, of which one is too small to train on, one has no object and one only a crowd."""
    values = content(SIZES)
    rle = {"size": [64, 48], "counts": [64 * 10, 64 * 20, 64 * 18]}
    values["annotations"][2]["image_id"] = 100
    values["annotations"][3] |= {"iscrowd": 1, "segmentation": rle}
    values["annotations"].append(annotation(50, 104, category_id=9))
    return CocoDataset.load(write_split(tmp_path, values), tmp_path)


def sampler(images: int = 23, batch_size: int = 4, **options: Any) -> IterationSampler:
    wide, repeats = np.arange(images) % 3 > 0, options.pop("repeats", np.ones(images))
    return IterationSampler(np.arange(images), wide, repeats, batch_size, **{"seed": 5, **options})


def take(batches: Any, count: int) -> list[Any]:
    return list(itertools.islice(batches, count))


# The sampler -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "batch_size"), [(23, 4), (24, 4), (5, 8), (1, 3), (7, 1), (100, 16)])
def test_an_epoch_shows_every_image(images: int, batch_size: int) -> None:
    batches = sampler(images, batch_size)
    epoch = take(batches, batches.iterations_per_epoch)
    assert len(epoch) == -(-images // batch_size)
    assert all(len(batch) == batch_size for batch in epoch)
    counts = Counter(index for batch in epoch for index, _ in batch)
    assert set(counts) == set(range(images))
    assert max(counts.values()) <= -(-batch_size // images) + 1
    positions = [position for batch in epoch for _, position in batch]
    assert positions == list(range(len(epoch) * batch_size))


def test_epochs_differ_and_seeds_differ() -> None:
    batches = sampler()
    first, second = batches.epoch(0), batches.epoch(1)
    assert (first != second).any()
    np.testing.assert_array_equal(first, sampler().epoch(0))
    assert (first != sampler(seed=6).epoch(0)).any()


def test_batches_hold_like_aspect_ratios() -> None:
    batches = sampler(100, 8)
    for epoch in range(5):
        mixed = [batch for batch in batches.epoch(epoch) if len(set(batches.wide[batch])) > 1]
        assert len(mixed) <= 2  # what the groups leave over, and the batch that is filled up


@pytest.mark.parametrize("start", [0, 1, 5, 6, 13])
def test_starting_late_continues_the_unbroken_stream(start: int) -> None:
    assert take(sampler(start_iteration=start), 9) == take(sampler(), start + 9)[start:]


def test_processes_share_each_batch() -> None:
    whole = take(sampler(start_iteration=2), 8)
    shares = [take(sampler(start_iteration=2, rank=rank, world_size=2), 8) for rank in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert len(first) == len(second) == 2
        assert sorted(first + second) == sorted(batch)


def test_a_batch_that_cannot_be_shared_is_an_error() -> None:
    with pytest.raises(GCNetError, match="batch_size 4 cannot be shared by 3 processes"):
        sampler(world_size=3)


def test_images_are_repeated_as_often_as_they_ask_for() -> None:
    repeats = np.array([1.0, 2.5, 1.25, 3.0] * 4)
    batches = sampler(16, 3, repeats=repeats)
    assert batches.iterations_per_epoch == 11  # 31 images
    counts = np.zeros(16)
    for epoch in range(300):
        shown = batches.epoch(epoch)
        own = np.bincount(shown.ravel(), minlength=16)
        assert shown.shape == (11, 3)
        assert (own >= np.floor(repeats)).all()
        counts += own
    filled = 33 / 31  # what fills the last batch
    assert np.abs(counts / 300 - repeats * filled).max() < 0.2
    late = sampler(16, 3, repeats=repeats, start_iteration=13)
    assert take(late, 12) == take(batches, 25)[13:]


def test_repeat_factors_are_those_of_lvis() -> None:
    """Class 0 in all of 100 images, class 1 in four, class 2 in one, where class 1 is too."""
    classes = [[0, 0]] * 95 + [[0, 1]] * 3 + [[0, 1, 2]] + [[0]]
    factors = repeat_factors(classes, 0.16)
    assert factors[0] == factors[99] == 1
    assert factors[95] == pytest.approx(2)  # sqrt(0.16 / 0.04)
    assert factors[98] == pytest.approx(4)
    assert repeat_factors([[], [1]], 1.0).tolist() == [1, pytest.approx(2**0.5)]


# The loaders -------------------------------------------------------------------------------------------


def test_trainable_leaves_out_small_and_empty_images(dataset: CocoDataset) -> None:
    assert trainable(dataset, RECIPE) == [0, 1, 4, 5, 6, 7, 8, 10]
    assert iterations_per_epoch(dataset, RECIPE) == 3
    line = describe_left_out(dataset, RECIPE)
    assert "2 of the 11 images have no objects" in line
    assert "--keep-empty" in line


def test_images_without_objects_can_be_kept(dataset: CocoDataset) -> None:
    recipe = replace(EVERYTHING, keep_empty=True, batch_size=1)
    assert trainable(dataset, recipe) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]
    assert describe_left_out(dataset, recipe) == ""
    batches = take(train_loader(dataset, recipe=recipe, image_size=SIZE), 10)
    counts = {batch.image_ids[0]: len(targets[0]) for batch, targets in batches}
    assert len(counts) == 10
    assert min(counts.values()) == 0


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    values = content([(20, 64)])
    dataset = CocoDataset.load(write_split(tmp_path, values), tmp_path)
    with pytest.raises(GCNetError, match="no image with objects to learn from"):
        train_loader(dataset, recipe=RECIPE, image_size=SIZE)


def test_training_batches_hold_together(dataset: CocoDataset) -> None:
    loader = train_loader(dataset, recipe=RECIPE, image_size=SIZE)
    for batch, targets in take(loader, 3):
        assert len(batch) == len(targets) == 3
        assert batch.images.dtype == torch.uint8
        assert all(side % 32 == 0 for side in batch.images.shape[2:])
        for i, target in enumerate(targets):
            height, width = batch.image_sizes[i]
            record = next(record for record in dataset.records if record.id == batch.image_ids[i])
            assert batch.original_sizes[i] == (record.height, record.width)
            assert not batch.images[i, :, height:].any()
            assert not batch.images[i, :, :, width:].any()
            assert batch.images[i, :, :height, :width].float().std() > 10
            assert len(target) == len(target.masks) == sum(not obj.crowd for obj in record.instances)
            assert (target.boxes[:, 2:] <= torch.tensor([width, height])).all()


@pytest.mark.parametrize("recipe", [RECIPE, EVERYTHING], ids=["default", "everything"])
def test_the_stream_depends_neither_on_workers_nor_on_the_start(dataset: CocoDataset, recipe: Recipe) -> None:
    def batches(count: int, workers: int, start: int = 0) -> list[Any]:
        options = {"image_size": SIZE, "start_iteration": start}
        return take(train_loader(dataset, recipe=replace(recipe, workers=workers), **options), count)

    reference = batches(6, 0)
    others = {0: batches(6, 2), 4: batches(2, 1, start=4)}
    for start, batches in others.items():
        for (batch, targets), (other, other_targets) in zip(reference[start:], batches, strict=True):
            assert batch.image_ids == other.image_ids
            assert torch.equal(batch.images, other.images)
            for target, other_target in zip(targets, other_targets, strict=True):
                assert torch.equal(target.boxes, other_target.boxes)


def test_evaluation_pads_images_together(dataset: CocoDataset) -> None:
    batches = list(eval_loader(dataset, [[0, 2], [1]], image_size=(96, 64), workers=0))
    assert [batch.image_ids for batch in batches] == [[100, 102], [101]]
    assert batches[0].image_sizes[0] == (64, 85)
    assert batches[0].original_sizes[0] == (48, 64)
    assert batches[0].images.shape == (2, 3, 64, 96)


def test_a_killed_worker_is_one_line(dataset: CocoDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    recipe = replace(RECIPE, workers=1)
    batches = iter(train_loader(dataset, recipe=recipe, image_size=SIZE))
    next(batches)
    wait = "torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data.__defaults__"
    monkeypatch.setattr(wait, (0.2,))  # seconds, in place of five, after which it asks whether workers live
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(GCNetError, match=r"reads images was killed \(signal 9\), as happens when memory"):
        list(batches)
    assert signal.getsignal(signal.SIGCHLD) == before


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_line_from_a_worker_too(dataset: CocoDataset, workers: int) -> None:
    path = dataset.records[0].path
    path.write_bytes(path.read_bytes()[:500])
    for loader in (
        eval_loader(dataset, [[0, 1]], image_size=(96, 64), workers=workers),
        train_loader(dataset, recipe=replace(RECIPE, workers=workers), image_size=SIZE),
    ):
        with pytest.raises(GCNetError, match=r"\A[^\n]*0\.png is a damaged image file[^\n]*\Z"):
            take(loader, 3)


def test_workers_end_with_the_error_of_one(dataset: CocoDataset) -> None:
    """Left to the garbage collection they would be waited for: 5 s each."""
    dataset.records[0].path.write_bytes(b"")
    loader = eval_loader(dataset, [[0]], image_size=(96, 64), workers=1)
    alive = weakref.ref(loader)
    with collection_paused():
        with contextlib.suppress(GCNetError):
            list(loader)
        del loader
        assert alive() is None


def test_a_persons_own_transform_comes_first(dataset: CocoDataset) -> None:
    def keep_the_left_half(sample: Sample, rng: np.random.Generator) -> Sample:
        half = sample.size[1] // 2
        return replace(sample, image=np.ascontiguousarray(sample.image[:, :half]))

    recipe = replace(RECIPE, scale_jitter=(1.0, 1.0))
    batch, _ = next(
        iter(train_loader(replace(dataset, transforms=[keep_the_left_half]), recipe=recipe, image_size=SIZE))
    )
    for (height, width), (old_height, old_width) in zip(batch.image_sizes, batch.original_sizes, strict=True):
        assert width / height == pytest.approx(old_width / old_height / 2, rel=0.05)
    wrong = replace(dataset, transforms=[lambda sample, rng: None])
    with pytest.raises(GCNetError, match="gave a NoneType; return a gcnet"):
        next(iter(train_loader(wrong, recipe=RECIPE, image_size=SIZE)))


def test_a_detector_of_boxes_learns_from_boxes(tmp_path: Path) -> None:
    values = content(SIZES[:2])
    for entry in values["annotations"]:
        entry["segmentation"] = []
    dataset = CocoDataset.load(write_split(tmp_path, values), tmp_path)
    with pytest.raises(GCNetError, match="has boxes but no outlines"):
        trainable(dataset, RECIPE)
    recipe = replace(EVERYTHING, batch_size=2)
    for _, targets in take(train_loader(dataset, recipe=recipe, image_size=SIZE, masks=False), 4):
        assert all(target.masks == [[]] * len(target) for target in targets)


def test_images_of_rare_classes_are_shown_more_often(dataset: CocoDataset) -> None:
    recipe = replace(RECIPE, repeat_threshold=1.0)
    indices, repeats = training_images(dataset, recipe)
    assert repeats is not None
    assert repeats[list(indices).index(4)] == pytest.approx(8**0.5)  # the only dog in eight images
    assert iterations_per_epoch(dataset, recipe) == 4  # 7 and 2.8 images, by threes
    seen = Counter(
        i
        for batch, _ in take(train_loader(dataset, recipe=recipe, image_size=SIZE), 8)
        for i in batch.image_ids
    )
    assert 4 <= seen[104] <= 8  # 2 or 3 an epoch, and one that may fill the last batch
    assert max(count for id, count in seen.items() if id != 104) <= 4


def test_what_is_marked_to_be_ignored_goes_along(tmp_path: Path) -> None:
    """Neither an object nor background; a crowd only if the recipe says so; masks alone need outlines."""
    values = content([(48, 64)])
    rle = {"size": [48, 64], "counts": [64 * 10, 64 * 20, 64 * 18]}
    values["annotations"] += [
        annotation(2, 100, box=(30, 20, 10, 8), ignore=1),
        annotation(3, 100, box=(2, 3, 50, 40), iscrowd=1, segmentation=rle),
        annotation(4, 100, box=(5, 30, 9, 9), segmentation=[]),
    ]
    dataset = CocoDataset.load(write_split(tmp_path, values), tmp_path)
    still = replace(RECIPE.without_augmentation(), batch_size=1)

    def targets(recipe: Recipe, masks: bool = True) -> tuple[list[list[float]], list[list[float]]]:
        loader = train_loader(dataset, recipe=recipe, image_size=(64, 48), masks=masks)
        (target,) = take(loader, 1)[0][1]
        assert target.ignored is not None
        return target.boxes.tolist(), target.ignored.tolist()

    drawn, marked, crowd, box = [10, 8, 30, 24], [30, 20, 40, 28], [2, 3, 52, 43], [5, 30, 14, 39]
    assert targets(still) == ([drawn], [marked, box])
    assert targets(replace(still, ignore_crowds=True)) == ([drawn], [marked, crowd, box])
    assert targets(still, masks=False) == ([drawn, box], [marked])
    mirrored = targets(replace(still, flip=1.0))[1]
    assert mirrored[0] == [24, 20, 34, 28]
