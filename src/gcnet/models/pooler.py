"""RoIAlign over a feature pyramid (arXiv 1703.06870, section 3; arXiv 1612.03144, section 4.2).

N images, C channels, R regions of all images together, S side of the pooled grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from gcnet.models.coordinates import SAMPLES, shift_regions
from gcnet.models.spec import Coordinates
from gcnet.ops.boxes import box_area
from gcnet.ops.roi_align import roi_align_sparse

# Features of a level, its stride, and the regions as RoIAlign is to read them there.
Map = tuple[Float[Tensor, "N C _h _w"], int, Float[Tensor, "R 5"]]


def with_images(boxes: Sequence[Float[Tensor, "_R 4"]]) -> Float[Tensor, "R 5"]:
    """The boxes of all images in one tensor, the number of its image before each."""
    images = torch.cat([box.new_full((box.shape[0], 1), image) for image, box in enumerate(boxes)])
    return torch.cat([images, torch.cat(list(boxes))], dim=1)


class Mosaic(NamedTuple):
    """Maps of all levels below each other in one, each with its edge repeated around it.

    RoIAlign reads every region of an image from it in one go. It is in float32 at least: the operator wants
    regions in the type of the map, and in bfloat16 they would be off by 8 pixels.
    """

    image: Float[Tensor, "N C H W"]
    tops: list[int]  # of the levels, where their first row is
    dtype: torch.dtype  # of the maps


def lay_out(features: Sequence[Float[Tensor, "N C _h _w"]]) -> Mosaic:
    """A mosaic of maps. Regions must lie within the image that they are of."""
    heights = [feature.shape[2] + 2 for feature in features]
    tops = [end - height + 1 for end, height in zip(accumulate(heights), heights, strict=True)]
    return Mosaic(_LayOut.apply(tops, *features), tops, features[0].dtype)


class _LayOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tops: list[int], *features: Tensor) -> Tensor:
        ctx.tops, ctx.like = tops, [(feature.shape[2:], feature.dtype) for feature in features]
        first = features[0]
        size = (tops[-1] + features[-1].shape[2] + 1, max(feature.shape[3] for feature in features) + 2)
        full = torch.promote_types(first.dtype, torch.float32)
        image = first.new_empty((*first.shape[:2], *size), dtype=full)
        for top, feature in zip(tops, features, strict=True):
            height, width = feature.shape[2:]
            part = image[:, :, top - 1 : top + height + 1, : width + 2]
            part[:, :, 1:-1, 1:-1] = feature
            # Into the first and the last column what stands beside them, then the same of rows.
            part[:, :, 1:-1, :: width + 1] = part[:, :, 1:-1, 1 : width + 1 : max(width - 1, 1)]
            part[:, :, :: height + 1] = part[:, :, 1 : height + 1 : max(height - 1, 1)]
        return image

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grads: list[Tensor | None] = [None]
        for top, ((height, width), dtype) in zip(ctx.tops, ctx.like, strict=True):
            part = grad_outputs[0][:, :, top - 1 : top + height + 1, : width + 2]
            own = part[:, :, 1:-1].clone()
            for edge, border in ((0, 0), (-1, -1)):
                own[:, :, edge] += part[:, :, border]
            for edge, border in ((1, 0), (-2, -1)):
                own[..., edge] += own[..., border]
            grads.append(own[..., 1:-1].to(dtype).contiguous(memory_format=torch.channels_last))
        return tuple(grads)


def pool_regions(
    features: Sequence[Float[Tensor, "N C _h _w"]] | Mosaic,
    regions: Float[Tensor, "R 5"],
    *,
    strides: Sequence[int],
    size: int,
    finest_scale: float,
    coordinates: Coordinates = "continuous",
    samples: int = 0,
    static: bool = False,
) -> Float[Tensor, "R C S S"]:
    """The features of each region, read from the level that fits its area.

    `regions` are image number and box. Those of up to twice `finest_scale` pixels a side are read from the
    finest level. `coordinates`: see `gcnet.models.coordinates`. `samples`: see `RoISpec.sampling`. With
    `static` no shape depends on values. A mosaic is for continuous ones.
    """
    levels = region_levels(regions[:, 1:], len(strides), finest_scale)
    if isinstance(features, Mosaic):
        return _pool_from_mosaic(features, regions, levels, strides, size, samples)
    pool = _pool_at_all_levels if static else _pool_level_by_level
    maps = _maps(features, regions, strides, coordinates)
    return pool(maps, levels, size, samples or _usual_samples(coordinates))


def pool_everywhere(
    features: Sequence[Float[Tensor, "N C _h _w"]],
    regions: Float[Tensor, "R 5"],
    *,
    strides: Sequence[int],
    size: int,
    coordinates: Coordinates = "continuous",
    samples: int = 0,
    static: bool = False,
) -> Float[Tensor, "L R C S S"]:
    """The features of each region at each of the L levels; see `pool_regions`."""
    samples = samples or _usual_samples(coordinates)
    read = _read_static if static else roi_align_sparse
    levels = [
        read(feature, moved, size=size, scale=1 / stride, samples=samples)
        for feature, stride, moved in _maps(features, regions, strides, coordinates)
    ]
    return torch.stack(levels).to(features[0].dtype)


def _maps(
    features: Sequence[Tensor],
    regions: Float[Tensor, "R 5"],
    strides: Sequence[int],
    coordinates: Coordinates,
) -> list[Map]:
    """The first maps, as many as there are strides."""
    moved = [
        torch.cat([regions[:, :1], shift_regions(regions[:, 1:], stride, coordinates)], dim=1)
        for stride in strides
    ]
    return list(zip(features, strides, moved, strict=False))


def _usual_samples(coordinates: Coordinates) -> int:
    return 0 if coordinates == "continuous" else SAMPLES


def _read_static(
    feature: Float[Tensor, "N C _h _w"],
    regions: Float[Tensor, "R 5"],
    *,
    size: int,
    scale: float,
    samples: int,
) -> Float[Tensor, "R C S S"]:
    """`roi_align_sparse` without a shape that depends on values.

    In float32 at least: the operator wants regions in the type of the map, and in bfloat16 they would be off
    by 8 pixels.
    """
    from torchvision.ops import roi_align  # slow to import, and inference on a CPU does without

    exact = feature.to(torch.promote_types(feature.dtype, torch.float32))
    return roi_align(exact, regions.to(exact.dtype), size, scale, samples, aligned=True)


def _pool_level_by_level(
    maps: Sequence[Map], levels: Int64[Tensor, " R"], size: int, samples: int
) -> Float[Tensor, "R C S S"]:
    """Each level's own regions, put where they belong."""
    first, _, all_regions = maps[0]
    counts = torch.bincount(levels, minlength=len(maps)).tolist()
    pooled = first.new_empty(len(all_regions), size, size, first.shape[1])
    for (feature, stride, regions), own in zip(maps, levels.argsort().split(counts), strict=True):
        part = roi_align_sparse(feature, regions[own], size=size, scale=1 / stride, samples=samples)
        pooled[own] = part.permute(0, 2, 3, 1)  # index_copy_ would keep the part for its backward pass
    return pooled.permute(0, 3, 1, 2)


