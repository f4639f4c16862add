"""Files of torchvision and detectron2: the detections are those of their own libraries.

torchvision is here; detectron2 is written down below by its formulas.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import detection
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align

from gcnet.errors import GCNetError
from gcnet.models.detector import Detector
from gcnet.ops.decode import read_image
from gcnet.types import Detections
from gcnet.weights.dialects import translate
from gcnet.weights.fetch import LocalFile
from gcnet.weights.load import load_model, read_model
from gcnet.weights.mmdet_config import Config

GOLDEN = Path(__file__).parents[1] / "golden"
IMAGES = [GOLDEN / "img0_480x640.png", GOLDEN / "img1_333x500.png"]
NAMES = ["resistor", "coil", "diode", "lamp"]
SMALL = Config(image_size=(267, 160), proposals=200)  # a side of the coarsest map is odd
# Spread of random weights that lets a detector find something: the first part of a name that is in it.
GAINS = {
    "inner_blocks": 0.8,
    "fpn_lateral": 0.8,
    "layer_blocks": 0.6,
    "fpn_output": 0.6,
    "logits": 1.0,
    "rpn.head.bbox_pred": 0.35,
    "anchor_deltas": 0.35,
    "cls_score": 3.0,
    "bbox_pred": 0.8,
}


def draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name.endswith("running_var"):
        return torch.rand(shape, generator=generator) + 0.5
    if name.endswith(("running_mean", "bias")):
        return torch.randn(shape, generator=generator) * 0.05
    if len(shape) == 1:
        low = 0.1 if "bn3" in name or "conv3.norm" in name else 0.5
        return low + torch.rand(shape, generator=generator) * low * 2
    gain = next((gain for part, gain in GAINS.items() if part in name), math.sqrt(2))
    gain = gain / 60 if "stem" in name else gain  # detectron2 does not divide pixels by their spread
    weight = torch.randn(shape, generator=generator) * gain / math.sqrt(math.prod(shape[1:]))
    return weight - weight.flatten(1).mean(1).view(-1, *[1] * (len(shape) - 1))


def drawn(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.dim():
            tensor.copy_(draw(name, tuple(tensor.shape), generator))
    return model.eval()


def torchvisions(head: str, version: str, **size: int) -> Any:
    make = getattr(detection, f"{head}_resnet50_fpn{version}")
    return drawn(make(weights=None, weights_backbone=None, num_classes=5, **size))


def agree(found: Detections, boxes: Tensor, scores: Tensor, labels: Tensor, masks: Tensor | None) -> None:
    """At the tolerance of the design: near the cut aside, and masks whose boxes end near a whole pixel."""
    assert len(found) == len(boxes) > 20
    apart = (boxes[:, None] - found.boxes).abs().amax(2) + 1e6 * (labels[:, None] != found.labels)
    near, own = apart.min(1)
    there = near < 0.02
    assert (there | (scores < scores.min() + 5e-4)).all()
    own = own[there]
    assert len(own.unique()) == len(own)
    torch.testing.assert_close(found.scores[own], scores[there], atol=5e-4, rtol=0)
    if masks is not None:
        wrong = (found.masks[own] != masks[there]).flatten(1).sum(1)
        allowed = (masks[there].flatten(1).sum(1) * 0.005).clamp(min=2)
        assert (wrong > allowed).float().mean() <= 0.02


def against_torchvision(theirs: Any, path: Path, told: Config | None, images: list[Path]) -> Detector:
    torch.save({"model": theirs.state_dict(), "epoch": 25}, path)
    ours = read_model(LocalFile(path), None, NAMES, told=told)
    assert isinstance(ours, Detector)
    for image in images:
        pixels = torch.from_numpy(read_image(image)).permute(2, 0, 1) / 255
        with torch.no_grad():
            found = theirs([pixels])[0]
        masks = found["masks"][:, 0] >= 0.5 if "masks" in found else None
        agree(ours.predict_images(image)[0], found["boxes"], found["scores"], found["labels"] - 1, masks)
    return ours


@pytest.mark.parametrize("head", ["maskrcnn", "fasterrcnn"])
@pytest.mark.parametrize("version", ["", "_v2"])
def test_torchvision(head: str, version: str, tmp_path: Path) -> None:
    """Its own networks, on a small image and with few proposals and detections."""
    few = {"rpn_post_nms_top_n_test": 100, "box_detections_per_img": 40}
    theirs = torchvisions(head, version, min_size=160, max_size=267, **few)
    told = replace(SMALL, proposals=100, detections=40)
    ours = against_torchvision(theirs, tmp_path / "mine.pth", told, IMAGES[:1])
    assert ours.spec.name == "mine"
    assert ours.spec.class_names == tuple(NAMES)


@pytest.mark.slow
def test_torchvision_at_its_own_size(tmp_path: Path) -> None:
    against_torchvision(torchvisions("maskrcnn", ""), tmp_path / "x.pth", None, IMAGES[1:])


def test_torchvision_of_coco_knows_its_names(tmp_path: Path) -> None:
    """And a file of before torchvision 0.13, with frozen norms and older names."""
    state = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    old = {}
    for name, tensor in state.items():
        name = name.replace("fpn.inner_blocks.", "fpn.inner_blocks.").replace(".conv.0.0.", ".conv.")
        for level in range(4):
            name = name.replace(f"_blocks.{level}.0.", f"_blocks.{level}.")
            name = name.replace(f"mask_head.{level}.0.", f"mask_head.mask_fcn{level + 1}.")
        if not name.endswith("num_batches_tracked"):
            old[name] = tensor
    torch.save(old, tmp_path / "x.pth")
    model = load_model(tmp_path / "x.pth")
    assert model.spec.class_names[0] == "person"
    assert model.spec.num_classes == 90
    assert "without an eps" in model.provenance["note"]
    weight = model.state_dict()["backbone.layer1.0.bn1.weight"]  # ones; the statistics are, too
    torch.testing.assert_close(weight, torch.full_like(weight, math.sqrt(1 + 1e-5)), atol=1e-7, rtol=0)


def test_linear_layers_after_many_convolutions_keep_their_order() -> None:
    names = ["rpn.head.x", "roi_heads.box_head.11.weight", "roi_heads.box_head.9.weight"]
    found = translate({name: torch.tensor(float(i)) for i, name in enumerate(names)}, source="x.pth").tensors
    assert [found[f"roi_head.bbox_head.shared_fcs.{i}.weight"] for i in (0, 1)] == [2, 1]


def test_heads_for_other_things_are_refused(tmp_path: Path) -> None:
    torch.save(
        {"rpn.head.x": torch.zeros(1), "roi_heads.keypoint_head.0.weight": torch.zeros(1)}, tmp_path / "x.pth"
    )
    with pytest.raises(GCNetError, match="keypoints"):
        load_model(tmp_path / "x.pth")


# detectron2 -------------------------------------------------------------------------------------------

BLOCKS, CHANNELS, FPN, CLASSES = (1, 2, 1, 1), 8, 16, 4


def detectron2_shapes() -> dict[str, tuple[int, ...]]:
    """A small Mask R-CNN of detectron2's with the names and shapes of its model zoo's."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, inner: int, side: int, *, norm: bool = False) -> None:
        shapes[f"{name}.weight"] = (out, inner, side, side)
        if norm:
            shapes.update({f"{name}.norm.{key}": (out,) for key in ("weight", "bias")})
            shapes.update({f"{name}.norm.{key}": (out,) for key in ("running_mean", "running_var")})
        else:
            shapes[f"{name}.bias"] = (out,)

    conv("backbone.bottom_up.stem.conv1", CHANNELS, 3, 7, norm=True)
    inner = CHANNELS
    for stage, count in enumerate(BLOCKS):
        width = CHANNELS * 2**stage
        for index in range(count):
            block = f"backbone.bottom_up.res{stage + 2}.{index}"
            conv(f"{block}.conv1", width, inner, 1, norm=True)
            conv(f"{block}.conv2", width, width, 3, norm=True)
            conv(f"{block}.conv3", width * 4, width, 1, norm=True)
            if index == 0:
                conv(f"{block}.shortcut", width * 4, inner, 1, norm=True)
            inner = width * 4
        conv(f"backbone.fpn_lateral{stage + 2}", FPN, inner, 1)
        conv(f"backbone.fpn_output{stage + 2}", FPN, FPN, 3)
    conv("proposal_generator.rpn_head.conv", FPN, FPN, 3)
    conv("proposal_generator.rpn_head.objectness_logits", 3, FPN, 1)
    conv("proposal_generator.rpn_head.anchor_deltas", 12, FPN, 1)
    linear = {"box_head.fc1": (32, FPN * 49), "box_head.fc2": (32, 32)}
    linear |= {"box_predictor.cls_score": (CLASSES + 1, 32), "box_predictor.bbox_pred": (CLASSES * 4, 32)}
    for name, shape in linear.items():
        shapes |= {f"roi_heads.{name}.weight": shape, f"roi_heads.{name}.bias": shape[:1]}
    for index in range(4):
        conv(f"roi_heads.mask_head.mask_fcn{index + 1}", 12, 12 if index else FPN, 3)
    conv("roi_heads.mask_head.deconv", 12, 12, 2)
    conv("roi_heads.mask_head.predictor", CLASSES, 12, 1)
    return shapes


