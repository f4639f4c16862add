"""Predicts a stream of images: some are read ahead, and others are written, while one is predicted.

Memory does not grow with the number of images: each thread holds an image, and at most `AHEAD` pixels wait
before the model and as many after it. H x W images, RGB uint8.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from gcnet.errors import GCNetError
from gcnet.ops.decode import image_size, read_image
from gcnet.remote import fetch, is_address

Item = TypeVar("Item")
Made = TypeVar("Made")

# That read, and as many that finish: each holds an image or two. A photograph takes 0.1 s to decode and more
# to draw and write, and a GPU finds its objects in less.
THREADS = min(4, os.cpu_count() or 1)
AHEAD = 100_000_000  # pixels that wait at most, three bytes each; a larger image is so alone
WINDOW = 8  # batches that are held while images are sorted by their size


@dataclass(frozen=True)
class Done:
    """The result for an image.

    `entry` and `found` are plain values for the journal, `result` is what the model gave. `failure` is why
    the run cannot go on after it, `unwritten` why a file beside the results is missing.
    """

    index: int
    entry: dict[str, Any]
    found: dict[str, Any] | None = None
    result: Any = None
    failure: GCNetError | None = None
    unwritten: GCNetError | None = None


@runtime_checkable
class Steps(Protocol):
    """The steps for an image: `prepare` and `finish` run in threads, `predict` does not."""

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """The image in the form that the model takes."""
        ...

    def frame(self, prepared: Any) -> Hashable:
        """A key: images with equal keys can share a batch without a change in their results."""
        ...

    def predict(self, prepared: Sequence[Any]) -> Sequence[Any]:
        """The results of the model for images with equal keys."""
        ...

    def finish(self, index: int, image: UInt8[np.ndarray, "H W 3"], result: Any) -> Done:
        """The part of a result that is kept. It never raises: errors are stored in `Done`."""
        ...

    def failed(self, index: int, error: GCNetError) -> Done:
        """The result for an image that cannot be read."""
        ...


@dataclass(frozen=True)
class _Opened:
    """An image whose header has been read, with its bytes if it was fetched."""

    index: int
    pixels: int
    data: bytes | None


@dataclass(frozen=True)
class _Loaded:
    index: int
    image: UInt8[np.ndarray, "H W 3"]
    prepared: Any

    @property
    def pixels(self) -> int:
        return self.image.shape[0] * self.image.shape[1]


def predict_all(
    steps: Steps,
    paths: Sequence[str],
    indices: Iterable[int],
    take: Callable[[Done], None],
    *,
    batch_size: int = 1,
    max_pixels: int,
    content: Callable[[int], bytes] | None = None,
) -> None:
    """Predicts the images of `paths` at `indices`, and passes each result to `take`.

    They come in order, but for images of other sizes where several are predicted at once. Whatever ends the
    run, images that were predicted are finished and taken. With `content`, it gives the bytes of the files.
    """
    pending: deque[tuple[int, Future[Done]]] = deque()

    def take_first() -> None:
        done = pending[0][1].result()  # Ctrl-C comes while this waits: it must still be there then
        pending.popleft()
        take(done)
        if done.failure is not None:
            raise done.failure

    with (
        ThreadPoolExecutor(THREADS) as pool,
        contextlib.closing(_read(steps, paths, indices, max_pixels, content)) as images,
    ):
        try:
            for pixels, work in _predicted(steps, images, batch_size):
                while pending and _is_full(pending, pixels):
                    take_first()
                pending.append((pixels, pool.submit(work)))
                while pending and pending[0][1].done():
                    take_first()
            while pending:
                take_first()
        finally:
            while pending:
                with contextlib.suppress(GCNetError):  # the first one is on its way
                    take_first()


def _is_full(waiting: Iterable[tuple[int, Any]], pixels: int) -> bool:
    """Whether an image of so many pixels has to wait."""
    counts = [count for count, _ in waiting]
    return len(counts) > THREADS or sum(counts) + pixels > AHEAD


def _read(
    steps: Steps,
    paths: Sequence[str],
    indices: Iterable[int],
    max_pixels: int,
    content: Callable[[int], bytes] | None,
) -> Generator[_Loaded | Done, None, None]:
    """The images in order. Those that cannot be read are done with."""

    def open_image(index: int) -> _Opened | Done:
        path = paths[index]
        try:
            data = content(index) if content else fetch(path) if is_address(path) else None
            height, width = image_size(path, data=data, max_pixels=max_pixels)
        except GCNetError as error:
            return steps.failed(index, error)
        return _Opened(index, height * width, data)

    def load(opened: _Opened | Done) -> _Loaded | Done:
        if isinstance(opened, Done):
            return opened
        try:
            image = read_image(paths[opened.index], data=opened.data, max_pixels=max_pixels)
        except GCNetError as error:
            return steps.failed(opened.index, error)
        return _Loaded(opened.index, image, steps.prepare(image))

    with contextlib.closing(_ahead(open_image, indices, lambda index: 0)) as opened:
        yield from _ahead(load, opened, lambda one: one.pixels if isinstance(one, _Opened) else 0)


def _ahead(
    work: Callable[[Item], Made], items: Iterable[Item], pixels: Callable[[Item], int]
) -> Generator[Made, None, None]:
    """The results of `work(item)` in order; threads compute a few ahead."""
    upcoming: deque[tuple[int, Future[Made]]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for item in items:
                count = pixels(item)
                while upcoming and _is_full(upcoming, count):
                    yield upcoming.popleft()[1].result()
                upcoming.append((count, pool.submit(work, item)))
            while upcoming:
                yield upcoming.popleft()[1].result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _predicted(
    steps: Steps, images: Iterable[_Loaded | Done], batch_size: int
) -> Iterator[tuple[int, Callable[[], Done]]]:
    """The remaining work for each predicted image, and the pixels that wait for it.

    Images are predicted as soon as there is a batch of one frame, or when too many are held.
    """
    frames: dict[Hashable, list[_Loaded]] = {}

    def predict(frame: Hashable) -> Iterator[tuple[int, Callable[[], Done]]]:
        batch = frames.pop(frame)
        results = steps.predict([one.prepared for one in batch])
        for one, result in zip(batch, results, strict=True):
            yield one.pixels, partial(steps.finish, one.index, one.image, result)

    for one in images:
        if isinstance(one, Done):
            yield 0, lambda done=one: done
            continue
        frame = steps.frame(one.prepared) if batch_size > 1 else None
        frames.setdefault(frame, []).append(one)
        held = [other for group in frames.values() for other in group]
        if len(frames[frame]) == batch_size:
            yield from predict(frame)
        elif len(held) >= WINDOW * batch_size or sum(other.pixels for other in held) > AHEAD:
            yield from predict(next(iter(frames)))
    for frame in list(frames):
        yield from predict(frame)
