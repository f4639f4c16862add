"""Writes programs of `torch.export` as ONNX files, adds a resize, and quantises convolutions to 8 bits.

H x W pixels of the image as it is given, h x w after the resize, D rows of detections.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gcnet.deploy.runtime import DETAILS, Details, told
from gcnet.errors import GCNetError, needs

OPSET = 20
QUANTISED = {"backbone", "neck"}  # parts whose convolutions are computed in 8 bits


def write_onnx(program: torch.export.ExportedProgram, file: Path, details: Details) -> None:
    """Writes a program with the outputs of `details`, and before it a resize if `details` has one."""
    import onnxscript

    op: Any = onnxscript.opset20

    def sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        # TopK of all: of equal values the lower place comes first, as in a stable sort.
        length = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]), axis=0)
        return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)

    resizes = details.resizes and details.size is None
    given = ["images", "factors", "limits"] if resizes else ["image" if details.resizes else "images"]
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=given,
        output_names=list(details.outputs),
        custom_translation_table={torch.ops.aten.sort.stable: sort},
        verbose=False,
    )
    assert exported is not None
    suit_openvino(exported.model.graph)
    exported.model.metadata_props[DETAILS] = json.dumps(asdict(details))
    exported.save(file)
    if resizes:
        put_resize_before(file, details)


def suit_openvino(graph: Any) -> None:
    """Replaces casts to bool by comparisons with zero, which are equal and which OpenVINO takes.

    OpenVINO 2026.4 cannot compile such a cast of one of several outputs ("Default output not supported"):
    those of a Split, or of two Slices that it makes a Split of.
    """
    import onnx_ir as ir

    for node in list(graph):
        if node.op_type != "Cast" or node.attributes["to"].as_int() != ir.DataType.BOOL:
            continue
        numbers, name = node.inputs[0], node.outputs[0].name
        if numbers.dtype in (None, ir.DataType.BOOL):
            continue
        zero = ir.Value(name=f"{name}_zero")
        zero.const_value = ir.tensor(np.zeros((), numbers.dtype.numpy()), name=zero.name)
        graph.register_initializer(zero)
        equal = ir.node("Equal", [numbers, zero])
        differs = ir.node("Not", [equal.outputs[0]])
        equal.outputs[0].name, differs.outputs[0].name = f"{name}_equal", f"{name}_differs"
        graph.insert_before(node, [equal, differs])
        node.replace_input_with(0, differs.outputs[0])


# Sizes are computed in double, as `fit_size` does; "half" is what is added before they are cut.
# No bare constant is divided by a side: OpenVINO 2026.4 takes the inverse of that. Nor are sides chosen by
# `Where`, after which ONNX Runtime 1.20 finds no sizes.
RESIZE = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
resize (uint8[H, W, 3] image) => ({kind}[1, 3, h, w] fitted_image, float[4] factors, float[4] limits) {{
    long = Constant <value = double {{{long}.0}}> ()
    short = Constant <value = double {{{short}.0}}> ()
    half = Constant <value = double {{{half}}}> ()
    least = Constant <value = double {{1.0}}> ()
    zero = Constant <value = double {{0.0}}> ()
    before = Constant <value = int64[2] {{1, 3}}> ()
    first = Constant <value = int64[1] {{0}}> ()
    across_down = Constant <value = int64[4] {{1, 0, 1, 0}}> ()
    shape = Shape <start = 0, end = 2> (image)
    size = Cast <to = 11> (shape)
    longest = ReduceMax <keepdims = 0> (size)
    shortest = ReduceMin <keepdims = 0> (size)
    nothing = Mul (longest, zero)
    most_long = Add (long, nothing)
    most_short = Add (short, nothing)
    by_long = Div (most_long, longest)
    by_short = Div (most_short, shortest)
    scale = Min (by_long, by_short)
    scaled = Mul (size, scale)
    raised = Add (scaled, half)
    whole = Floor (raised)
    fitted = Max (whole, least)
    fitted_int = Cast <to = 7> (fitted)
    sizes = Concat <axis = 0> (before, fitted_int)
    planes = Transpose <perm = [2, 0, 1]> (image)
    one = Unsqueeze (planes, first)
    values = Cast <to = 1> (one)
    resized = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel", antialias = {antialias}>
        (values, , , sizes)
    {finish}
    grown = Div (fitted, size)
    both = Gather <axis = 0> (grown, across_down)
    factors = Cast <to = 1> (both)
    ends = Gather <axis = 0> (size, across_down)
    limits = Cast <to = 1> (ends)
}}
"""
ROUNDED = "rounded = Round (resized)\n    fitted_image = Cast <to = 2> (rounded)"


def put_resize_before(file: Path, details: Details) -> None:
    """Makes a file that takes images, factors and limits take an image as it is, H x W x 3 uint8."""
    import onnx
    from onnx import compose, parser

    network = onnx.load(file)
    whole = details.resize == "torchvision"  # which rounds neither sizes nor pixels
    text = RESIZE.format(
        ir=network.ir_version,
        opset=OPSET,
        kind="float" if whole else "uint8",
        long=max(details.image_size),
        short=min(details.image_size),
        half=0.0 if whole else 0.5,
        antialias=int(details.resize == "pillow"),
        finish="fitted_image = Identity (resized)" if whole else ROUNDED,
    )
    names = [("fitted_image", "images"), ("factors", "factors"), ("limits", "limits")]
    merged = compose.merge_models(parser.parse_model(text), network, io_map=names, prefix1="resize/")
    del merged.opset_import[:]  # both models' sets: a file that names one twice cannot be quantised
    merged.opset_import.extend(network.opset_import)
    merged.graph.input[0].name = "image"
    for node in merged.graph.node:
        node.input[:] = ["image" if name == "resize/image" else name for name in node.input]
    onnx.save(merged, file)


def quantise(file: Path, images: Sequence[np.ndarray]) -> None:
    """Makes convolutions of backbone and neck 8 bits wide, with ranges measured on the images."""
    quantization = needs("onnxruntime.quantization", "export")
    import onnx

    model = onnx.load(file)
    heads = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and not QUANTISED & set(node.input[1].split("."))
    ]
    given = model.graph.input[0].name
    feeds = iter([{given: image} for image in images])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(feeds, None)

    with told("ONNX Runtime cannot quantise the model"):
        quantization.quantize_static(
            model,  # of a file it would write others beside it, and not say that the disk is full
            file,
            Reader(),
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=heads,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,  # a ReLU leaves nothing below zero
        )


def write_openvino(graph: Path, file: Path, details: Details) -> None:
    """Writes an ONNX file as OpenVINO's .xml, and the weights as a .bin beside it."""
    openvino = needs("openvino", "openvino")
    try:
        model = openvino.convert_model(graph)
    except Exception as error:  # its kinds have no common base
        reasons = [line for line in str(error).splitlines() if line.startswith("-- ")]
        raise GCNetError(f"OpenVINO cannot take {details.name} ({' '.join(reasons)[:200]})") from None
    model.set_rt_info(json.dumps(asdict(details)), DETAILS)
    with told(f"OpenVINO cannot write {file.name}; is the disk full?"):
        openvino.save_model(model, file, compress_to_fp16=details.precision == "fp16")
