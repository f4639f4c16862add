"""Writes a model as a file for another runtime: ONNX, OpenVINO, or `torch.export`'s own.

The file contains the whole prediction (`Detector.forward`): its input is uint8 pixels, its outputs are boxes,
scores, labels and masks in a fixed number of rows, of which `valid` says which count. Before the file gets
its name, it is run on an image and compared with the model. N images of H x W pixels, D rows.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from gcnet.deploy.comparing import ClassComparison, Comparison, Width, compare
from gcnet.deploy.onnx_files import quantise, write_onnx, write_openvino
from gcnet.deploy.programs import Probabilities, Program, ResizedProgram
from gcnet.deploy.runtime import DETAILS, Details, Exported, exported, load_export, prepare
from gcnet.errors import GCNetError, needs
from gcnet.files import disk_errors, draft_folder, prepare_folder, put_in_place, write_atomically
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.layers import DeformableConv2d
from gcnet.models.spec import ClassifierSpec
from gcnet.ops.images import middle_square, padded_size

# By the ends of files: the packages that write them, and the extras of ours that bring these.
PACKAGES = {
    ".onnx": {"onnxscript": "export", "onnxruntime": "export"},
    ".xml": {"onnxscript": "export", "openvino": "openvino"},
    ".pt2": {},
}


def export(
    model: Detector | Classifier,
    file: Path,
    *,
    image: UInt8[np.ndarray, "H W 3"] | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    precision: Width = "fp32",
    calibration: Sequence[UInt8[np.ndarray, "_ _ 3"]] = (),
    with_resize: bool = False,
) -> Comparison | ClassComparison:
    """Writes `file`, after comparing its results on `image` with those of `model`.

    Args:
        file: .onnx for ONNX Runtime, .xml (and a .bin beside it) for OpenVINO, .pt2 for `torch.export.load`.
        image: RGB; the first of `calibration` or a generated one by default.
        size: (height, width) of all images that a detector's file will be given, rounded up to multiples of
            32 unless it resizes; None lets all but a .pt2 take any.
        batch: images at a time.
        precision: "fp16" computes the network at half the width; "int8" quantises the convolutions of
            backbone and neck.
        calibration: images that show "int8" the ranges of values.
        with_resize: the file takes an image as it is, H x W x 3, and gives boxes in its pixels.

    Raises:
        GCNetError: a package is missing, the model cannot be written so, or the file finds something else.
    """
    _check_packages(file)
    details = _details(model, size, batch, precision, with_resize)
    if reason := _why_not(model, file.suffix, details, calibrated=bool(calibration)):
        raise GCNetError(reason)
    prepare_folder(file.parent)
    if image is None:
        # As large as the file takes it: in padding beside an image many boxes are alike, and rounding tells
        # which of them suppress others.
        image = calibration[0] if calibration else _blobs(details.size or (480, 640))
    with draft_folder(file.parent) as folder, _quietly(), disk_errors(file):
        draft = folder / file.name
        program = _trace(model, details, half=precision == "fp16" and file.suffix == ".onnx")
        _forget_sources(program)
        if file.suffix == ".pt2":
            said = {DETAILS: json.dumps(asdict(details))}
            write_atomically(draft, lambda opened: torch.export.save(program, opened, extra_files=said))
        else:
            graph = draft.with_suffix(".onnx")
            write_onnx(program, graph, details)
            if precision == "int8":
                quantise(graph, [_given(one, details) for one in calibration])
            if file.suffix == ".xml":
                write_openvino(graph, draft, details)
        compared = compare(model, _load(draft), image)
        # OpenVINO computes in bfloat16 where it may: of that, too, your own images tell whether it will do.
        width = "int8" if file.suffix == ".xml" and precision == "fp16" else precision
        if not compared.within(width, resizes=with_resize):
            raise GCNetError(f"{file} was not written: it does not find what the model finds ({compared})")
        for made in (draft.with_suffix(".bin"), draft):
            if made.exists():
                put_in_place(made, file.with_suffix(made.suffix))
    return compared


def _check_packages(file: Path) -> None:
    """Raises GCNetError for another kind of file, or a missing package, before minutes of work."""
    if file.suffix not in PACKAGES:
        raise GCNetError(f"{file}: exports end in {', '.join(PACKAGES)}")
    for package, extra in PACKAGES[file.suffix].items():
        needs(package, extra)


def _why_not(model: Detector | Classifier, kind: str, details: Details, *, calibrated: bool) -> str:
    """Why a model cannot be written so; empty if it can."""
    name, precision = details.name, details.precision
    if precision == "int8" and (kind == ".pt2" or not calibrated):
        return "int8 is for .onnx and .xml, and needs some of your images to measure ranges on: --calibration"
    if precision == "fp16" and kind == ".pt2":
        return "a .pt2 is fp32: autocast it where it runs, or write a .onnx"
    if details.resizes and details.batch > 1:
        return "a file that resizes takes one image at a time: leave out --batch-size"
    if isinstance(model, Classifier):
        if details.size is not None or details.resizes:
            squares = f"its file takes squares of {model.spec.image_size[1]} pixels"
            return f"{name} is a classifier: {squares}, so leave out --size and --with-resize"
        if precision == "fp16" and kind == ".onnx":
            return "a classifier's .onnx is fp32 or int8: fp16 is for .xml"
    elif kind == ".xml" and any(isinstance(part, DeformableConv2d) for part in model.modules()):
        return f"{name} has deformable convolutions, which OpenVINO has no rule for: write a .onnx"
    elif kind == ".xml" and model.spec.roi.soft_nms:
        return f"{name} has soft NMS, which OpenVINO cannot read: write a .onnx"
    elif kind == ".pt2" and details.size is None:  # its guards would refuse sides that are multiples of 32
        return "a .pt2 is for images of one size: give --size such as 800x1344"
    return ""


def _details(
    model: Detector | Classifier, size: tuple[int, int] | None, batch: int, precision: Width, resizes: bool
) -> Details:
    spec = model.spec
    details = Details(
        spec.name,
        spec.class_names,
        (spec.image_size[0], spec.image_size[1]),
        masks=False,
        size=size,
        batch=batch,
        precision=precision,
        resizes=resizes,
        provenance=model.provenance,
    )
    if isinstance(spec, ClassifierSpec):
        return replace(details, kind="classifier")
    return replace(
        details,
        masks=spec.roi.masks,
        size=size if size is None or resizes else padded_size(size),
        resize=spec.resize,
        coordinates=spec.coordinates,
        detections=spec.roi.detections,
        image_mean=spec.image_mean,
    )


def _given(image: UInt8[np.ndarray, "H W 3"], details: Details) -> np.ndarray:
    """An image as the input of a file."""
    if details.kind == "classifier":
        pixels = middle_square(image, details.image_size).transpose(2, 0, 1)[None]
    else:
        pixels = prepare(image, details).images
    return pixels if details.resizes else np.repeat(pixels, details.batch, axis=0)


def _blobs(size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Coloured squares, so that something is found; with noise, so that no two scores are equal."""
    height, width = size
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (-(-height // 40), -(-width // 40), 3), dtype=np.uint8)
    squares = coarse.repeat(40, axis=0).repeat(40, axis=1)[:height, :width]
    return squares + rng.integers(0, 56, squares.shape, dtype=np.uint8)


# How files are made -----------------------------------------------------------------------------------


@torch.no_grad()
def _trace(model: Detector | Classifier, details: Details, *, half: bool) -> torch.export.ExportedProgram:
    import torchvision  # noqa: F401  (the shapes of its operators)

    if isinstance(model, Classifier):
        side = details.image_size[1]
        squares = torch.zeros(details.batch, 3, side, side, dtype=torch.uint8)
        program = Probabilities(copy.deepcopy(model).cpu()).eval().requires_grad_(False)
        return torch.export.export(program, (squares,), strict=False)
    detector = model.optimize(precision="fp16" if half else "fp32").cpu()
    if details.resizes and details.size is not None:
        image = torch.zeros(*details.size, 3, dtype=torch.uint8)
        return torch.export.export(ResizedProgram(detector, details.size).eval(), (image,), strict=False)
    # For files that take every size, one that is not special: no side is a multiple of 32, or the other side.
    size, sides = details.size, None
    if size is None:
        size, sides = (237, 331), {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    dtype = torch.float32 if details.resize == "torchvision" else torch.uint8
    example: tuple[Tensor, ...] = (torch.zeros(details.batch, 3, *size, dtype=dtype),)
    if details.resizes:
        example = (*example, torch.ones(4), torch.full((4,), 1e9))
    shapes = None if sides is None else (sides, *[None for _ in example[1:]])
    return torch.export.export(Program(detector).eval(), example, strict=False, dynamic_shapes=shapes)


def _forget_sources(program: torch.export.ExportedProgram) -> None:
    """Removes where in which folder of this machine each operation was called: files are for others."""
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)


def _load(file: Path) -> Exported:
    if file.suffix != ".pt2":
        return load_export(file)
    extra = {DETAILS: ""}
    module = torch.export.load(file, extra_files=extra).module()
    details = Details.parse(extra[DETAILS], file)
    return exported(details, lambda images: [part.numpy() for part in module(torch.from_numpy(images))])


@contextmanager
def _quietly() -> Iterator[None]:
    """Hides messages of exporters that are meant for their own authors."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)