class Detectron2:
    """Its inference, one image at a time: configs/Base-RCNN-FPN.yaml with the R-50 of MSRA."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.w = weights

    def conv(self, x: Tensor, name: str, stride: int = 1, *, relu: bool = False) -> Tensor:
        weight = self.w[f"{name}.weight"]
        x = F.conv2d(x, weight, self.w.get(f"{name}.bias"), stride, weight.shape[-1] // 2)
        if f"{name}.norm.weight" in self.w:
            keys = ("running_mean", "running_var", "weight", "bias")
            x = F.batch_norm(x, *(self.w[f"{name}.norm.{key}"] for key in keys), eps=1e-5)
        return x.relu() if relu else x

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.w[f"roi_heads.{name}.weight"], self.w[f"roi_heads.{name}.bias"])

    def pyramid(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.conv(x, "backbone.bottom_up.stem.conv1", 2, relu=True), 3, 2, 1)
        maps = []
        for stage, count in enumerate(BLOCKS):
            for index in range(count):
                block, stride = f"backbone.bottom_up.res{stage + 2}.{index}", 2 if stage and not index else 1
                y = self.conv(x, f"{block}.conv1", stride, relu=True)  # STRIDE_IN_1X1
                y = self.conv(self.conv(y, f"{block}.conv2", relu=True), f"{block}.conv3")
                x = (y + (x if index else self.conv(x, f"{block}.shortcut", stride))).relu()
            maps.append(x)
        levels: list[Tensor] = []
        for stage in reversed(range(4)):
            lateral = self.conv(maps[stage], f"backbone.fpn_lateral{stage + 2}")
            levels.insert(0, lateral if not levels else lateral + F.interpolate(levels[0], scale_factor=2))
        levels = [self.conv(level, f"backbone.fpn_output{stage + 2}") for stage, level in enumerate(levels)]
        return [*levels, F.max_pool2d(levels[-1], 1, 2)]

    @staticmethod
    def decode(boxes: Tensor, deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
        size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
        d = deltas / torch.tensor(weights)
        centre, size = centre + d[:, :2] * size, size * d[:, 2:].clamp(max=math.log(1000 / 16)).exp()
        return torch.cat([centre - size / 2, centre + size / 2], 1)

    def proposals(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        boxes, scores, ids = [], [], []
        head = "proposal_generator.rpn_head."
        for level, feature in enumerate(levels):
            hidden, stride, anchors = self.conv(feature, f"{head}conv", relu=True), 4 * 2**level, []
            for ratio in (0.5, 1.0, 2.0):
                width = math.sqrt((8 * stride) ** 2 / ratio)
                anchors.append([-width / 2, -width * ratio / 2, width / 2, width * ratio / 2])
            y, x = torch.meshgrid(*(torch.arange(n) * stride for n in feature.shape[2:]), indexing="ij")
            shifts = torch.stack([x, y, x, y], -1).view(-1, 1, 4)
            grid = (shifts + torch.tensor(anchors)).view(-1, 4)
            logits = self.conv(hidden, f"{head}objectness_logits")[0].permute(1, 2, 0).flatten()
            deltas = self.conv(hidden, f"{head}anchor_deltas")[0].view(3, 4, *feature.shape[2:])
            deltas = deltas.permute(2, 3, 0, 1).reshape(-1, 4)
            top = logits.topk(min(1000, len(logits)))
            boxes.append(self.decode(grid[top.indices], deltas[top.indices], (1, 1, 1, 1)))
            scores.append(top.values)
            ids.append(torch.full_like(top.indices, level))
        box, score, level = clip_boxes_to_image(torch.cat(boxes), size), torch.cat(scores), torch.cat(ids)
        keep = ((box[:, 2:] - box[:, :2]) > 0).all(1)
        box, score, level = box[keep], score[keep], level[keep]
        return box[batched_nms(box, score, level, 0.7)[:200]]

    def pool(self, levels: list[Tensor], boxes: Tensor, side: int) -> Tensor:
        area = ((boxes[:, 2:] - boxes[:, :2]).prod(1)).sqrt()
        own = (torch.floor(4 + torch.log2(area / 224 + 1e-16)).clamp(2, 5) - 2).long()
        out = torch.zeros(len(boxes), FPN, side, side)
        for level in range(4):
            at, scale = own == level, 1 / (4 * 2**level)
            out[at] = roi_align(levels[level], [boxes[at]], side, scale, 0, aligned=True)
        return out

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`image` is BGR. Boxes in its pixels, scores, labels, 28 x 28 masks."""
        height, width = image.shape[:2]
        scale = min(160 / min(height, width), 267 / max(height, width))
        size = int(height * scale + 0.5), int(width * scale + 0.5)
        small = np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
        mean = torch.tensor([103.53, 116.28, 123.675])[:, None, None]
        x = torch.from_numpy(small).permute(2, 0, 1).float() - mean
        levels = self.pyramid(F.pad(x, (0, -size[1] % 32, 0, -size[0] % 32))[None])
        regions = self.proposals(levels, size)
        hidden = self.pool(levels, regions, 7).flatten(1)
        for fc in ("fc1", "fc2"):
            hidden = self.linear(hidden, f"box_head.{fc}").relu()
        scores = self.linear(hidden, "box_predictor.cls_score").softmax(1)[:, :-1]
        deltas = self.linear(hidden, "box_predictor.bbox_pred").split(4, 1)
        boxes = torch.stack([self.decode(regions, d, (10, 10, 5, 5)) for d in deltas], 1)
        boxes = clip_boxes_to_image(boxes, size)
        region, label = (scores > 0.05).nonzero(as_tuple=True)
        box, score = boxes[region, label], scores[region, label]
        keep = batched_nms(box, score, label, 0.5)[:100]
        box, score, label = box[keep], score[keep], label[keep]
        mask = self.pool(levels, box, 14)
        for index in range(4):
            mask = self.conv(mask, f"roi_heads.mask_head.mask_fcn{index + 1}", relu=True)
        deconv = "roi_heads.mask_head.deconv"
        mask = F.conv_transpose2d(mask, self.w[f"{deconv}.weight"], self.w[f"{deconv}.bias"], 2).relu()
        mask = self.conv(mask, "roi_heads.mask_head.predictor")[torch.arange(len(label)), label].sigmoid()
        return box * torch.tensor([width / size[1], height / size[0]] * 2), score, label, mask


