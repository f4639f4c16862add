"""What is changed in ONNX files, on graphs of a few nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest

from gcnet.deploy.onnx_files import put_resize_before, suit_openvino
from gcnet.deploy.runtime import Details
from gcnet.models.spec import Resize
from gcnet.ops.images import fit_size, resize_image

NETWORK = """
<ir_version: 10, opset_import: ["" : 20]>
network ({kind}[1, 3, h, w] images, float[4] factors, float[4] limits)
    => ({kind}[1, 3, h, w] seen, float[4] x_y, float[4] ends) {{
    seen = Identity (images)
    x_y = Identity (factors)
    ends = Identity (limits)
}}
"""
REGIONS = """
<ir_version: 10, opset_import: ["" : 20]>
network (float[6, 5] regions) => (float[6, 4] boxes, float[6, 1] images) {
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    far = Constant <value = int64[1] {9223372036854775807}> ()
    all = Constant <value = int64[1] {6}> ()
    later = Slice (regions, one, far, one, one)
    first = Slice (regions, zero, one, one, one)
    whole = Split <axis = 0> (later, all)
    images = Identity (first)
    boxes = Identity (whole)
}
"""


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize("rule", ["opencv", "pillow", "torchvision"])
def test_a_resize_before_the_network(rule: Resize, tmp_path: Path) -> None:
    file = tmp_path / "network.onnx"
    kind = "float" if rule == "torchvision" else "uint8"
    onnx.save(onnx.parser.parse_model(NETWORK.format(kind=kind)), file)
    put_resize_before(file, Details("tiny", ("a",), (160, 96), masks=False, resize=rule, resizes=True))
    merged = onnx.load(file)
    rng = np.random.default_rng(0)
    for height, width in ((50, 100), (333, 500), (97, 31), (1, 400), (240, 321)):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        seen, factors, limits = run(merged, image=image)
        fitted = fit_size((height, width), (160, 96), rule)
        assert seen.shape == (1, 3, *fitted)
        np.testing.assert_allclose(factors, [fitted[1] / width, fitted[0] / height] * 2, rtol=1e-6)
        assert limits.tolist() == [width, height, width, height]
        exact = resize_image(image, fitted, rule).transpose(2, 0, 1)
        apart = np.abs(seen[0].astype(float) - exact)
        # ONNX Runtime 1.32 leaves out the outermost pixel of some antialiased windows, as of no other.
        assert (apart > (1 if rule != "torchvision" else 1e-2)).mean() < (0.04 if rule == "pillow" else 1e-9)
        assert apart.max() < 16
        assert (apart > 0.5).mean() < 0.25


def test_what_openvino_cannot_compile_is_written_otherwise() -> None:
    model = onnx.parser.parse_model(REGIONS)
    regions = np.random.default_rng(0).random((6, 5)).astype(np.float32)
    before = run(model, regions=regions)
    changed = onnx_ir.from_proto(model)
    for value in [node.outputs[0] for node in changed.graph if node.op_type == "Constant"]:
        value.const_value = onnx_ir.tensor(value.producer().attributes["value"].value.numpy())
    suit_openvino(changed.graph)
    after = onnx_ir.to_proto(changed)
    assert {node.op_type for node in after.graph.node} == {"Constant", "Gather", "Identity"}
    for ours, exact in zip(run(after, regions=regions), before, strict=True):
        np.testing.assert_array_equal(ours, exact)