def _pool_from_mosaic(
    mosaic: Mosaic,
    regions: Float[Tensor, "R 5"],
    levels: Int64[Tensor, " R"],
    strides: Sequence[int],
    size: int,
    samples: int,
) -> Float[Tensor, "R C S S"]:
    from torchvision.ops import roi_align

    scale, top = (torch.zeros_like(regions[:, 0]) for _ in range(2))
    for level, (stride, row) in enumerate(zip(strides, mosaic.tops, strict=True)):
        own = levels == level
        scale, top = scale.masked_fill(own, 1 / stride), top.masked_fill(own, row)
    image, x1, y1, x2, y2 = regions.unbind(1)
    left, right, upper, lower = (side * scale for side in (x1, x2, y1, y2))
    cells = torch.stack([image, left + 1, upper + top, right + 1, lower + top], dim=1)
    pooled = roi_align(mosaic.image, cells.to(mosaic.image.dtype), size, 1.0, samples, aligned=True)
    return pooled.to(mosaic.dtype)


def _pool_at_all_levels(
    maps: Sequence[Map], levels: Int64[Tensor, " R"], size: int, samples: int
) -> Float[Tensor, "R C S S"]:
    """Pools all regions at all levels: no code depends on how many belong to each.

    At other levels than its own it has no area: then it has no samples and takes no time, and what comes out
    (zeros here, the value at one point with a fixed number of samples, NaN in OpenVINO) is not looked at. A
    region without area pools to zero.
    """
    first, _, regions = maps[0]
    pooled, dtype = regions.new_zeros(()), first.dtype
    if not samples:
        levels = levels.where(box_area(regions[:, 1:]) > 0, -1)
    for level, (feature, stride, regions) in enumerate(maps):
        is_own = (levels == level)[:, None]
        own = torch.cat([regions[:, :1], torch.where(is_own, regions[:, 1:], 0)], dim=1)
        part = _read_static(feature, own, size=size, scale=1 / stride, samples=samples)
        pooled = torch.where(is_own[:, :, None, None], part, pooled)
    return pooled.to(dtype)


def region_levels(boxes: Float[Tensor, "R 4"], count: int, finest_scale: float) -> Int64[Tensor, " R"]:
    """0 for P2 up to count - 1, one more for each doubling of the side."""
    scale = box_area(boxes).clamp(min=0).sqrt()
    return torch.floor(torch.log2(scale / finest_scale + 1e-6)).clamp(0, count - 1).long()
