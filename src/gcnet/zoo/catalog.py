"""The models by name: what they are made of and what was published about them. No torch here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from gcnet.engine.recipe import Recipe
from gcnet.errors import GCNetError
from gcnet.models.spec import CascadeSpec, ContextSpec, ModelSpec, Norm, ResNetSpec, RoISpec, RPNSpec
from gcnet.zoo.coco_classes import COCO_CLASSES


@dataclass(frozen=True)
class Row:
    """One model. `upstream` are its names in mmdetection 2.x and 3.x; the APs are as published on COCO."""

    spec: ModelSpec
    recipe: Recipe
    upstream: tuple[str, ...] = ()
    box_ap: float | None = None
    mask_ap: float | None = None

    @property
    def name(self) -> str:
        return self.spec.name


R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
GC16, GC4 = ContextSpec(ratio=1 / 16), ContextSpec(ratio=1 / 4)

# SyncBN rows train their norm; the others keep ImageNet's statistics. Stem and c2 are frozen in all.
_NORM_WORD: dict[Norm, tuple[str, str, str]] = {
    "frozen_stats": ("", "", ""),
    "sync": ("_syncbn", "_syncbn-backbone", "-syncbn"),
}


def _published(
    depth: str,
    norm: Norm,
    context: ContextSpec | None,
    box_ap: float | None,
    mask_ap: float | None,
    *,
    cascade: bool = False,
    deformable: bool = False,
) -> Row:
    """A row of the published table; the three spellings of its name follow from what it is."""
    ratio = f"{round(1 / context.ratio)}" if context else ""
    ours, v2, v3 = _NORM_WORD[norm]
    block2 = ("_dconv_c3-c5" if deformable else "") + (f"_r{ratio}_gcb_c3-c5" if context else "")
    block3 = f"-r{ratio}-gcb-c3-c5" if cascade else f"-gcb-r{ratio}-c3-c5"  # upstream is of two minds
    block3 = ("-dconv-c3-c5" if deformable else "") + (block3 if context else "")
    upstream_depth = {"x101": ("x101_32x4d", "x101-32x4d")}.get(depth, (depth, depth))
    name = ("cascade_" if cascade else "") + f"mask_rcnn_{depth}{ours}"
    name += ("_dcn" if deformable else "") + (f"_gc{ratio}" if context else "")
    backbone = ResNetSpec(
        blocks=R50 if depth == "r50" else R101,
        groups=32 if depth == "x101" else 1,
        deformable_stages=(False, True, True, True) if deformable else (False, False, False, False),
        norm=norm,
        context=context,
    )
    spec = ModelSpec(name, COCO_CLASSES, backbone)
    if cascade:
        rpn = RPNSpec(proposals_train=2000, anchors_inside=True, smooth_l1_beta=1 / 9)
        spec = replace(spec, rpn=rpn, cascade=CascadeSpec())
    stem2, stem3 = ("cascade_", "cascade-") if cascade else ("", "")
    upstream = (
        f"{stem2}mask_rcnn_{upstream_depth[0]}_fpn{v2}{block2}_1x_coco",
        f"{stem3}mask-rcnn_{upstream_depth[1]}{v3}{block3}_fpn_1x_coco",
    )
    return Row(spec, Recipe(), upstream, box_ap, mask_ap)


# Small enough to train from nothing on two CPU cores. Batch norm, not group norm: the statistics of group
# norm are taken over the whole map, which would be a second, hidden kind of context block.
_TINY = ModelSpec(
    "mask_rcnn_tiny",
    COCO_CLASSES,
    backbone=ResNetSpec(
        blocks=(1, 1, 1, 1),
        stem_channels=16,
        base_channels=16,
        norm="batch",
        frozen_stages=0,
        zero_init_residual=False,
    ),
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
_TINY_RECIPE = Recipe(
    epochs=120,
    batch_size=8,
    lr=2e-3,
    lr_batch_size=8,
    optimizer="adamw",
    weight_decay=0.05,
    schedule="cosine",
    warmup_iterations=50,
    clip_norm=5.0,
    scale_jitter=(0.8, 1.25),
    color_jitter=0.3,
    validate_every=5,
)


def _tiny(suffix: str, context: ContextSpec | None) -> Row:
    spec = replace(_TINY, name=_TINY.name + suffix, backbone=replace(_TINY.backbone, context=context))
    return Row(spec, _TINY_RECIPE)


ROWS: tuple[Row, ...] = (
    _tiny("", None),
    _tiny("_gc16", GC16),
    _tiny("_gc4", GC4),
    _published("r50", "frozen_stats", None, 38.2, 34.7),
    _published("r50", "frozen_stats", GC16, 39.7, 35.9),
    _published("r50", "frozen_stats", GC4, 39.9, 36.0),
    _published("r101", "frozen_stats", GC16, 41.3, 37.2),
    _published("r101", "frozen_stats", GC4, 42.2, 37.8),
    _published("r50", "sync", None, 38.4, 34.6),
    _published("r50", "sync", GC16, 40.4, 36.2),
    _published("r50", "sync", GC4, 40.7, 36.5),
    _published("r101", "sync", None, 40.5, 36.3),
    _published("r101", "sync", GC16, 42.2, 37.8),
    _published("r101", "sync", GC4, 42.2, 37.8),
    _published("x101", "sync", None, 42.4, 37.7),
    _published("x101", "sync", GC16, 43.5, 38.6),
    _published("x101", "sync", GC4, 43.9, 39.0),
    _published("x101", "sync", None, 44.7, 38.6, cascade=True),
    _published("x101", "sync", GC16, 46.2, 39.7, cascade=True),
    _published("x101", "sync", GC4, 46.4, 40.1, cascade=True),
    _published("x101", "sync", None, 47.5, 40.9, cascade=True, deformable=True),
    _published("x101", "sync", GC16, 48.0, 41.3, cascade=True, deformable=True),
    _published("x101", "sync", GC4, 47.9, 41.1, cascade=True, deformable=True),
)


def list_models() -> list[str]:
    """The names of all models."""
    return [row.name for row in ROWS]


def find(name: str) -> Row:
    """The row of a model, by our name or either upstream spelling.

    Raises:
        GCNetError: there is none; the nearest names are given.
    """
    by_name = {spelling: row for row in ROWS for spelling in (row.name, *row.upstream)}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "`gcnet models` lists them"
    raise GCNetError(f"there is no model {name!r}: {hint}")
