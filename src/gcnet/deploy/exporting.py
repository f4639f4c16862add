"""A detector as a file for another runtime: ONNX, or `torch.export`'s own.

The whole prediction goes into the file: uint8 pixels in, boxes, scores, labels and masks out, in fixed places
of which `valid` says those that count (`Detector.forward`). What was written is run on an image and compared
with the model before it stands under its name.
N images of H x W pixels, D places.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from gcnet.deploy.runtime import (
    DETAILS,
    LEAST_SCORE,
    OUTPUTS,
    Details,
    ExportedDetector,
    Run,
    as_found,
    needs,
    prepare,
)
from gcnet.errors import GCNetError
from gcnet.files import prepare_folder
from gcnet.found import Found
from gcnet.models.detector import Detector, PaddedDetections
from gcnet.ops.boxes import box_iou
from gcnet.ops.images import padded_size
from gcnet.ops.masks import paste_masks

Width = Literal["fp32", "fp16", "int8"]
SUFFIXES = (".onnx", ".pt2")
OPSET = 20
SAME_IOU = 0.5
# How far an export may be from its model, in pixels and in score.
TOLERANCE: dict[Width, tuple[float, float]] = {
    "fp32": (0.02, 5e-4),
    "fp16": (1.0, 0.02),
    "int8": (float("inf"), 1.0),  # whether that is good enough, AP on your own images says
}
# The share of detections that may be on one side alone: ties at the limit of places, or at the threshold.
UNPAIRED: dict[Width, float] = {"fp32": 0.02, "fp16": 0.1, "int8": 0.5}


@dataclass(frozen=True)
class Comparison:
    """How far what an export finds in an image is from what its model finds.

    Detections of one class whose boxes overlap by more than half are a pair; `missing` and `added` have no
    partner. Of pairs, the largest differences: in pixels, in score, and in pixels of a mask as a share of it.
    """

    detections: int
    missing: int
    added: int
    box_px: float
    score: float
    mask_share: float

    def within(self, precision: Width) -> bool:
        """Whether the precision explains that."""
        box, score = TOLERANCE[precision]
        alone = max(self.missing, self.added) <= max(1, UNPAIRED[precision] * self.detections)
        return alone and self.box_px <= box and self.score <= score

    def __str__(self) -> str:
        return (
            f"{self.detections} detections, {self.missing} missing and {self.added} added; "
            f"largest differences: box {self.box_px:.2g} px, score {self.score:.2g}, "
            f"mask {self.mask_share:.1%} of its pixels"
        )


def export(
    detector: Detector,
    file: Path,
    *,
    image: UInt8[np.ndarray, "H W 3"] | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    precision: Width = "fp32",
    calibration: Sequence[UInt8[np.ndarray, "_ _ 3"]] = (),
) -> Comparison:
    """Writes `file`, after what it finds in `image` was compared with what `detector` finds there.

    Args:
        file: .onnx for ONNX Runtime, .pt2 for `torch.export.load`.
        image: RGB; the first of `calibration` or a generated one by default.
        size: (height, width) of all images that the file will be given, rounded up to multiples of 32; None
            lets an .onnx take any.
        batch: images at a time.
        precision: "fp16" computes the network at half the width; "int8" quantises the convolutions of
            backbone and neck.
        calibration: images that show "int8" the ranges of values.

    Raises:
        GCNetError: a package is missing, the model cannot be written so, or the file finds something else.
    """
    kind = file.suffix
    if kind not in SUFFIXES:
        raise GCNetError(f"{file}: exports end in {', '.join(SUFFIXES)}")
    if precision == "int8" and (kind != ".onnx" or not calibration):
        raise GCNetError(
            "int8 is for .onnx, and needs some of your images to measure ranges on: --calibration"
        )
    if precision == "fp16" and kind == ".pt2":
        raise GCNetError("a .pt2 is fp32: autocast it where it runs, or write a .onnx")
    if kind == ".pt2" and size is None:  # its guards would refuse sides that are multiples of 32
        raise GCNetError("a .pt2 is for images of one size: give --size such as 800x1344")
    if (detector.spec.coordinates, detector.spec.resize) != ("continuous", "opencv"):
        raise GCNetError(
            f"{detector.spec.name} prepares images or places masks by the rules of another library, which an "
            "export does not know: export a model that was trained here or with mmdetection 2 or 3"
        )
    prepare_folder(file.parent)
    if image is None:
        image = calibration[0] if calibration else _blobs()
    fixed = size and padded_size(size)
    spec = detector.spec
    details = Details(spec.name, spec.class_names, spec.image_size, spec.roi.masks, fixed, batch, precision)
    # For files that take every size, one that is not special: no side is a multiple of 32, or the other side.
    example = torch.zeros(batch, 3, *(fixed or (237, 331)), dtype=torch.uint8)
    half = precision == "fp16" and kind == ".onnx"
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".export-") as folder, _quietly():
        draft = Path(folder) / file.name
        program = _trace(
            detector.optimize(precision="fp16" if half else "fp32"), example, fixed=fixed is not None
        )
        if kind == ".pt2":
            torch.export.save(program, draft, extra_files={DETAILS: json.dumps(asdict(details))})
        else:
            _write_onnx(program, draft, details)
        if precision == "int8":
            _quantise(draft, [prepare(one, details)[0] for one in calibration])
        compared = compare(detector, draft, details, image)
        if not compared.within(precision):
            raise GCNetError(f"{file} was not written: it does not find what the model finds ({compared})")
        draft.replace(file)
    return compared


def compare(
    detector: Detector, file: Path, details: Details, image: UInt8[np.ndarray, "H W 3"]
) -> Comparison:
    """What an export finds in an image beside what its model finds."""
    exported = (
        ExportedDetector(details, _load_torch(file)) if file.suffix == ".pt2" else ExportedDetector.load(file)
    )
    if details.size is None:
        exact = detector.predict_images(image)[0].arrays()
    else:  # in the frame that the file has: zeros beside the image are seen by context blocks
        pixels, size = prepare(image, details)
        exact = _in_frame(detector, torch.from_numpy(pixels), image, size)
    return apart(exported.predict_images(image)[0], exact)


@torch.no_grad()
def _in_frame(detector: Detector, pixels: Tensor, image: np.ndarray, size: tuple[int, int]) -> Found:
    outputs = [part.cpu().numpy() for part in _in_order(detector(pixels.to(detector.mean.device)))]
    found = as_found(outputs, 0, (image.shape[0], image.shape[1]), size)
    return found[found.scores > LEAST_SCORE]


def apart(ours: Found, exact: Found) -> Comparison:
    """Pairs the detections of two models on one image."""
    iou = box_iou(torch.from_numpy(exact.boxes), torch.from_numpy(ours.boxes)).numpy()
    iou[exact.labels[:, None] != ours.labels[None]] = 0
    pairs: list[tuple[int, int]] = []
    for index in range(len(exact)):  # best first
        partner = int(iou[index].argmax()) if len(ours) else 0
        if len(ours) and iou[index, partner] > SAME_IOU:
            pairs.append((index, partner))
            iou[:, partner] = 0
    first, second = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    mask_share = 0.0
    if exact.mask_probs is not None and ours.mask_probs is not None and pairs:
        drawn = (_drawn(exact[first]), _drawn(ours[second]))
        different = (drawn[0] ^ drawn[1]).sum((1, 2))
        mask_share = float((different / drawn[0].sum((1, 2)).clip(1)).max())
    return Comparison(
        detections=len(exact),
        missing=len(exact) - len(pairs),
        added=len(ours) - len(pairs),
        box_px=float(np.abs(exact.boxes[first] - ours.boxes[second]).max(initial=0)),
        score=float(np.abs(exact.scores[first] - ours.scores[second]).max(initial=0)),
        mask_share=mask_share,
    )


def _drawn(found: Found) -> np.ndarray:
    assert found.mask_probs is not None
    probs, boxes = torch.from_numpy(found.mask_probs), torch.from_numpy(found.frames)
    return paste_masks(probs, boxes, found.image_size).numpy()


def _blobs() -> UInt8[np.ndarray, "480 640 3"]:
    """Coloured squares, for something to be found; with noise, so that no two places score alike."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (12, 16, 3), dtype=np.uint8).repeat(40, axis=0).repeat(40, axis=1)
    return coarse + rng.integers(0, 56, coarse.shape, dtype=np.uint8)


