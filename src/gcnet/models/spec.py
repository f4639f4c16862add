"""The structure of models, as frozen data. This does not import torch, so that listing models is quick.

A `Detector` is made from a `ModelSpec`, a `Classifier` from a `ClassifierSpec`. A spec is stored in every
saved model (`dataclasses.asdict` to JSON, and back through its `from_dict`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from gcnet.context_spec import ContextSpec
from gcnet.models.read_spec import read_spec

# Norms: "frozen_stats" is batch norm with stored statistics, of which only the affine part is trained,
# "batch" is plain batch norm, "sync" is batch norm synchronised over processes. Group norms need no
# statistics: "group32" has 32 groups, "group" at most 32, of 8 channels or more.
Norm = Literal["frozen_stats", "batch", "sync", "group", "group32"]

# Pixel conventions of mmdetection from 2.0 on, of 1.x, and of torchvision: see `gcnet.models.coordinates`.
# Rules by which images are resized: see `gcnet.ops.images.resize_image`.
Coordinates = Literal["continuous", "inclusive", "torchvision"]
Resize = Literal["opencv", "pillow", "torchvision"]

Spec = TypeVar("Spec")  # typing.Self is more than beartype can take here
Precision = Literal["fp32", "bf16", "fp16"]  # that a network computes in at inference


@dataclass(frozen=True)
class ResNetSpec:
    """A ResNet of bottlenecks or "basic" blocks, ResNeXt with `groups`, Res2Net with `scales`, or RegNetX.

    Attributes:
        blocks: number of residual blocks in c2, c3, c4 and c5.
        stem_channels, base_channels: channels of the stem, and inside the blocks of c2; later stages double.
        groups, group_width: of the 3x3 convolutions in ResNeXt; the width is that of c2's groups where
            `base_channels` is 64.
        scales: 3x3 convolutions of a bottleneck work on so many parts of its channels, each on its own and
            what the one before it gave (Res2Net, arXiv 1904.01169); c2's parts are of `group_width` channels.
        widths: channels of c2 to c5 in a RegNetX (arXiv 2003.13678): its bottlenecks are as wide inside, all
            of their groups have `group_width` channels, and its stem is a 3x3 convolution at stride 2.
        block: kind of residual block.
        style: which convolution of a bottleneck has the stride: "pytorch" the 3x3 one, "caffe" the first.
        deep_stem: three 3x3 convolutions replace the first 7x7 one (ResNet-C of arXiv 1812.01187).
        avg_down: shortcuts average before their convolution (ResNet-D).
        deformable_stages: which of c2..c5 have deformable 3x3 convolutions.
        modulated: deformable convolutions also weigh their points (arXiv 1811.11168).
        offset_groups: groups of channels with offsets of their own.
        norm: see `Norm`.
        frozen_stages: number of stages that are not trained: 1 is the stem, 2 also c2, and so on.
        zero_init_residual: every residual block starts as its shortcut, as in mmdetection; small networks
            that are trained from random weights learn faster without.
        context: the context blocks.
        more_context: further context blocks; blocks in the same position are applied in this order.
    """

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    stem_channels: int = 64
    base_channels: int = 64
    groups: int = 1
    group_width: int = 4
    scales: int = 1
    widths: tuple[int, int, int, int] | None = None
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
    """A network of timm or torchvision as the backbone: its maps at strides 4, 8, 16 and 32.

    All of it is trained, with its own norms.

    Attributes:
        library: "timm" (an extra of this package) or "torchvision".
        name: its name in that library.
        context: the context blocks that `gcnet.context.insert` puts into its residual blocks. Residual blocks
            with maps at one stride form a stage.
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

    Attributes:
        anchor_scale: sides of the anchors in strides of their level; one number or several.
        anchor_ratios: height / width of the anchors.
        anchor_strides: distance of the anchors on the five levels, in pixels.
        convs: number of 3x3 convolutions before the two outputs.
        stds: divisors of the deltas (dx, dy, dw, dh).
        pre_nms_test, pre_nms_train: best anchors of each level that enter NMS.
        proposals_test, proposals_train: proposals of an image after NMS.
        nms_threshold: IoU above which NMS removes a box.
        batch_size: anchors of an image that a training step samples.
        anchors_inside: train only on anchors that lie inside the image.
        smooth_l1_beta: beta of smooth L1; 0 is plain L1.
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
class SoftNMSSpec:
    """Soft NMS (arXiv 1704.04503): a better box lowers the scores of those it overlaps, and removes none.

    Attributes:
        method: "linear" multiplies a score by 1 - IoU where IoU is at least `RoISpec.nms_threshold`,
            "gaussian" by exp(-IoU^2 / sigma).
        sigma: see `method`.
        min_score: boxes whose scores fall below it are removed.
    """

    method: Literal["linear", "gaussian"] = "linear"
    sigma: float = 0.5
    min_score: float = 0.001


