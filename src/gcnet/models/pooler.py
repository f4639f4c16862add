"""RoIAlign over a feature pyramid (arXiv 1703.06870, section 3; arXiv 1612.03144, section 4.2).

N images, C channels, R regions of all images together, S side of the pooled grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import roi_align

from gcnet.models.inclusive import SAMPLES, SHIFT
from gcnet.ops.boxes import box_area
from gcnet.ops.roi_align import roi_align_sparse


def pool_regions(
    features: Sequence[Float[Tensor, "N C _h _w"]],
    boxes: Sequence[Float[Tensor, "_R 4"]],
    *,
    strides: Sequence[int],
    size: int,
    finest_scale: float,
    inclusive: bool = False,
) -> Float[Tensor, "R C S S"]:
    """The features of each region, read from the level that fits its area.

    `boxes` holds one tensor an image. Regions of up to twice `finest_scale` pixels a side are read from the
    finest level. With `inclusive` features are read where mmdetection 1.x read them.
    """
    images = torch.cat([box.new_full((len(box), 1), image) for image, box in enumerate(boxes)])
    regions = torch.cat([images, torch.cat(list(boxes))], dim=1)
    levels = region_levels(regions[:, 1:], len(strides), finest_scale)
    # A half-precision map is read at its own precision; box coordinates need float32 until here.
    pooled = features[0].new_zeros(len(regions), features[0].shape[1], size, size)
    for level, (feature, stride) in enumerate(zip(features, strides, strict=False)):
        members = (levels == level).nonzero().flatten()
        if len(members):
            chosen = regions[members]
            if inclusive:
                chosen = chosen + chosen.new_tensor([0, 1, 1, 1, 1]) * SHIFT * stride
            samples = SAMPLES if inclusive else 0
            pooled = pooled.index_copy(0, members, _align(feature, chosen, size, 1 / stride, samples))
    return pooled


def _align(
    feature: Float[Tensor, "N C h w"], regions: Float[Tensor, "R 5"], size: int, scale: float, samples: int
) -> Float[Tensor, "R C S S"]:
    if feature.device.type == "cpu" and not torch.is_grad_enabled():
        return roi_align_sparse(feature, regions, size=size, scale=scale, samples=samples)
    return roi_align(feature, regions.to(feature.dtype), size, scale, samples, aligned=True)


def region_levels(boxes: Float[Tensor, "R 4"], count: int, finest_scale: float) -> Int64[Tensor, " R"]:
    """0 for P2 up to count - 1, one more for each doubling of the side."""
    scale = box_area(boxes).clamp(min=0).sqrt()
    return torch.floor(torch.log2(scale / finest_scale + 1e-6)).clamp(0, count - 1).long()