# How files are made -----------------------------------------------------------------------------------


class _InOrder(torch.nn.Module):
    """The detector with its outputs in the order of `OUTPUTS`."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return _in_order(self.detector(images))


def _in_order(found: PaddedDetections) -> tuple[Tensor, ...]:
    masks = () if found.mask_probs is None else (found.mask_probs,)
    return (found.boxes, found.scores, found.labels, found.valid, *masks)


@torch.no_grad()
def _trace(
    detector: Detector, example: UInt8[Tensor, "N 3 H W"], *, fixed: bool
) -> torch.export.ExportedProgram:
    import torchvision  # noqa: F401  (the shapes of its operators)

    sides = None if fixed else ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    model = _InOrder(detector.cpu()).eval()
    return torch.export.export(model, (example,), strict=False, dynamic_shapes=sides)


def _write_onnx(program: torch.export.ExportedProgram, file: Path, details: Details) -> None:
    needs("onnxscript", "export")
    import onnxscript

    op: Any = onnxscript.opset20

    def sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        # TopK of all: of equal values the lower place comes first, as in a stable sort.
        length = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]), axis=0)
        return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)

    names = [name for name in OUTPUTS if name != "mask_probs" or details.masks]
    model = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=names,
        custom_translation_table={torch.ops.aten.sort.stable: sort},
        verbose=False,
    )
    assert model is not None
    model.model.metadata_props[DETAILS] = json.dumps(asdict(details))
    model.save(file)


def _quantise(file: Path, images: Sequence[UInt8[np.ndarray, "1 3 _h _w"]]) -> None:
    """Convolutions of backbone and neck in 8 bits, by the ranges that their inputs have on the images."""
    quantization = needs("onnxruntime.quantization", "export")
    import onnx

    model = onnx.load(file)
    heads = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and not node.input[1].startswith(("detector.backbone", "detector.neck"))
    ]
    feeds = iter([{"images": image} for image in images])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(feeds, None)

    quantization.quantize_static(
        file, file, Reader(), op_types_to_quantize=["Conv"], nodes_to_exclude=heads, per_channel=True
    )


def _load_torch(file: Path) -> Run:
    module = torch.export.load(file).module()
    return lambda images: [part.numpy() for part in module(torch.from_numpy(images))]


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what exporters tell their own authors."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
