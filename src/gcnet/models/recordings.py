"""Predictions as CUDA graphs: what a GPU computes for a batch is recorded once, and then launched as a whole.

With one image a GPU computes faster than Python can launch its eight hundred kernels one by one.
N images of H x W pixels.
"""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.models.postprocess import Threshold
from gcnet.ops.boxes import Extents, as_limits
from gcnet.ops.nms import without_waiting
from gcnet.types import Batch, Detections

AFTER = 2  # batches of a shape are computed as usual before one is recorded: many shapes come once or twice
MOST = 16  # recordings that are kept, the last used
DIFFERENT = 0.05  # share of scores that may differ from the usual ones: those that are near a limit

# From images, their sizes and a score threshold.
Find = Callable[[Tensor, Extents, Threshold], list[Detections]]


class Recordings:
    """The recordings of one detector on a GPU, for each shape of batch. Threads can share them.

    They read the detector's weights where they lie, so that moving it clears them. Their memory is kept, as
    much as the largest batch needs. A copy of a detector has none.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self.clear()

    def clear(self) -> None:
        """Forgets all."""
        self._seen: Counter[Any] = Counter()
        self._recorded: OrderedDict[Any, Recording | None] = OrderedDict()
        self._pool: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Recordings, ()

    def find(self, model: nn.Module, find: Find, batch: Batch, threshold: float) -> list[Detections] | None:
        """What `find` finds in a batch, without empty places; None if it has to be computed as usual.

        That is for a shape that is new, a model in training or with hooks, and images that need more than a
        recording does.
        """
        # Of these a recording knows nothing.
        if any(one.training or one._forward_hooks or one._forward_pre_hooks for one in model.modules()):
            return None
        images = batch.images
        key = images.shape, images.dtype, images.device
        with self._lock, torch.cuda.device(images.device):
            if key not in self._recorded:
                self._seen[key] += 1
                if self._seen[key] <= AFTER:
                    return None
                self._recorded[key] = self._record(find, batch, threshold)
                if len(self._recorded) > MOST:
                    self._recorded.popitem(last=False)
            self._recorded.move_to_end(key)
            recording = self._recorded[key]
            return None if recording is None else recording(batch, threshold)

    def _record(self, find: Find, batch: Batch, threshold: float) -> Recording | None:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            return Recording(find, batch, threshold, self._pool)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            warnings.warn(f"predictions are not recorded as a CUDA graph: {reason}", stacklevel=2)
            return None


class Recording:
    """One recording: calling it fills its inputs, launches it, and copies what comes out.

    Raises:
        RuntimeError: an operation cannot be recorded, or gives something else when it is.
    """

    def __init__(self, find: Find, batch: Batch, threshold: float, pool: Any) -> None:
        self._done = torch.cuda.Event()
        with torch.inference_mode(False), torch.no_grad():
            self._images, self._limits = torch.zeros_like(batch.images), torch.ones_like(_limits(batch))
            self._threshold = self._limits.new_ones(())
            inputs = self._images, self._limits, self._threshold
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                usual = find(batch.images, batch.extents, threshold)  # libraries prepare themselves, too
            side.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # Other threads may use the GPU meanwhile.
            with (
                torch.cuda.graph(self._graph, pool=pool, stream=side, capture_error_mode="thread_local"),
                without_waiting() as unsettled,
            ):
                self._found = find(*inputs)
                counts = [(one.scores > 0).sum() for one in self._found]
                self._counts = torch.stack([*counts, torch.stack(unsettled).any().to(counts[0])])
        self(batch, threshold)
        scores, usual_scores = (torch.stack([one.scores for one in found]) for found in (self._found, usual))
        if ((scores - usual_scores).abs() > 0.01).float().mean() > DIFFERENT:
            raise RuntimeError("an operation was not recorded")

    def __call__(self, batch: Batch, threshold: float) -> list[Detections] | None:
        """What is found in a batch of the same shape; None if a suppression was not done after its rounds."""
        self._done.wait()
        self._images.copy_(batch.images)
        self._limits.copy_(_limits(batch))
        self._threshold.fill_(threshold)
        self._graph.replay()
        *counts, unsettled = self._counts.tolist()  # the only wait for the GPU
        if unsettled:
            return None
        found = [one[:count].clone() for one, count in zip(self._found, counts, strict=True)]
        self._done.record()
        return found


def _limits(batch: Batch) -> Float[Tensor, "N 4"]:
    return as_limits(batch.extents, batch.images.device)
