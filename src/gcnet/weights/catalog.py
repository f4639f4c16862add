"""The models by name: their specs, recipes and published figures. This does not import torch.

The detectors are mmdetection's published rows (arXiv 1904.11492), the authors' own with larger heads, and a
tiny family for CPUs. The classifiers (section 5.2) have the same backbones, so that the weights of one fit
the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from gcnet.console import did_you_mean
from gcnet.errors import GCNetError
from gcnet.models.spec import (
    CascadeSpec,
    ClassifierSpec,
    ContextSpec,
    LibrarySpec,
    ModelSpec,
    Norm,
    ResNetSpec,
    RoISpec,
    RPNSpec,
)
from gcnet.recipe import ClassificationRecipe, Recipe

PUBLISHER = "https://download.openmmlab.com/mmdetection/v2.0"
R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)  # residual blocks of c2 to c5
GC16, GC4 = ContextSpec(ratio=1 / 16), ContextSpec(ratio=1 / 4)
# Cascades, and the authors' own rows, train their proposals otherwise.
CASCADE_RPN = RPNSpec(proposals_train=2000, anchors_inside=True, smooth_l1_beta=1 / 9)
# Small enough to train from nothing on two CPU cores. Batch norm, not group norm: the statistics of group
# norm are taken over the whole map, which would be a second, hidden kind of context block.
TINY_BACKBONE = ResNetSpec(
    blocks=(1, 1, 1, 1),
    stem_channels=16,
    base_channels=16,
    norm="batch",
    frozen_stages=0,
    zero_init_residual=False,
)
COCO_CLASSES = tuple(
    """person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign
    parking meter|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag
    tie|suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard
    tennis racket|bottle|wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot
    hot dog|pizza|donut|cake|chair|couch|potted plant|bed|dining table|toilet|tv|laptop|mouse|remote
    keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|scissors|teddy bear
    hair drier|toothbrush""".replace("\n    ", "|").split("|")
)


def unnamed(count: int) -> tuple[str, ...]:
    """Placeholder names for classes without names."""
    return tuple(f"class {index}" for index in range(count))


@dataclass(frozen=True)
class Weights:
    """A published file: its address, and the first hex digits of its SHA-256 as the publisher gives them.

    `alternatives` are the same weights elsewhere: this file at another address, or another file. `name` is
    that of the file here, where the one of its address does not name the content.
    """

    url: str
    sha256: str
    alternatives: tuple[Weights, ...] = ()
    name: str = ""

    @property
    def file(self) -> str:
        """The file's name as published, if that name identifies the content."""
        return self.name or self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Row:
    """A detector of the catalog.

    `upstream` are its names in mmdetection 2.x and 3.x. `params` are millions of parameters. What follows is
    as published by mmdetection: the COCO weights, the GPU memory of training (GB; 2 images of 1333x800),
    images/s on one V100, and the APs on COCO val2017.
    """

    spec: ModelSpec
    recipe: Recipe
    params: float
    upstream: tuple[str, ...] = ()
    weights: Weights | None = None
    memory_gb: float | None = None
    fps: float | None = None
    box_ap: float | None = None
    mask_ap: float | None = None

    @property
    def name(self) -> str:
        return self.spec.name


@dataclass(frozen=True)
class ClassifierRow:
    """A classifier. `params` are millions of parameters, `gflops` those of one square image."""

    spec: ClassifierSpec
    recipe: ClassificationRecipe
    params: float
    gflops: float
    upstream: tuple[str, ...] = ()
    weights: Weights | None = None  # none are published for classifiers with blocks

    @property
    def name(self) -> str:
        return self.spec.name


def _published(
    depth: str,
    norm: Norm,
    context: ContextSpec | None,
    params: float,
    memory_gb: float | None,
    fps: float | None,
    box_ap: float,
    mask_ap: float,
    stamp: str,
    *,
    cascade: bool = False,
    deformable: bool = False,
    folder: str = "gcnet",
) -> Row:
    """A row of the published table; `stamp` is what its file has after the name: date and hash.

    With a `norm` of "sync" it is trained, else it keeps ImageNet's statistics. Stem and c2 are frozen in all.
    """
    name, v2, v3 = _names(depth, norm, context, cascade, deformable)
    backbone = ResNetSpec(
        blocks=R50 if depth == "r50" else R101,
        groups=32 if depth == "x101" else 1,
        deformable_stages=(False, True, True, True) if deformable else (False, False, False, False),
        norm=norm,
        context=context,
    )
    spec = ModelSpec(name, COCO_CLASSES, backbone)
    if cascade:
        spec = replace(spec, rpn=CASCADE_RPN, cascade=CascadeSpec())
    weights = Weights(f"{PUBLISHER}/{folder}/{v2}/{v2}_{stamp}.pth", sha256=stamp.rsplit("-", 1)[1])
    return Row(spec, Recipe(), params, (v2, v3), weights, memory_gb, fps, box_ap, mask_ap)


