"""Two processes train as one would; run by test_devices.py, which wants it apart from other tests.

The kernels of PyTorch's synchronised batch norm exist for GPUs alone: here are theirs in plain operations.
"""

from __future__ import annotations

import copy
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.modules._functions import SyncBatchNorm as SyncFunction
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[1]))  # to `lively`

from gcnet.context import GlobalContext
from gcnet.models import light
from gcnet.models.detector import Detector
from gcnet.models.modes import recompute_activations
from gcnet.models.spec import CascadeSpec, ContextSpec
from gcnet.ops.mask_targets import draw_outlines
from gcnet.types import Batch, Targets
from lively import lively_detector, lively_resnet

WORLD = 2
SIZES = [(64, 96), (96, 160)]  # of each process's picture
AXES = (0, 2, 3)


def spread(values: Tensor) -> Tensor:
    """A number for each channel, over a map."""
    return values[:, None, None]


def gather(u: Tensor, means: Tensor, invstds: Tensor, running: Any, running_var: Any, momentum, eps, counts):
    count, squares = counts.sum(), (counts[:, None] * (invstds**-2 - eps + means**2)).sum(0)
    mean = (counts[:, None] * means).sum(0) / count
    variance = squares / count - mean**2
    running.lerp_(mean, momentum)
    running_var.lerp_(variance * count / (count - 1), momentum)
    return mean, (variance + eps).rsqrt()


def reduce(
    grad: Tensor, u: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor, *_: bool
) -> tuple[Tensor, ...]:
    total, by_u = grad.sum(AXES), (grad * (u - spread(mean))).sum(AXES)
    return total, by_u, by_u * invstd, total


def of_input(grad, u, mean, invstd, weight, total, by_u, counts) -> Tensor:
    rest = (u - spread(mean)) * spread(invstd**2 * by_u / counts.sum())
    return (grad - spread(total / counts.sum()) - rest) * spread(invstd * weight)


def kernels_for_the_cpu() -> torch.library.Library:
    """They are there as long as what is returned."""
    library = torch.library.Library("aten", "IMPL")
    stats: dict[str, Callable[..., Any]] = {
        "batch_norm_stats": lambda u, eps: (u.mean(AXES), (u.var(AXES, correction=0) + eps).rsqrt()),
        "batch_norm_gather_stats_with_counts": gather,
        "batch_norm_elemt": lambda u, w, b, mean, invstd, eps: (
            (u - spread(mean)) * spread(invstd * w) + spread(b)
        ),
        "batch_norm_backward_reduce": reduce,
        "batch_norm_backward_elemt": of_input,
    }
    for name, kernel in stats.items():
        library.impl(name, kernel, "CPU")
    return library