@pytest.fixture(scope="module")
def detectron2_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: draw(name, shape, generator) for name, shape in detectron2_shapes().items()}


def test_detectron2(detectron2_weights: dict[str, Tensor], tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in detectron2_weights.items()}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2"}))
    ours = read_model(LocalFile(tmp_path / "model_final.pkl"), None, NAMES, told=SMALL)
    assert isinstance(ours, Detector)
    assert ours.spec.image_std == (1, 1, 1)
    assert ours.provenance["note"].startswith("detectron2's file: taken as its model zoo has them, BGR")
    theirs = Detectron2(detectron2_weights)
    for image in IMAGES:
        boxes, scores, labels, probs = theirs(np.ascontiguousarray(read_image(image)[:, :, ::-1]))
        found = ours.predict_images(image)[0]
        agree(found, boxes, scores, labels, None)
        if torch.equal(found.labels, labels):
            torch.testing.assert_close(found.mask_probs, probs, atol=5e-4, rtol=0)


def test_detectron2_without_statistics(detectron2_weights: dict[str, Tensor], tmp_path: Path) -> None:
    """Those of Caffe2 are in weight and bias; old files also have settings among their tensors."""
    few = {name: t for name, t in detectron2_weights.items() if "running" not in name}
    few["pixel_mean"] = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    few["pixel_std"] = torch.ones(3, 1, 1)
    few["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    torch.save({"model": few, "iteration": 1}, tmp_path / "x.pth")
    ours = load_model(tmp_path / "x.pth", class_names=NAMES)
    assert ours.spec.image_mean == (123.675, 116.28, 103.53)  # and RGB: the convolution is not turned
    first = few["backbone.bottom_up.stem.conv1.weight"]
    assert torch.equal(ours.state_dict()["backbone.conv1.weight"], first)
    assert ours.state_dict()["backbone.bn1.running_var"].eq(1).all()
    assert "RGB images and blocks of caffe style" in ours.provenance["note"]
    assert "norms without statistics: taken as frozen" in ours.provenance["note"]
    grey = translate(few | {"pixel_mean": torch.full((3, 1, 1), 127.5)}, source="x.pth")
    assert grey.config.channels == "bgr"  # as is usual there, where the numbers do not tell


def cells(sizes: list[list[float]], ratios: list[float]) -> dict[str, Tensor]:
    """Anchors around one place of each level, as its `generate_cell_anchors` makes them."""
    found = {}
    for level, sides in enumerate(sizes):
        widths = [((side**2 / ratio) ** 0.5, ratio) for side in sides for ratio in ratios]
        corners = [[-w / 2, -w * ratio / 2, w / 2, w * ratio / 2] for w, ratio in widths]
        found[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = torch.tensor(corners)
    return found


def test_own_anchors_of_detectron2(detectron2_weights: dict[str, Tensor]) -> None:
    usual = [[32.0], [64.0], [128.0], [256.0], [512.0]]
    half = [[size / 2 for size in sizes] for sizes in usual]
    for sizes, ratios, expected in (
        (usual, [0.5, 1.0, 2.0], (8.0, (0.5, 1.0, 2.0))),
        (half, [1 / 3, 1.0, 3.0], (4.0, (0.33333, 1.0, 3.0))),
        ([[size, 2 * size, 4 * size] for (size,) in half], [1.0], ((4.0, 8.0, 16.0), (1.0,))),
    ):
        config = translate(detectron2_weights | cells(sizes, ratios), source="x.pth").config
        assert (config.anchor_scale, config.anchor_ratios) == expected
    for sizes, ratios in (([[8.0]] * 5, [0.5, 1.0, 2.0]), ([[s, 2 * s] for (s,) in half], [0.5, 1.0])):
        with pytest.raises(GCNetError, match=r"x\.pth cannot be read: it has anchors of its own"):
            translate(detectron2_weights | cells(sizes, ratios), source="x.pth")


def test_detectron2_with_group_norms(detectron2_weights: dict[str, Tensor]) -> None:
    """Its zoo has them in the FPN, too, and strides in the 3x3 convolutions then."""
    few = {name: tensor for name, tensor in detectron2_weights.items() if "running" not in name}
    few["backbone.fpn_lateral2.norm.weight"] = torch.ones(32)
    found = translate(few, source="x.pth")
    assert not any("running" in name for name in found.tensors)
    assert found.config.style == "pytorch"
    assert translate(detectron2_weights, source="x.pth").config.style == "caffe"


def test_parts_of_detectron2(detectron2_weights: dict[str, Tensor]) -> None:
    offsets = {"backbone.bottom_up.res3.0.conv2_offset.bias": torch.zeros(18)}
    found = translate(detectron2_weights | offsets, source="x.pth").tensors
    assert "backbone.layer2.0.conv2.conv_offset.bias" in found
    with pytest.raises(GCNetError, match=r"x\.pth cannot be read: it has a semantic head"):
        translate(detectron2_weights | {"sem_seg_head.predictor.bias": torch.zeros(3)}, source="x.pth")


@pytest.mark.parametrize("library", ["mmdetection 1.x", "torchvision", "detectron2"])
def test_tensors_without_the_dimensions_that_they_need_are_one_line(library: str, tmp_path: Path) -> None:
    names = {
        "mmdetection 1.x": "rpn_head.rpn_cls bbox_head.fc_cls bbox_head.fc_reg mask_head.conv_logits",
        "torchvision": "rpn.head.conv roi_heads.box_predictor.cls_score roi_heads.box_predictor.bbox_pred",
        "detectron2": "proposal_generator.rpn_head.conv backbone.bottom_up.res2.0.conv2",
    }[library]
    state = {f"{name}.weight": torch.tensor(1.0) for name in ["backbone.conv1", *names.split()]}
    state["backbone.layer2.0.bn1.num_batches_tracked"] = torch.tensor(float("nan"))
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(GCNetError):
        load_model(tmp_path / "x.pth")
