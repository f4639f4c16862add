"""Batches for training and evaluation, read by worker processes.

The training stream is endless and a pure function of (seed, position): which images come at iteration i,
and how each is mirrored, scaled and recoloured, depends neither on the number of workers nor on where the
run started. Resuming is starting at another iteration.
"""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import DataLoader, Dataset, Sampler

from gcnet.data.dataset import MIN_SIDE, DataSet, ImageRecord
from gcnet.data.transforms import Sample, Transform, apply, train_transforms
from gcnet.errors import GCNetError
from gcnet.ops.images import fit_size, padded_size, resize_image, stack_images
from gcnet.recipe import Recipe
from gcnet.types import Batch, Targets

_ORDER, SAMPLE_STREAM = 0, 1  # keep the random streams of the epochs' order and of the samples apart


def train_loader(
    dataset: DataSet[ImageRecord],
    *,
    recipe: Recipe,
    image_size: tuple[int, int],
    masks: bool = True,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """An endless stream of (Batch, list of Targets), beginning at `start_iteration`.

    The recipe's `batch_size` counts the images of one iteration over all processes together; this process,
    `rank` of `world_size`, gets its equal share. `image_size` is the (long, short) side that images are made
    to fit. Without `masks`, objects need no outlines. Each time it is iterated over, the loader begins at
    `start_iteration` again.
    """
    indices = trainable(dataset, masks=masks)
    another = partial(_draw_sample, dataset, indices, masks)
    transforms = [*dataset.transforms, *train_transforms(recipe, image_size, another)]
    sampler = IterationSampler(
        indices,
        wide=[_is_wide(dataset.records[i]) for i in indices],
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        start_iteration=start_iteration,
        rank=rank,
        world_size=world_size,
    )
    read = partial(_read_train, dataset, transforms, seed=recipe.seed, masks=masks)
    return Loader(read, len(dataset), collate=_collate_train, workers=recipe.workers, batch_sampler=sampler)


def eval_loader(
    dataset: DataSet[ImageRecord],
    batches: Sequence[Sequence[int]],
    *,
    image_size: tuple[int, int],
    workers: int = 2,
) -> Loader:
    """The images of each of `batches` (indices into `dataset`) as a Batch."""
    read = partial(_read_eval, dataset, image_size=image_size)
    return Loader(read, len(dataset), collate=_collate_eval, workers=workers, batch_sampler=batches)


def batches_of_one_size(
    dataset: DataSet[ImageRecord], indices: Iterable[int], *, image_size: tuple[int, int], batch_size: int
) -> list[list[int]]:
    """`indices` in batches of up to `batch_size` images that are padded to the same size.

    So no image is padded further because of the others, which would change what the network finds in it.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index in indices:
        record = dataset.records[index]
        size = padded_size(fit_size((record.height, record.width), image_size))
        groups.setdefault(size, []).append(index)
    return [
        group[start : start + batch_size]
        for group in groups.values()
        for start in range(0, len(group), batch_size)
    ]


def trainable(dataset: DataSet[ImageRecord], *, masks: bool = True) -> list[int]:
    """Indices of the images that training uses: at least 32 pixels each way, with an object to learn from.

    With `masks`, that is one with an outline. Raises GCNetError if there are none.
    """
    indices = [
        i
        for i, record in enumerate(dataset.records)
        if min(record.width, record.height) >= MIN_SIDE and record.objects(masks=masks)
    ]
    if not indices:
        raise GCNetError(f"{dataset.source} has {_why_nothing(dataset.records)}")
    return indices


def _why_nothing(records: Sequence[ImageRecord]) -> str:
    """What there is instead of objects to learn from, and what to do."""
    objects = [item for record in records for item in record.instances if item.usable]
    if objects and all(item.crowd for item in objects):
        return (
            f"only objects marked iscrowd, {len(objects)} of them, as CVAT marks masks drawn by its brush; "
            "give --crowd-as-objects true to take them as objects"
        )
    if objects and not any(item.segmentation for item in objects):
        return (
            "boxes but no outlines; export it for instance segmentation, or train a detector of boxes alone"
        )
    return f"no image with objects to learn from, and {MIN_SIDE} pixels or more; annotate some"


def iterations_per_epoch(dataset: DataSet[ImageRecord], batch_size: int) -> int:
    """Iterations in which `train_loader` shows every trainable image once (or, to fill the last, twice)."""
    return -(-len(trainable(dataset)) // batch_size)


class IterationSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (index, position): what to load, and its place in the stream of all samples.

    An epoch is a permutation drawn from (seed, epoch). Wide images are batched with wide ones and tall
    with tall, to waste little padding; what either group leaves over makes the last batches together, and
    the very last one is filled up from the epoch's beginning. Then the batches are shuffled. An epoch
    is always ceil(images / batch_size) iterations.

    Args:
        indices: the images to draw from; `wide` says of each whether it is at least as wide as tall.
        batch_size: images in one iteration over all processes; `rank` of `world_size` gets every
            `world_size`-th of them.
        start_iteration: where to begin; may be set between iterations over the sampler.
    """

    def __init__(
        self,
        indices: Sequence[int],
        *,
        wide: Sequence[bool],
        batch_size: int,
        seed: int,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise GCNetError(
                f"batch_size {batch_size} cannot be shared by {world_size} processes; use a multiple of that"
            )
        self.indices = np.asarray(indices, np.int64)
        self.wide = np.asarray(wide, bool)
        self.batch_size = batch_size
        self.seed = seed
        self.start_iteration = start_iteration
        self.rank = rank
        self.world_size = world_size

    @property
    def iterations_per_epoch(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first_epoch, skip = divmod(self.start_iteration, self.iterations_per_epoch)
        for epoch in itertools.count(first_epoch):
            batches = self.epoch(epoch)
            for i in range(skip, len(batches)):
                begin = (epoch * len(batches) + i) * self.batch_size
                share = range(self.rank, self.batch_size, self.world_size)
                yield [(int(batches[i, slot]), begin + slot) for slot in share]
            skip = 0

    def epoch(self, epoch: int) -> Int64[np.ndarray, "I B"]:
        """The image indices of an epoch's I iterations of B images."""
        rng = np.random.default_rng([_ORDER, self.seed, epoch])
        order = rng.permutation(len(self.indices))
        groups = [order[self.wide[order]], order[~self.wide[order]]]
        whole = [len(group) - len(group) % self.batch_size for group in groups]
        parts = [group[:end] for group, end in zip(groups, whole, strict=True)]
        parts += [group[end:] for group, end in zip(groups, whole, strict=True)]
        length = self.iterations_per_epoch * self.batch_size
        # np.resize repeats from the beginning, more than once if there are fewer images than a batch holds.
        batches = np.resize(np.concatenate(parts), length).reshape(-1, self.batch_size)
        return self.indices[rng.permutation(batches)]


class Loader(DataLoader):
    """A DataLoader that passes on a GCNetError of a worker as it was raised.

    PyTorch would wrap it in the worker's traceback, which makes many lines of our one.

    Args:
        read: a sample for each key that the order has: an index, or what a `batch_sampler` yields.
        length: how many samples there are.
        collate: a batch of a list of samples.
        order: of a DataLoader: `batch_size` or `batch_sampler`.
    """

    def __init__(
        self,
        read: Callable[[Any], Any],
        length: int,
        *,
        collate: Callable[[list[Any]], Any],
        workers: int,
        **order: Any,
    ) -> None:
        super().__init__(
            _Samples(read, length),
            collate_fn=partial(_collate, collate),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_init_worker,
            **order,
        )

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        batches: Any = super().__iter__()
        if handler is not None and threading.current_thread() is threading.main_thread():
            # PyTorch's would raise in the middle of an iteration when a worker dies, which is seen below too.
            signal.signal(signal.SIGCHLD, handler)
        try:
            for item in batches:
                if isinstance(item, GCNetError):
                    raise item
                yield item
        except (RuntimeError, OSError, EOFError) as error:
            if why := _why_ended(getattr(batches, "_workers", ())):
                raise GCNetError(why) from error
            raise


def _why_ended(workers: Iterable[Any]) -> str:
    """What to say of a worker that is dead, or that its death is noticed before."""
    for worker in workers:
        worker.join(timeout=0.1)
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    if not codes:
        return ""
    signals = [-code for code in codes if code < 0]
    how = f"was killed (signal {signals[0]})" if signals else "ended"
    shared = getattr(signal, "SIGBUS", None) in signals
    memory = "shared memory (/dev/shm)" if shared else "memory"
    return f"a process that reads images {how}, as happens when {memory} runs out: use fewer --workers"


class _Samples(Dataset):
    """What `read` makes of a key, or the GCNetError that it raised."""

    def __init__(self, read: Callable[[Any], Any], length: int) -> None:
        self.read, self.length = read, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.read(key)
        except GCNetError as error:
            return error


def _collate(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    """The batch, or the first error among its samples."""
    return next((sample for sample in samples if isinstance(sample, GCNetError)), None) or collate(samples)


def _init_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the processes are the parallelism


def _read_train(
    dataset: DataSet[ImageRecord],
    transforms: Sequence[Transform],
    key: tuple[int, int],
    *,
    seed: int,
    masks: bool,
) -> tuple[np.ndarray, ImageRecord, Targets]:
    index, position = key
    record = dataset.records[index]
    rng = np.random.default_rng([SAMPLE_STREAM, seed, position])
    sample = apply(transforms, Sample.of(dataset.read_image(index), record, masks=masks), rng)
    return sample.image, record, sample.targets()


def _draw_sample(
    dataset: DataSet[ImageRecord], indices: Sequence[int], masks: bool, rng: np.random.Generator
) -> Sample:
    index = indices[int(rng.integers(len(indices)))]
    return Sample.of(dataset.read_image(index), dataset.records[index], masks=masks)


def _read_eval(dataset: DataSet[ImageRecord], index: int, *, image_size: tuple[int, int]) -> Any:
    image = dataset.read_image(index)
    return resize_image(image, fit_size(image.shape[:2], image_size)), dataset.records[index]


def _collate_train(samples: list[Any]) -> tuple[Batch, list[Targets]]:
    images, records, targets = zip(*samples, strict=True)
    return _batch(images, records), list(targets)


def _collate_eval(samples: list[Any]) -> Batch:
    return _batch(*zip(*samples, strict=True))


def _batch(images: Sequence[np.ndarray], records: Sequence[ImageRecord]) -> Batch:
    return Batch(
        images=stack_images(images),
        image_sizes=[(image.shape[0], image.shape[1]) for image in images],
        original_sizes=[(record.height, record.width) for record in records],
        image_ids=[record.id for record in records],
    )


def _is_wide(record: ImageRecord) -> bool:
    return record.width >= record.height