def synchronised(norm: nn.SyncBatchNorm, u: Tensor) -> Tensor:
    """`SyncBatchNorm.forward` without its question after the device."""
    if not norm.training:
        return nn.functional.batch_norm(u, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    norm.num_batches_tracked.add_(1)
    group = distributed.group.WORLD
    statistics = (norm.running_mean, norm.running_var, norm.eps, norm.momentum)
    return SyncFunction.apply(u, norm.weight, norm.bias, *statistics, group, WORLD)


class AllReduce(torch.autograd.Function):
    """The sum over processes, of the gradient too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return AllReduce.forward(ctx, grad)


def by_the_book(norm: nn.SyncBatchNorm, u: Tensor) -> Tensor:
    """Batch norm over the maps of all processes, with its gradient left to autograd."""
    count = u.new_tensor(u.numel() / u.shape[1])
    sums = AllReduce.apply(torch.cat([u.sum(AXES), u.square().sum(AXES), count[None]]))
    mean, squares = (sums[:-1] / sums[-1]).chunk(2)
    variance = squares - mean**2
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * sums[-1] / (sums[-1] - 1), norm.momentum)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return (u - spread(mean)) * spread(scale) + spread(norm.bias)


def check_synchronised_norms(rank: int) -> None:
    """Light blocks with norms of all processes, pictures of different sizes: gradients and statistics."""
    resnet = lively_resnet(lambda c: GlobalContext(c, ratio=1 / 4), norm="sync", frozen_stages=0).double()
    resnet = nn.SyncBatchNorm.convert_sync_batchnorm(resnet).train()
    picture = torch.randn(1, 3, *SIZES[rank], generator=torch.Generator().manual_seed(rank)).double()
    found = []
    for forward, can_run, less in (
        (by_the_book, lambda block, x: False, nullcontext),
        (synchronised, light.can_run, nullcontext),
        (synchronised, light.can_run, recompute_activations),
    ):
        own = copy.deepcopy(resnet)
        with (
            mock.patch.object(nn.SyncBatchNorm, "forward", forward),
            mock.patch.object(light, "can_run", can_run),
            less(own),
        ):
            torch.stack([m.sin().mean() for m in own(picture)]).sum().backward()
        counted = {name: b for name, b in own.named_buffers() if not name.endswith("num_batches_tracked")}
        found.append({name: p.grad for name, p in own.named_parameters()} | counted)
    for ours in found[1:]:  # of each process: their mean is DistributedDataParallel's affair
        for name, value in found[0].items():
            torch.testing.assert_close(
                ours[name], value, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )


class Losses(nn.Module):
    """What DistributedDataParallel calls."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, targets: list[Targets], seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.stack(list(self.model.losses(batch, targets).values())).sum()


def picture_of(rank: int, objects: int) -> tuple[Batch, list[Targets]]:
    generator = torch.Generator().manual_seed(rank)
    size = SIZES[rank]
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[10.0, 12, 50, 60], [30, 20, 90, 60]])[:objects]
    masks = [[np.array([[a, b], [c, b], [c, d]])] for a, b, c, d in boxes.tolist()]
    drawn = draw_outlines(masks, boxes.numpy())
    assert drawn is not None
    labels = torch.tensor([1, 0])[:objects]
    return Batch(images, [size], [size], [rank]), [
        Targets(boxes, labels, masks, *map(torch.from_numpy, drawn))
    ]


def check_steps(rank: int, detector: Detector, objects: tuple[int, int]) -> None:
    """Two steps: gradients are the mean of what each picture alone gives, and all parameters have some."""
    alone, together = detector.train(), DistributedDataParallel(Losses(copy.deepcopy(detector).train()))
    for step in range(2):
        for parameter in (*alone.parameters(), *together.parameters()):
            parameter.grad = None
        for other in range(WORLD):
            (Losses(alone)(*picture_of(other, objects[other]), seed=step * WORLD + other) / WORLD).backward()
        together(*picture_of(rank, objects[rank]), seed=step * WORLD + rank).backward()
        for (name, own), theirs in zip(alone.named_parameters(), together.parameters(), strict=True):
            assert (own.grad is None) == (not own.requires_grad), name
            if own.grad is not None:
                scale = float(own.grad.abs().max()) + 1e-6
                torch.testing.assert_close(theirs.grad, own.grad, rtol=0, atol=1e-4 * scale, msg=name)
                for parameter in (own, theirs):
                    parameter.data.sub_(own.grad, alpha=1e-3)


def work(rank: int, meeting: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    torch.manual_seed(0)
    library = kernels_for_the_cpu()
    check_synchronised_norms(rank)
    plain = lively_detector(ContextSpec(ratio=1 / 4))
    check_steps(rank, copy.deepcopy(plain), (2, 0))
    check_steps(rank, plain, (0, 0))
    check_steps(rank, lively_detector(None, cascade=CascadeSpec()), (2, 0))
    del library
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=work, args=(rank, f"{folder}/meeting")) for rank in range(WORLD)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    if any(process.exitcode for process in processes):
        sys.exit(1)
    print("2 processes agree")