def _names(
    depth: str, norm: Norm, context: ContextSpec | None, cascade: bool, deformable: bool
) -> tuple[str, str, str]:
    """Our name of a published row and mmdetection's in 2.x and 3.x, from its structure."""
    ratio = f"{round(1 / context.ratio)}" if context else ""
    sync = "_syncbn" if norm == "sync" else ""
    block2 = ("_dconv_c3-c5" if deformable else "") + (f"_r{ratio}_gcb_c3-c5" if context else "")
    block3 = f"-r{ratio}-gcb-c3-c5" if cascade else f"-gcb-r{ratio}-c3-c5"  # upstream is of two minds
    block3 = ("-dconv-c3-c5" if deformable else "") + (block3 if context else "")
    stem = "cascade_mask_rcnn" if cascade else "mask_rcnn"
    theirs = depth.replace("x101", "x101_32x4d")
    return (
        f"{stem}_{depth}{sync}" + ("_dcn" if deformable else "") + (f"_gc{ratio}" if context else ""),
        f"{stem}_{theirs}_fpn{sync}{'-backbone' if sync else ''}{block2}_1x_coco",
        f"{stem}_{theirs}{sync}".replace("_", "-").replace("rcnn-", "rcnn_") + f"{block3}_fpn_1x_coco",
    )


def _four_convs(
    context: ContextSpec | None, params: float, box_ap: float, mask_ap: float, upstream: str
) -> Row:
    """A row of the authors' own table with the heads "4conv1fc (SyncBN)", trained by mmdetection 1.x's rules.

    Its APs are theirs, `upstream` is what they call its config; no public address of its weights is known.
    """
    backbone = ResNetSpec(norm="sync", context=context)
    spec = ModelSpec(
        _names("r50", "sync", context, cascade=False, deformable=False)[0] + "_4conv1fc",
        COCO_CLASSES,
        backbone,
        fpn_norm="sync",
        rpn=CASCADE_RPN,
        roi=RoISpec(box_convs=4, box_fcs=1, norm="sync", smooth_l1_beta=1.0),
    )
    recipe = Recipe(warmup_factor=1 / 3, clip_norm=35.0)
    return Row(spec, recipe, params, (upstream,), box_ap=box_ap, mask_ap=mask_ap)


_baseline = partial(_published, folder="mask_rcnn")  # it is on another page upstream
_cascade = partial(_published, cascade=True)
_cascade_dcn = partial(_published, cascade=True, deformable=True)


_TINY = ModelSpec(
    "mask_rcnn_tiny",
    COCO_CLASSES,
    TINY_BACKBONE,
    fpn_channels=48,
    rpn=RPNSpec(pre_nms_test=300, pre_nms_train=400, proposals_test=200, proposals_train=200, batch_size=128),
    roi=RoISpec(
        box_channels=256,
        mask_channels=32,
        mask_convs=2,
        batch_size=32,
        finest_scale=28.0,
        cls_init_std=0.08,
    ),
    image_size=(256, 192),
)
# Measured on few photographs (docs/train-your-own.md).
_TINY_RECIPE = Recipe(
    epochs=120,
    batch_size=8,
    lr=2.5e-3,
    lr_batch_size=8,
    optimizer="adamw",
    weight_decay=0.05,
    schedule="free",
    warmup_iterations=50,
    clip_norm=5.0,
    scale_jitter=(0.8, 1.25),
    color_jitter=0.3,
    validate_every=5,
)


def _tiny(suffix: str, context: ContextSpec | None, params: float) -> Row:
    spec = replace(_TINY, name=_TINY.name + suffix, backbone=replace(_TINY.backbone, context=context))
    return Row(spec, _TINY_RECIPE, params)


