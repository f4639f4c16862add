"""Crops, smoothing, mixing, and a stream that depends on seed and position alone."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_folders import write_folders

from gcnet.data.classification import class_shares, mix, train_square
from gcnet.data.image_folder import load_image_folders
from gcnet.data.loader import eval_loader, train_loader
from gcnet.errors import GCNetError
from gcnet.ops.images import middle_square
from gcnet.recipe import ClassificationRecipe

SIZE = (36, 32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("photos"))


def stream(root: Path, count: int, **changes: Any) -> list[Any]:
    where = {name: changes.pop(name) for name in ("start_iteration", "rank", "world_size") if name in changes}
    fields: dict[str, Any] = {"batch_size": 4, "seed": 3, "workers": 0, "scale_jitter": (0.08, 1.0)}
    recipe = ClassificationRecipe(**({"label_smoothing": 0.0} | fields | changes))
    loader = train_loader(load_image_folders(root)["train"], recipe=recipe, image_size=SIZE, **where)
    return list(islice(loader, count))


def same(one: Any, other: Any) -> bool:
    return (
        torch.equal(one[0].images, other[0].images)
        and torch.equal(one[1].shares, other[1].shares)
        and one[0].image_ids == other[0].image_ids
    )


def test_batches_of_squares_and_their_classes(root: Path) -> None:
    batch, targets = stream(root, 1)[0]
    assert batch.images.shape == (4, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert targets.shares.shape == (4, 3)
    names = [image_id.split("/")[0] for image_id in batch.image_ids]
    assert [("blue", "green", "red")[k] for k in targets.shares.argmax(1)] == names
    brightest = batch.images.float().mean((2, 3)).argmax(1)  # of the channels red, green, blue
    assert [("red", "green", "blue")[channel] for channel in brightest] == names


@pytest.mark.parametrize(
    "extra",
    [{}, {"mixup": 0.4, "label_smoothing": 0.1, "color_jitter": 0.3, "quarter_turns": 1.0, "rotation": 9.0}],
)
def test_resuming_and_workers_change_nothing(root: Path, extra: dict[str, Any]) -> None:
    whole = stream(root, 7, **extra)
    assert all(
        same(a, b) for a, b in zip(whole[4:], stream(root, 3, start_iteration=4, **extra), strict=True)
    )
    assert all(same(a, b) for a, b in zip(whole[:3], stream(root, 3, workers=2, **extra), strict=True))
    assert not same(whole[0], stream(root, 1, seed=4, **extra)[0])
    epoch = [image_id for batch, _ in whole[:3] for image_id in batch.image_ids]
    assert len(set(epoch)) == 12


def test_two_processes_share_a_batch(root: Path) -> None:
    whole = stream(root, 1)[0][0]
    halves = [stream(root, 1, rank=rank, world_size=2)[0][0] for rank in range(2)]
    assert [half.image_ids for half in halves] == [whole.image_ids[0::2], whole.image_ids[1::2]]
    assert torch.equal(halves[1].images, whole.images[1::2])


def test_smoothing() -> None:
    shares = class_shares(torch.tensor([2, 0]), 4, 0.2)
    torch.testing.assert_close(shares, torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]))
    assert torch.equal(class_shares(torch.tensor([1]), 2, 0.0), torch.tensor([[0.0, 1.0]]))


def test_mixing_takes_pictures_and_classes_alike() -> None:
    images = torch.tensor([0, 100, 200], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    mixed, shares = mix(images, torch.eye(3), 0.75)
    assert mixed[:, 0, 0, 0].tolist() == [50, 75, 175]
    torch.testing.assert_close(shares.sum(1), torch.ones(3))
    assert shares[0].tolist() == [0.75, 0.0, 0.25]


def test_mixup_and_smoothing_reach_the_targets(root: Path) -> None:
    shares = torch.cat([targets.shares for _, targets in stream(root, 6, mixup=0.4, label_smoothing=0.3)])
    torch.testing.assert_close(shares.sum(1), torch.ones(24))
    assert shares.min() > 0.09
    assert ((shares > 0.11).sum(1) == 2).any()


def test_random_parts_of_the_picture() -> None:
    y, x = np.mgrid[:60, :90]
    image = np.stack([x * 2, y * 4, 0 * x], 2).astype(np.uint8)

    def cut(seed: int, **options: Any) -> np.ndarray:
        recipe = ClassificationRecipe(**options)
        return train_square(image, SIZE, recipe, np.random.default_rng(seed))

    whole = cut(1, flip=0.0, scale_jitter=(1.0, 1.0))
    assert np.array_equal(whole, middle_square(image, SIZE))
    assert np.array_equal(cut(1, flip=1.0, scale_jitter=(1.0, 1.0)), whole[:, ::-1])
    parts = [cut(seed, flip=0.0, scale_jitter=(0.08, 0.3)) for seed in range(20)]
    assert {part.shape for part in parts} == {(32, 32, 3)}
    spans = [
        np.ptp(part[..., 0].astype(int)) / 180 * np.ptp(part[..., 1].astype(int)) / 240 for part in parts
    ]
    assert 0.03 < min(spans) < 0.15 < max(spans) < 0.32
    assert np.mean(cut(1, color_jitter=0.9) != cut(1)) > 0.1


def test_tiny_and_extreme_pictures_are_cut_too() -> None:
    for shape in ((1, 1, 3), (1, 500, 3), (500, 2, 3)):
        image = np.zeros(shape, np.uint8)
        for seed in range(5):
            square = train_square(image, SIZE, ClassificationRecipe(), np.random.default_rng(seed))
            assert square.shape == (32, 32, 3)


def test_evaluation_sees_every_picture_once(root: Path) -> None:
    dataset = load_image_folders(root)["valid"]
    batches = list(eval_loader(dataset, [range(4), range(4, 6)], image_size=SIZE, workers=0))
    assert [i for batch in batches for i in batch.image_ids] == list(range(6))
    assert batches[0].original_sizes == [(40, 48)] * 4
    expected = middle_square(dataset.read_image(5), SIZE)
    assert np.array_equal(batches[1].images[1].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_one_line(tmp_path: Path, workers: int) -> None:
    folder = write_folders(tmp_path, train=1, valid=1)
    for split in ("train", "val"):
        (folder / split / "red" / "0.png").write_bytes(b"broken")
    with pytest.raises(GCNetError, match=r"train/red/0\.png is not an image"):
        stream(folder, 3, workers=workers)
    valid = load_image_folders(folder)["valid"]
    with pytest.raises(GCNetError, match=r"val/red/0\.png is not an image"):
        list(eval_loader(valid, [range(len(valid))], image_size=SIZE, workers=workers))


def test_rare_classes_can_be_shown_more_often(tmp_path: Path) -> None:
    folder = write_folders(tmp_path, train=8)
    for path in sorted((folder / "train" / "red").iterdir())[2:]:
        path.unlink()
    batches = stream(folder, 6, repeat_threshold=1.0)  # 18 images, 2 of them red: three times each
    names = [name.split("/")[0] for batch, _ in batches for name in batch.image_ids]
    assert 5 <= names.count("red") <= 7
