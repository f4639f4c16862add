"""What is changed in ONNX files, on graphs of a few nodes."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest

from gcnet.deploy.onnx_files import put_resize_before, quantise, suit_openvino
from gcnet.deploy.runtime import Details
from gcnet.errors import GCNetError
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
SPLIT = """
<ir_version: 10, opset_import: ["" : 20]>
network (float[6, 4] boxes) => (bool[3, 4] first, bool[3, 4] second, bool[3, 4] itself) {
    halves = Constant <value = int64[2] {3, 3}> ()
    one, other = Split <axis = 0> (boxes, halves)
    first = Cast <to = 9> (one)
    second = Cast <to = 9> (other)
    itself = Cast <to = 9> (first)
}
"""


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def resized_network(rule: Resize, folder: Path) -> Path:
    file = folder / "network.onnx"
    kind = "float" if rule == "torchvision" else "uint8"
    onnx.save(onnx.parser.parse_model(NETWORK.format(kind=kind)), file)
    put_resize_before(file, Details("tiny", ("a",), (160, 96), masks=False, resize=rule, resizes=True))
    return file


@pytest.mark.parametrize("rule", ["opencv", "pillow", "torchvision"])
def test_a_resize_before_the_network(rule: Resize, tmp_path: Path) -> None:
    merged = onnx.load(resized_network(rule, tmp_path))
    assert len(merged.opset_import) == 1  # else it cannot be quantised
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


@pytest.mark.parametrize("rule", ["opencv", "pillow", "torchvision"])
def test_openvino_resizes_to_the_same_size(rule: Resize, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(resized_network(rule, tmp_path), "CPU")
    for height, width in ((50, 100), (333, 500), (97, 31), (240, 321)):
        image = np.full((height, width, 3), 7, np.uint8)
        seen, factors, limits = compiled.create_infer_request().infer([image]).to_tuple()
        fitted = fit_size((height, width), (160, 96), rule)
        assert seen.shape == (1, 3, *fitted)
        np.testing.assert_allclose(factors, [fitted[1] / width, fitted[0] / height] * 2, rtol=1e-5)
        assert limits.tolist() == [width, height, width, height]
        np.testing.assert_allclose(seen, 7, atol=1e-4)


def test_openvino_compiles_truth_values_of_a_split(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    file, model = tmp_path / "network.onnx", onnx.parser.parse_model(SPLIT)
    boxes = np.random.default_rng(0).integers(-1, 2, (6, 4)).astype(np.float32)
    boxes[0, 0] = np.nan
    changed = onnx_ir.from_proto(onnx.shape_inference.infer_shapes(model))
    suit_openvino(changed.graph)
    onnx_ir.save(changed, file)
    ours = onnx.load(file)
    onnx.checker.check_model(ours, full_check=True)
    exact = run(model, boxes=boxes)
    assert exact[0].any()
    assert not exact[0].all()
    compiled = openvino.Core().compile_model(file, "CPU")([boxes])
    for place, expected in enumerate(exact):
        np.testing.assert_array_equal(run(ours, boxes=boxes)[place], expected)
        np.testing.assert_array_equal(compiled[place], expected)


def test_a_full_disk_while_quantising_is_told(tmp_path: Path) -> None:
    file = tmp_path / "network.onnx"
    onnx.save(onnx.parser.parse_model(NETWORK.format(kind="float")), file)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(GCNetError, match="File too large"):
            quantise(file, [np.zeros((1, 3, 8, 8), np.float32)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
