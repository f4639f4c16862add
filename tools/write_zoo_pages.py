"""Writes docs/zoo.md and a card for each published row into docs/models/, from the catalog and counts.

    .venv/bin/python tools/write_zoo_pages.py

A test fails while the pages are not what this writes.
"""

from __future__ import annotations

from pathlib import Path

from gcnet.models.complexity import Complexity, count_complexity
from gcnet.models.spec import ModelSpec
from gcnet.weights.catalog import CLASSIFIERS, ROWS, Row

DOCS = Path(__file__).parent.parent / "docs"
SIZE = (800, 1216)  # what a 3:2 photograph becomes

# The rows whose detections and training losses the tests hold against stored numbers of mmdetection 3.3.
COMPARED = {
    "mask_rcnn_r50",
    "mask_rcnn_r50_syncbn_gc4",
    "mask_rcnn_r101_gc16",
    "mask_rcnn_x101_syncbn_gc4",
    "cascade_mask_rcnn_x101_syncbn_gc4",
    "cascade_mask_rcnn_x101_syncbn_dcn_gc16",
}


def pages() -> dict[str, str]:
    """The text of each page by its path below docs/."""
    rows = [row for row in ROWS if row.weights]
    counts = {row.name: count_complexity(row.spec, SIZE) for row in rows}
    cards = {f"models/{row.name}.md": card(row, counts[row.name]) for row in rows}
    return {"zoo.md": table(rows, counts)} | cards


def table(rows: list[Row], counts: dict[str, Complexity]) -> str:
    """The overview: what was published beside what was counted here."""
    lines = [
        "# Model zoo",
        "",
        "The models with published weights; each predicts what mmdetection's does with the same weights, which are",
        "[downloaded at first use](weights.md). `gcnet models` lists further models, to train:",
        "",
        "```sh",
        "gcnet predict mask_rcnn_r50_gc4 photo.jpg",
        "```",
        "",
        "AP on COCO val2017, training memory (2 images of 1333 x 800 on a GPU) and images/s (one V100) are the",
        "figures that mmdetection published with the weights. Parameters and GFLOPs are counted from the",
        f"networks here: one image of {SIZE[1]} x {SIZE[0]}, 1000 proposals, 100 detections; a multiply-add is",
        "two operations.",
        "",
        "| model | box AP | mask AP | memory, GB | images/s | params, M | GFLOPs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        count = counts[row.name]
        lines.append(
            f"| [`{row.name}`](models/{row.name}.md) | {row.box_ap} | {row.mask_ap} | {_or_blank(row.memory_gb)} | "
            f"{_or_blank(row.fps)} | {count.parameters / 1e6:.1f} | {count.total_flops / 1e9:.0f} |"
        )
    return "\n".join(lines + classifiers()) + "\n"


def classifiers() -> list[str]:
    """The section on classifiers; tests hold the catalog's figures against counts."""
    lines = [
        "",
        "## Image classifiers",
        "",
        "The same backbones with one linear layer ([guide](classification.md)). GFLOPs are those of one square",
        "image, parameters of 1000 classes.",
        "",
        "| model | params, M | GFLOPs | square |",
        "| --- | --- | --- | --- |",
    ]
    for row in CLASSIFIERS:
        numbers = f"{row.params:.2f} | {row.gflops:g} | {row.spec.image_size[1]}"
        lines.append(f"| `{row.name}` | {numbers} |")
    return lines


def card(row: Row, count: Complexity) -> str:
    """The model card of one row."""
    spec, weights, steps = row.spec, row.weights, row.recipe.step_epochs()
    assert weights is not None
    parts = ", ".join(f"{name} {flops / 1e9:.1f}" for name, flops in count.flops.items())
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (spec.image_mean, spec.image_std))
    compared = (
        "The detections of this row are held against mmdetection 3.3 by the tests."
        if row.name in COMPARED
        else "Names, shapes and number of its weights are held against mmdetection 3.3 by the tests; the "
        "detections of other rows of the same parts are too."
    )
    return f"""# {row.name}

{describe(spec)}

| | |
| --- | --- |
| box AP, mask AP (COCO val2017, published) | {row.box_ap}, {row.mask_ap} |
| training memory, images/s on a V100 (published) | {_or_blank(row.memory_gb, "not given", " GB")}, {_or_blank(row.fps, "not given")} |
| parameters | {count.parameters / 1e6:.2f} M |
| GFLOPs at {SIZE[1]} x {SIZE[0]} | {count.total_flops / 1e9:.1f} ({parts}) |
| names in mmdetection | `{row.upstream[0]}` (2.x), `{row.upstream[1]}` (3.x) |
| weights | [{weights.url.rsplit("/", 1)[1]}]({weights.url}), SHA-256 begins with `{weights.sha256}` |

## Use

```sh
gcnet predict {row.name} photo.jpg
gcnet train {row.name} --data photos --out runs/photos
```

```python
detector = gcnet.create_model("{row.name}", weights="coco")
found = detector.predict_images("photo.jpg", score_threshold=0.5)[0]
```

**Input**: RGB, resized to fit {spec.image_size[0]} x {spec.image_size[1]} (long, short side), minus ({mean}), divided by
({std}), padded to a multiple of 32. **Output**: boxes, scores, classes and masks of the {spec.num_classes} classes of
COCO, in pixels of the image as given.

## Training

By the authors of mmdetection on COCO train2017 (118 000 images), from an ImageNet backbone;
{frozen(spec)}
{row.recipe.epochs} epochs of batches of {row.recipe.batch_size}, SGD with a learning rate of {row.recipe.lr:g}
that falls tenfold after epochs {steps[0]} and {steps[1]}.

## Limits

It knows everyday things in photographs, seen from where people hold cameras, mostly in the places that people upload
images from. Aerial, medical or microscopic images, drawings and night are outside of what it saw. Small objects are
found much less reliably than large ones. A score is not a probability that has been calibrated. Not for decisions about
people.

{compared}

The weights were published by OpenMMLab with mmdetection (Apache-2.0). COCO's annotations are CC BY 4.0; its images
are under the terms of those who took them.
"""


def describe(spec: ModelSpec) -> str:
    """The architecture in a sentence."""
    backbone = spec.backbone
    kind = "Cascade Mask R-CNN, three stages," if spec.cascade else "Mask R-CNN"
    depth = "101" if backbone.blocks[2] == 23 else "50"
    network = f"ResNeXt-{depth} 32x4d" if backbone.groups == 32 else f"ResNet-{depth}"
    norm = "synchronised batch norm" if backbone.norm == "sync" else "batch norm with ImageNet's statistics"
    text = f"{kind} on {network} with a feature pyramid; {norm} in the backbone"
    if any(backbone.deformable_stages):
        text += "; deformable 3x3 convolutions in c3 to c5"
    if backbone.context is not None:
        blocks, ratio = sum(backbone.blocks[1:]), round(1 / backbone.context.ratio)
        text += (
            f"; a global context block of ratio 1/{ratio} in each of the {blocks} residual blocks of c3 to c5"
        )
    return text + "."


def frozen(spec: ModelSpec) -> str:
    """What training leaves as it is."""
    if spec.backbone.norm == "sync":
        return "stem and c2 are frozen, the norm of the other stages is trained and synchronised."
    return "stem and c2 are frozen, as are the statistics of all norms."


def _or_blank(value: float | None, missing: str = "", unit: str = "") -> str:
    return missing if value is None else f"{value}{unit}"


if __name__ == "__main__":
    for path, text in pages().items():
        (DOCS / path).parent.mkdir(exist_ok=True)
        (DOCS / path).write_text(text)
        print(f"wrote docs/{path}")
