"""Batches for training and evaluation, read by worker processes.

The training stream is endless and a pure function of (seed, position): which images come at iteration i, and
how each is mirrored, scaled and recoloured, does not depend on the number of workers, nor on the iteration at
which the run started. To resume is to start at another iteration. `gcnet.data.detection` and
`gcnet.data.classification` read the images and join them to batches.
"""

from __future__ import annotations

import itertools
import math
import signal
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch.utils.data import DataLoader, Dataset, Sampler

from gcnet.data import classification, detection
from gcnet.data.dataset import DataSet
from gcnet.errors import GCNetError
from gcnet.recipe import ClassificationRecipe, Recipe

_ORDER, _SAMPLE, _BATCH = 0, 1, 2  # keep random streams apart: of an epoch's order, of a sample, of a batch


def train_loader(
    dataset: DataSet[Any],
    *,
    recipe: Recipe,
    image_size: tuple[int, int],
    masks: bool = True,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """An endless stream of (Batch, targets), beginning at `start_iteration`.

    Targets are a list of `Targets`, or with a `ClassificationRecipe` `ClassTargets`. The recipe's
    `batch_size` counts the images of one iteration over all processes together; this process, `rank` of
    `world_size`, gets its equal share. `image_size` is the model's. Without `masks`, a detector's objects
    need no outlines. Each time it is iterated over, the loader begins at `start_iteration` again.
    """
    indices, repeats = training_images(dataset, recipe, masks=masks)
    if isinstance(recipe, ClassificationRecipe):
        examples = classification.Examples(dataset, recipe, image_size)
        wide = np.ones(len(indices), bool)  # all are squares: they need not be sorted by shape
    else:
        examples = detection.Examples(dataset, recipe, image_size, masks, indices)
        wide = np.array([dataset.records[i].width >= dataset.records[i].height for i in indices], bool)
    sampler = IterationSampler(
        np.asarray(indices, np.int64),
        wide,
        repeats,
        batch_size=int(recipe.batch_size),
        seed=recipe.seed,
        start_iteration=start_iteration,
        rank=rank,
        world_size=world_size,
    )
    read, collate = partial(_read, examples.read, recipe.seed), partial(_join, examples.join, recipe.seed)
    return Loader(read, sampler, collate=collate, workers=recipe.workers)


def _read(read: Callable[..., Any], seed: int, key: tuple[int, int]) -> tuple[int, Any]:
    index, position = key
    return position, read(index, np.random.default_rng([_SAMPLE, seed, position]))


def _join(join: Callable[..., Any], seed: int, samples: list[tuple[int, Any]]) -> Any:
    rng = np.random.default_rng([_BATCH, seed, samples[0][0]])
    return join([sample for _, sample in samples], rng)


def eval_loader(
    dataset: DataSet[Any],
    batches: Sequence[Sequence[int]],
    *,
    image_size: tuple[int, int],
    resize: str = "opencv",
    workers: int = 2,
) -> Loader:
    """The images of each of `batches` (indices into `dataset`) as a Batch; `resize` is a detector's rule."""
    kind = classification if dataset.has_labels else detection
    rule = {} if dataset.has_labels else {"rule": resize}
    read = partial(kind.read_whole, dataset, image_size, **rule)
    return Loader(read, batches, collate=kind.join_whole, workers=workers)


def training_images(
    dataset: DataSet[Any], recipe: Recipe, *, masks: bool = True
) -> tuple[Sequence[int], Float[np.ndarray, " N"]]:
    """Indices of the images that training uses, and how often an epoch shows each.

    Raises GCNetError if there are none.
    """
    if dataset.has_labels:
        indices, classes = range(len(dataset)), ([record.label] for record in dataset.records)
    else:
        indices = detection.trainable(dataset, recipe, masks=masks)
        objects = (dataset.records[i].objects(masks=masks) for i in indices)
        classes = ([item.label for item in found] for found in objects)
    threshold = recipe.repeat_threshold
    return indices, repeat_factors(list(classes), threshold) if threshold else np.ones(len(indices))


def repeat_factors(classes: Sequence[Collection[int]], threshold: float) -> Float[np.ndarray, " N"]:
    """How often an epoch shows each image, 1 or more (LVIS, arXiv 1908.03195, appendix).

    `classes` are those that each image has objects of. A class in a share f of the images asks for
    sqrt(threshold / f); an image is shown as often as the rarest of its classes asks for.
    """
    counts = Counter(k for found in classes for k in set(found))
    asked = {k: max(1.0, math.sqrt(threshold * len(classes) / count)) for k, count in counts.items()}
    return np.array([max((asked[k] for k in found), default=1.0) for found in classes])


def epoch_size(dataset: DataSet[Any], recipe: Recipe, *, masks: bool = True) -> int:
    """How many images `train_loader` shows in an epoch, before the last batch is filled up."""
    return math.ceil(training_images(dataset, recipe, masks=masks)[1].sum())


def iterations_per_epoch(dataset: DataSet[Any], recipe: Recipe, *, masks: bool = True) -> int:
    """Iterations in which `train_loader` shows that many images, or a few more, to fill the last."""
    return -(-epoch_size(dataset, recipe, masks=masks) // int(recipe.batch_size))


@dataclass(eq=False)
class IterationSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (index, position): what to load, and its place in the stream of all samples.

    An epoch is a permutation drawn from (seed, epoch). Wide images are batched with wide ones and tall
    with tall, to waste little padding; what either group leaves over makes the last batches together, and
    the very last one is filled up from the epoch's beginning. Then the batches are shuffled. An epoch
    is always ceil(images / batch_size) iterations.

    Args:
        indices: the images to draw from; `wide` says of each whether it is at least as wide as tall.
        repeats: how often an epoch shows each on average, as often as that rounded up or down by chance, so
            that an epoch has always as many.
        batch_size: images in one iteration over all processes; `rank` of `world_size` gets every
            `world_size`-th of them.
        start_iteration: where to begin; may be set between iterations over the sampler.
    """

    indices: Int64[np.ndarray, " N"]
    wide: Bool[np.ndarray, " N"]
    repeats: Float[np.ndarray, " N"]
    batch_size: int
    seed: int
    start_iteration: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise GCNetError(
                f"batch_size {self.batch_size} cannot be shared by {self.world_size} processes; "
                "use a multiple of that"
            )

    @property
    def iterations_per_epoch(self) -> int:
        return -(-math.ceil(self.repeats.sum()) // self.batch_size)

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
        order = rng.permutation(self._drawn(rng))
        groups = [order[self.wide[order]], order[~self.wide[order]]]
        halves = [np.split(group, [len(group) - len(group) % self.batch_size]) for group in groups]
        whole, left = zip(*halves, strict=True)
        length = self.iterations_per_epoch * self.batch_size
        # np.resize repeats from the beginning, more than once if there are fewer images than a batch holds.
        batches = np.resize(np.concatenate([*whole, *left]), length).reshape(-1, self.batch_size)
        return self.indices[rng.permutation(batches)]

    def _drawn(self, rng: np.random.Generator) -> Int64[np.ndarray, " M"]:
        """Each place among the images as often as this epoch shows it."""
        ends = self.repeats.cumsum()
        if (self.repeats != 1).any():
            ends += rng.random()  # one number for all: each image gets its share to less than one
        return np.repeat(np.arange(len(ends)), np.diff(np.floor(ends).astype(np.int64), prepend=0))


class Loader(DataLoader):
    """A DataLoader that passes on a GCNetError of a worker as it was raised.

    PyTorch would wrap it in the worker's traceback, which makes many lines of our one.

    Args:
        read: a sample for each key in the lists that `batches` are.
        collate: a batch of a list of samples.
    """

    def __init__(
        self,
        read: Callable[[Any], Any],
        batches: Iterable[Any],
        *,
        collate: Callable[[list[Any]], Any],
        workers: int,
    ) -> None:
        super().__init__(
            _Samples(read),
            batch_sampler=batches,
            collate_fn=partial(_collate, collate),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_init_worker,
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
                    try:
                        raise item
                    finally:  # its traceback holds this frame: in such a circle workers end by a timeout only
                        del item
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

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self.read = read

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.read(key)
        except GCNetError as error:
            return error


def _collate(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    """A batch, or the first error among its samples."""
    return next((sample for sample in samples if isinstance(sample, GCNetError)), None) or collate(samples)


def _init_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the processes are the parallelism