def _boxes_only(mask_row: Row, params: float, *, cascade: bool = False) -> Row:
    """The same model without mask heads: Faster R-CNN (arXiv 1506.01497), or with `cascade` Cascade R-CNN."""
    spec = mask_row.spec
    spec = replace(spec, roi=replace(spec.roi, masks=False))
    if cascade:
        # As in the published cascades; `CASCADE_RPN` is of networks of full size.
        rpn = replace(
            spec.rpn, proposals_train=spec.rpn.pre_nms_train, anchors_inside=True, smooth_l1_beta=1 / 9
        )
        spec = replace(spec, cascade=CascadeSpec(), rpn=rpn)
    name = mask_row.name.replace("mask_rcnn", "cascade_rcnn" if cascade else "faster_rcnn")
    return Row(replace(spec, name=name), mask_row.recipe, params)


# The columns: backbone, its norm, block | million parameters | published memory, fps, box AP, mask AP, file.
# The DCN files are those of 2021: the ones of 2020 under the same names hold ResNet-50 weights.
_MASK_ROWS: tuple[Row, ...] = (
    _tiny("", None, 1.46),
    _tiny("_gc16", GC16, 1.50),
    _tiny("_gc4", GC4, 1.63),
    _baseline("r50", "frozen_stats", None, 44.40, 4.4, 16.1, 38.2, 34.7, "20200205-d4b0c5d6"),
    _published("r50", "frozen_stats", GC16, 46.92, 5.0, None, 39.7, 35.9, "20200515_211915-187da160"),
    _published("r50", "frozen_stats", GC4, 54.40, 5.1, 15.0, 39.9, 36.0, "20200204-17235656"),
    _published("r101", "frozen_stats", GC16, 68.18, 7.6, 11.4, 41.3, 37.2, "20200205-e58ae947"),
    _published("r101", "frozen_stats", GC4, 82.35, 7.8, 11.6, 42.2, 37.8, "20200206-af22dc9d"),
    _published("r50", "sync", None, 44.40, 4.4, 16.6, 38.4, 34.6, "20200202-bb3eb55c"),
    _published("r50", "sync", GC16, 46.92, 5.0, 15.5, 40.4, 36.2, "20200202-587b99aa"),
    _published("r50", "sync", GC4, 54.40, 5.1, 15.1, 40.7, 36.5, "20200202-50b90e5c"),
    _four_convs(None, 45.71, 38.8, 34.6, "mask_rcnn_r50_fpn_syncbn_4conv1f_syncbn_1x"),
    _four_convs(GC16, 48.23, 41.0, 36.5, "mask_rcnn_r16_gcb_c3-c5_r50_fpn_syncbn_4conv1fc_syncbn_1x"),
    _four_convs(GC4, 55.71, 41.4, 37.0, "mask_rcnn_r4_gcb_c3-c5_r50_fpn_syncbn_4conv1f_syncbn_1x"),
    _published("r101", "sync", None, 63.39, 6.4, 13.3, 40.5, 36.3, "20200210-81658c8a"),
    _published("r101", "sync", GC16, 68.18, 7.6, 12.0, 42.2, 37.8, "20200207-945e77ca"),
    _published("r101", "sync", GC4, 82.35, 7.8, 11.8, 42.2, 37.8, "20200206-8407a3f0"),
    _published("x101", "sync", None, 63.02, 7.6, 11.3, 42.4, 37.7, "20200211-7584841c"),
    _published("x101", "sync", GC16, 67.81, 8.8, 9.8, 43.5, 38.6, "20200211-cbed3d2c"),
    _published("x101", "sync", GC4, 81.98, 9.0, 9.7, 43.9, 39.0, "20200212-68164964"),
    _cascade("x101", "sync", None, 95.95, 9.2, 8.4, 44.7, 38.6, "20200310-d5ad2a5e"),
    _cascade("x101", "sync", GC16, 100.73, 10.3, 7.7, 46.2, 39.7, "20200211-10bf2463"),
    _cascade("x101", "sync", GC4, 114.91, 10.6, None, 46.4, 40.1, "20200703_180653-ed035291"),
    _cascade_dcn("x101", "sync", None, 98.52, None, None, 47.5, 40.9, "20210615_211019-abbc39ea"),
    _cascade_dcn("x101", "sync", GC16, 103.31, None, None, 48.0, 41.3, "20210615_215648-44aa598a"),
    _cascade_dcn("x101", "sync", GC4, 117.48, None, None, 47.9, 41.1, "20210615_161851-720338ec"),
)