@dataclass(frozen=True)
class AggregateSpec:
    """Regions are read at all levels and summed (GRoIE, arXiv 2004.13665), not at the one for their size.

    Attributes:
        kernel: side of a convolution, with a ReLU, before the sum; an odd number.
        context: the context block behind the sum; its stages and its position say nothing here.
    """

    kernel: int | None = None
    context: ContextSpec | None = None


@dataclass(frozen=True)
class RoISpec:
    """Box and mask heads, and the sampling of regions in training.

    Attributes:
        box_convs, box_fcs: layers of the box head before its two outputs: 0 and 2 ("2fc"), or 4 and 1
            ("4conv1fc").
        box_channels: width of its linear layers.
        class_agnostic: four deltas for all classes, not four for each; None: in a cascade alone.
        stds: divisors of the deltas; a cascade has its own.
        masks: whether there are mask heads; without, detections are boxes alone.
        class_agnostic_masks: one mask for all classes.
        mask_channels, mask_convs: width and number of the mask head's 3x3 convolutions.
        norm: norm after the 3x3 convolutions of both heads.
        smooth_l1_beta: beta of smooth L1 for boxes; 0 is plain L1. A cascade always takes 1.
        batch_size: regions of an image that a training step samples.
        positive_fraction: largest share of positive regions among them.
        nms_threshold: IoU above which NMS removes a box of the same class.
        soft_nms: soft NMS in its place; scores may then be lower than the threshold of a prediction.
        detections: most detections in an image.
        finest_scale: regions of up to twice this side, in pixels, are read from P2, larger ones from coarser
            levels.
        sampling: points in each direction of a region's cell that are read; 0 is as many as it takes, or 2 in
            the conventions of mmdetection 1.x and torchvision.
        aggregate: read regions at all levels; each head has a sum of its own.
        cls_init_std: standard deviation of the initial class weights. With the usual 0.01 a network that is
            trained from random weights learns to tell classes apart only late.
    """

    box_convs: int = 0
    box_fcs: Literal[1, 2] = 2
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
    soft_nms: SoftNMSSpec | None = None
    detections: int = 100
    finest_scale: float = 56.0
    sampling: int = 0
    aggregate: AggregateSpec | None = None
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

    Attributes:
        backbone: the backbone.
        fpn_channels: channels of the FPN's levels.
        fpn_norm: norm after every convolution of the FPN.
        fpn_bottom_up: add a path back to coarser levels (PAFPN, arXiv 1803.01534).
        balance: add a balanced pyramid behind the FPN.
        rpn: the region proposal network.
        roi: the box and mask heads.
        cascade: make it a Cascade R-CNN, with heads as in `roi` for each stage.
        coordinates: pixel convention of the library that it was trained with.
        image_size: (long, short) side that images are resized to fit in.
        resize: by whose rule images are resized.
        image_mean, image_std: of RGB, 0 to 255.
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

    The backbone is that of the detectors, so that its weights can be used by both; none of it is frozen here.

    Attributes:
        backbone: the backbone.
        image_size: the short side that images are resized to, and the side of the square that is cut from
            their middle.
        image_mean, image_std: of RGB, 0 to 255.
    """

    backbone: ResNetSpec = ResNetSpec(norm="batch", frozen_stages=0)
    image_size: tuple[int, int] = (256, 224)
    image_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    image_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @property
    def norms(self) -> tuple[Norm | None, ...]:
        return (self.backbone.norm,)
