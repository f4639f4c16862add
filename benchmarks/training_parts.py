"""Where the time of a training step goes: CPU time of each part, forward and backward.

    python benchmarks/training_parts.py mask_rcnn_r50 --size 800x1216 --repeats 3

The graph is cut between the parts, so that the gradient of each can be timed alone. One thread; noise
pictures and octagons. For whole steps beside torchvision: `gcnet benchmark mask_rcnn_r50 --against
torchvision --train --batch 2`.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from gcnet.lab.subjects import busy_detector, random_batch, random_targets
from gcnet.models.detector import Detector
from gcnet.models.heads import BOX_GRID
from gcnet.models.regions import mask_losses
from gcnet.recipe import Recipe
from gcnet.types import Batch, Targets

Seconds = dict[str, list[float]]


def main() -> None:
    """Measures, and prints a table."""
    options = parse()
    torch.set_num_threads(1)
    detector = busy_detector(options.model).train()
    height, width = map(int, options.size.split("x"))
    batch = random_batch(options.batch, (height, width))
    targets = random_targets(options.batch, (height, width), 80)
    optimizer = make_optimizer(detector, Recipe(batch_size=options.batch, lr=1e-5))
    seconds: Seconds = defaultdict(list)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16")
    for repeat in range(-1, options.repeats):
        if repeat == 0:  # the first is to warm up
            seconds.clear()
        optimizer.zero_grad(set_to_none=True)
        step(detector, batch, targets, seconds, cast)
        with clock(seconds, "optimiser"):
            optimizer.step()
    for name, values in seconds.items():
        print(f"{name:20} {statistics.median(values):8.3f} s")
    print(f"{'sum':20} {sum(map(statistics.median, seconds.values())):8.3f} s")


def step(
    detector: Detector,
    batch: Batch,
    targets: list[Targets],
    seconds: Seconds,
    cast: contextlib.AbstractContextManager,
) -> None:
    """One forward and backward pass, in parts."""
    heads = detector.roi_heads
    (box_head,), (mask_head,) = heads.box_stages, heads.mask_stages
    with cast:
        with clock(seconds, "normalise"):
            pixels = detector.normalise(batch)
        with clock(seconds, "backbone"):
            maps = detector.backbone(pixels)
        cut_maps = cut(maps)
        with clock(seconds, "neck"):
            levels = detector.neck(cut_maps)
        cut_levels = cut(levels)
        with clock(seconds, "RPN"):
            proposals, rpn_losses = detector.rpn.losses(cut_levels, batch, targets)
        with clock(seconds, "sampling"):
            regions = heads.sample_regions(0, proposals, targets)
        with clock(seconds, "box pooling"):
            pooled = heads.pool(cut_levels, regions.rois, size=BOX_GRID)
        (cut_pooled,) = cut([pooled])
        with clock(seconds, "box head"):
            said = box_head(cut_pooled)
            box_losses = box_head.losses(*said, regions.labels, regions.target_deltas)
        with clock(seconds, "masks"):
            most = int(heads.spec.batch_size * heads.spec.positive_fraction)
            pool: Callable[..., Tensor] = partial(heads.pool, cut_levels)
            masks = mask_losses(mask_head, pool, regions, targets, most)
    for name, losses in (("masks", masks), ("box head", box_losses)):
        with clock(seconds, f"{name} backward"):
            torch.stack(list(losses.values())).sum().backward()
    with clock(seconds, "box pooling backward"):
        pooled.backward(cut_pooled.grad)
    with clock(seconds, "RPN backward"):
        torch.stack(list(rpn_losses.values())).sum().backward()
    with clock(seconds, "neck backward"):
        torch.autograd.backward(levels, [level.grad for level in cut_levels])
    with clock(seconds, "backbone backward"):
        used = [(m, c.grad) for m, c in zip(maps, cut_maps, strict=True) if m.requires_grad]
        torch.autograd.backward([m for m, _ in used], [gradient for _, gradient in used])


def cut(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Leaves with the same values, at which gradients collect."""
    return [tensor.detach().requires_grad_() for tensor in tensors]


@contextlib.contextmanager
def clock(seconds: Seconds, name: str) -> Iterator[None]:
    """Adds the CPU time of what is inside it."""
    began = time.process_time()
    yield
    seconds[name].append(time.process_time() - began)


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="mask_rcnn_r50", help="a row without cascade")
    parser.add_argument("--size", default="800x1216", help="height x width, multiples of 32 (800x1216)")
    parser.add_argument("--batch", type=int, default=2, help="images of a step (2)")
    parser.add_argument("--repeats", type=int, default=3, help="of the step (3)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="(fp32)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