_BY_NAME = {row.name: row for row in _MASK_ROWS}
ROWS = (
    *_MASK_ROWS,
    Row(
        ModelSpec("mask_rcnn_convnext_tiny_gc4", COCO_CLASSES, LibrarySpec("timm", "convnext_tiny", GC4)),
        replace(Recipe(), optimizer="adamw", lr=1e-4, weight_decay=0.05),
        49.71,
    ),
    _boxes_only(_BY_NAME["mask_rcnn_tiny"], 1.43),
    _boxes_only(_BY_NAME["mask_rcnn_tiny_gc4"], 1.60),
    _boxes_only(_BY_NAME["mask_rcnn_tiny_gc4"], 2.90, cascade=True),
    _boxes_only(_BY_NAME["mask_rcnn_r50"], 41.75),
    _boxes_only(_BY_NAME["mask_rcnn_r50_gc16"], 44.27),
    _boxes_only(_BY_NAME["mask_rcnn_r50_gc4"], 51.75),
    _boxes_only(_BY_NAME["mask_rcnn_r50"], 69.39, cascade=True),
    _boxes_only(_BY_NAME["mask_rcnn_r50_gc16"], 71.92, cascade=True),
    _boxes_only(_BY_NAME["mask_rcnn_r50_gc4"], 79.40, cascade=True),
)


def _classifier(
    name: str, blocks: tuple[int, int, int, int], ratio: float | None, params: float, gflops: float
) -> ClassifierRow:
    context = None if ratio is None else ContextSpec(ratio=ratio)
    backbone = ResNetSpec(blocks=blocks, norm="batch", frozen_stages=0, context=context)
    spec = ClassifierSpec(name, unnamed(1000), backbone)  # torchvision knows their names
    return ClassifierRow(spec, ClassificationRecipe(), params, gflops)


def _tiny_classifier(name: str, ratio: float | None, params: float, gflops: float) -> ClassifierRow:
    """A classifier on the backbone of the tiny detectors."""
    backbone = replace(TINY_BACKBONE, context=None if ratio is None else ContextSpec(ratio=ratio))
    spec = ClassifierSpec(name, unnamed(1000), backbone, image_size=(192, 192))
    recipe = ClassificationRecipe(
        epochs=30,
        batch_size=32,
        lr=2e-3,
        lr_batch_size=32,
        optimizer="adamw",
        weight_decay=0.05,
        warmup_iterations=50,
        clip_norm=5.0,
        color_jitter=0.2,
        validate_every=5,
    )
    return ClassifierRow(spec, recipe, params, gflops)


CLASSIFIERS: tuple[ClassifierRow, ...] = (
    _tiny_classifier("resnet_tiny", None, 1.02, 0.168),
    _tiny_classifier("resnet_tiny_gc16", 1 / 16, 1.06, 0.169),
    _tiny_classifier("resnet_tiny_gc4", 1 / 4, 1.19, 0.169),
    _classifier("resnet50", R50, None, 25.56, 8.18),
    _classifier("resnet50_gc16", R50, 1 / 16, 28.08, 8.20),
    _classifier("resnet50_gc4", R50, 1 / 4, 35.56, 8.21),
    _classifier("resnet101", R101, None, 44.55, 15.60),
    _classifier("resnet101_gc16", R101, 1 / 16, 49.34, 15.64),
    _classifier("resnet101_gc4", R101, 1 / 4, 63.51, 15.67),
)


def list_models() -> list[str]:
    """The names of all models: the detectors, then the classifiers."""
    return [row.name for row in (*ROWS, *CLASSIFIERS)]


def find(name: str) -> Row | ClassifierRow:
    """The row of a detector or classifier, by our name or either upstream spelling.

    Raises GCNetError if there is none; the nearest names are given.
    """
    by_name = {spelling: row for row in (*ROWS, *CLASSIFIERS) for spelling in (row.name, *row.upstream)}
    if name in by_name:
        return by_name[name]
    if "/" in name:  # no model is called so: a path, or a repository of the hub
        raise GCNetError(f"no such file or folder: {name}, and no model has such a name")
    hint = did_you_mean(name, by_name, otherwise="`gcnet models` lists them")
    raise GCNetError(f"there is no model {name!r}; {hint}")


def find_detector(name: str) -> Row:
    """As `find`, for detectors alone: a classifier's name raises GCNetError too."""
    row = find(name)
    if isinstance(row, ClassifierRow):
        raise GCNetError(f"{row.name} is an image classifier; give a detector: `gcnet models` lists them")
    return row


def find_published(digest: str, rows: Iterable[Row] = ROWS) -> Row | None:
    """The row whose published weights have that SHA-256, among some rows."""
    return next((row for row in rows if row.weights and digest.startswith(row.weights.sha256)), None)
