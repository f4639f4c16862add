"""The classifiers by name (arXiv 1904.11492, section 5.2). No torch here.

Blocks are in every residual block of c3, c4 and c5, as in the detectors, so that a classifier's weights fit a
detector's backbone. Their recipes are for fine-tuning on folders of photographs and are nobody's published
ones. The large ones start from torchvision's ImageNet files, to which their blocks are new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gcnet.models.spec import ClassifierSpec, ContextSpec, ResNetSpec
from gcnet.recipe import ClassificationRecipe
from gcnet.weights.cache import Weights

R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)  # blocks of c2 to c5
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


def unnamed(count: int) -> tuple[str, ...]:
    """Names for so many classes that nobody has named."""
    return tuple(f"class {index}" for index in range(count))


@dataclass(frozen=True)
class ClassifierRow:
    """One classifier. `params` are millions of parameters (1000 classes), `gflops` those of one square."""

    spec: ClassifierSpec
    recipe: ClassificationRecipe
    params: float
    gflops: float
    upstream: tuple[str, ...] = ()
    weights: Weights | None = None  # nobody has published any with blocks

    @property
    def name(self) -> str:
        return self.spec.name


def _published(
    name: str, blocks: tuple[int, int, int, int], ratio: float | None, params: float, gflops: float
) -> ClassifierRow:
    context = None if ratio is None else ContextSpec(ratio=ratio)
    backbone = ResNetSpec(blocks=blocks, norm="batch", frozen_stages=0, context=context)
    spec = ClassifierSpec(name, unnamed(1000), backbone)  # torchvision knows their names
    return ClassifierRow(spec, ClassificationRecipe(), params, gflops)


def _tiny(name: str, ratio: float | None, params: float, gflops: float) -> ClassifierRow:
    """On the backbone of the tiny detectors."""
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
    _tiny("resnet_tiny", None, 1.02, 0.168),
    _tiny("resnet_tiny_gc16", 1 / 16, 1.06, 0.169),
    _tiny("resnet_tiny_gc4", 1 / 4, 1.19, 0.169),
    _published("resnet50", R50, None, 25.56, 8.18),
    _published("resnet50_gc16", R50, 1 / 16, 28.08, 8.20),
    _published("resnet50_gc4", R50, 1 / 4, 35.56, 8.21),
    _published("resnet101", R101, None, 44.55, 15.60),
    _published("resnet101_gc16", R101, 1 / 16, 49.34, 15.64),
    _published("resnet101_gc4", R101, 1 / 4, 63.51, 15.67),
)
