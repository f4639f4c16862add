"""The structure of models, as frozen data. This does not import torch, so that listing models is quick.

A `Detector` is made from a `ModelSpec`, a `Classifier` from a `ClassifierSpec`. A spec is stored in every
saved model (`dataclasses.asdict` to JSON, and back through its `from_dict`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from gcnet.context_spec import ContextSpec
from gcnet.models.read_spec import read_spec

# How the backbone normalises: "frozen_stats" uses the stored statistics and trains only the affine part,
# "batch" is plain batch norm, "sync" is batch norm synchronised over processes. Group norms need no
# statistics: "group32" has 32 groups, "group" at most 32, of 8 channels or more.
Norm = Literal["frozen_stats", "batch", "sync", "group", "group32"]

# Where things are, to the pixel: as in mmdetection from 2.0 on, as in 1.x, or as in torchvision; see
# `gcnet.models.coordinates`. And by whose rule images are resized: `gcnet.ops.images.resize_image`.
Coordinates = Literal["continuous", "inclusive", "torchvision"]
Resize = Literal["opencv", "pillow", "torchvision"]

Spec = TypeVar("Spec")  # typing.Self is more than beartype can take here
Precision = Literal["fp32", "bf16", "fp16"]  # that a network computes in at inference


@dataclass(frozen=True)
class ResNetSpec:
    """A ResNet of bottlenecks or "basic" blocks, or ResNeXt with `groups`.

    `style` says which convolution of a bottleneck has the stride: the 3x3 one ("pytorch") or the first
    ("caffe"). With a `deep_stem` three 3x3 convolutions stand in place of the first 7x7 one, with `avg_down`
    shortcuts average before their convolution (ResNet-C and -D of arXiv 1812.01187).
    `deformable_stages` says which of c2..c5 have deformable 3x3 convolutions; `modulated` ones also weigh
    their points (arXiv 1811.11168), and each of `offset_groups` has offsets of its own.
    `more_context` are further context blocks; those in one place work in the order given.
    `frozen_stages` counts the stem and then c2, c3, ... `zero_init_residual` starts every block as its
    shortcut, as upstream does; a small network that is trained from random weights learns faster without.
    """

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    stem_channels: int = 64
    base_channels: int = 64
    groups: int = 1
    group_width: int = 4
    block: Literal["bottleneck", "basic"] = "bottleneck"
    style: Literal["pytorch", "caffe"] = "pytorch"
    deep_stem: bool = False
    avg_down: bool = False
    deformable_stages: tuple[bool, bool, bool, bool] = (False, False, False, False)
    modulated: bool = False
    offset_groups: int = 1
    norm: Norm = "frozen_stats"
    frozen_stages: int = 2
    zero_init_residual: bool = True
    context: ContextSpec | None = None
    more_context: tuple[ContextSpec, ...] = ()

    @property
    def contexts(self) -> tuple[ContextSpec, ...]:
        """All context blocks."""
        return (*((self.context,) if self.context else ()), *self.more_context)


@dataclass(frozen=True)
class LibrarySpec:
    """A network of another library as the backbone: its maps at strides 4, 8, 16 and 32.

    `name` is what timm (an extra of this package) or torchvision calls it. `context` goes into its residual
    blocks (`gcnet.context.insert`); those with maps at one stride are a stage. All of it is trained, with the
    norms that it has.
    """

    library: Literal["timm", "torchvision"]
    name: str
    context: ContextSpec | None = None

    @property
    def norm(self) -> None:
        """Always None: the network keeps its own norms."""
        return None

    @property
    def frozen_stages(self) -> int:
        return 0


@dataclass(frozen=True)
class RPNSpec:
    """Anchors, proposals and the sampling of anchors in training.

    Anchors have sides of `anchor_scale` strides, or of each of several, in each of `anchor_ratios` (height /
    width), and stand `anchor_strides` pixels apart on the five levels. `convs` are the 3x3 convolutions
    before the two outputs. `stds` divide the deltas.
    `anchors_inside` trains on anchors inside the image only; a `smooth_l1_beta` of 0 means plain L1.
    """

    anchor_scale: float | tuple[float, ...] = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_strides: tuple[int, int, int, int, int] = (4, 8, 16, 32, 64)
    convs: int = 1
    stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    pre_nms_test: int = 1000
    pre_nms_train: int = 2000
    proposals_test: int = 1000
    proposals_train: int = 1000
    nms_threshold: float = 0.7
    batch_size: int = 256
    anchors_inside: bool = False
    smooth_l1_beta: float = 0.0

    @property
    def anchor_scales(self) -> tuple[float, ...]:
        return self.anchor_scale if isinstance(self.anchor_scale, tuple) else (self.anchor_scale,)


@dataclass(frozen=True)
class RoISpec:
    """Box and mask heads, and the sampling of regions in training.

    With `class_agnostic` there are four deltas for all classes instead of four for each; by default, in a
    cascade alone; `stds` divide them, unless a cascade has its own. Without `masks` there are no mask heads,
    and detections are boxes alone; with `class_agnostic_masks` there is one mask for all classes.
    Regions of up to twice `finest_scale` pixels a side are read from P2, larger ones from coarser levels.
    `box_convs` and `box_fcs` are the layers of the box head before its two outputs: 0 and 2 ("2fc"), or 4 and
    1 ("4conv1fc"). `norm` follows the 3x3 convolutions of both heads. A `smooth_l1_beta` of 0 means plain L1
    for the boxes; a cascade always takes 1. `cls_init_std` is the spread of the initial class weights: with
    the customary 0.01 the classes of a network that is trained from nothing start all but equal, and what
    tells them apart is found late.
    """

    box_convs: int = 0
    box_fcs: int = 2
    box_channels: int = 1024
    class_agnostic: bool | None = None
    stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    masks: bool = True
    class_agnostic_masks: bool = False
    mask_channels: int = 256
    mask_convs: int = 4
    norm: Norm | None = None
    smooth_l1_beta: float = 0.0
    batch_size: int = 512
    positive_fraction: float = 0.25
    nms_threshold: float = 0.5
    detections: int = 100
    finest_scale: float = 56.0
    cls_init_std: float = 0.01


@dataclass(frozen=True)
class CascadeSpec:
    """Three stages of box and mask heads (arXiv 1712.00726), each with stricter matches and finer deltas."""

    ious: tuple[float, ...] = (0.5, 0.6, 0.7)
    loss_weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    stds: tuple[tuple[float, float, float, float], ...] = (
        (0.1, 0.1, 0.2, 0.2),
        (0.05, 0.05, 0.1, 0.1),
        (0.033, 0.033, 0.067, 0.067),
    )


@dataclass(frozen=True)
class BalanceSpec:
    """Balanced feature pyramid (arXiv 1904.02701, section 3.2).

    All levels are averaged at the size of `level` (0 is P2) and refined by a non-local block, a convolution
    or nothing.
    """

    level: int = 2
    refine: Literal["non_local", "conv"] | None = "non_local"


@dataclass(frozen=True)
class NamedSpec:
    """The name of a model, and its classes in the order of the labels."""

    name: str
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @classmethod
    def from_dict(cls: type[Spec], values: dict[str, Any]) -> Spec:
        """The inverse of `dataclasses.asdict`, also after JSON has made lists of the tuples.

        Raises ValueError for a value of another type, or outside of its bounds.
        """
        return read_spec(cls, values)


@dataclass(frozen=True)
class ModelSpec(NamedSpec):
    """A Mask, Faster or Cascade R-CNN: its parts, its classes, and how images are prepared for it.

    With `cascade` it is a Cascade Mask R-CNN, whose heads are `roi`'s once for each stage.
    `fpn_norm` follows every convolution of the FPN, which with `fpn_bottom_up` goes up again to coarse levels
    (PAFPN, arXiv 1803.01534), and with `balance` ends in a balanced pyramid. `coordinates` are
    of the library that it was trained by.
    `image_size` is the (long, short) side that images are resized to fit, by the rule of `resize`;
    `image_mean` and `image_std` are in 0..255 RGB.
    """

    backbone: ResNetSpec | LibrarySpec = ResNetSpec()
    fpn_channels: int = 256
    fpn_norm: Norm | None = None
    fpn_bottom_up: bool = False
    balance: BalanceSpec | None = None
    rpn: RPNSpec = RPNSpec()
    roi: RoISpec = RoISpec()
    cascade: CascadeSpec | None = None
    coordinates: Coordinates = "continuous"
    resize: Resize = "opencv"
    image_size: tuple[int, int] = (1333, 800)
    image_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    image_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @property
    def norms(self) -> tuple[Norm | None, ...]:
        """The norms of backbone, neck and heads."""
        return self.backbone.norm, self.fpn_norm, self.roi.norm


@dataclass(frozen=True)
class ClassifierSpec(NamedSpec):
    """An image classifier: a backbone, global average pooling and one linear layer (arXiv 1512.03385).

    Images are resized until their short side is the first of `image_size`, then the middle square with a
    side of the second is taken. `image_mean` and `image_std` are in 0..255 RGB. The backbone is the
    detectors' own, so that its weights go from one to the other; nothing of it is frozen here.
    """

    backbone: ResNetSpec = ResNetSpec(norm="batch", frozen_stages=0)
    image_size: tuple[int, int] = (256, 224)
    image_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    image_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @property
    def norms(self) -> tuple[Norm | None, ...]:
        return (self.backbone.norm,)
