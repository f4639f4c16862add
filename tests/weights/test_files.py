"""Model files: what comes back is what went in, and nothing else comes in."""

from __future__ import annotations

import copy
import json
import math
import os
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import gcnet
from gcnet.context import insert, remove
from gcnet.errors import GCNetError
from gcnet.models.detector import Detector
from gcnet.models.spec import Resize
from gcnet.weights.catalog import find
from gcnet.weights.files import _write, fill_weights, keep_in_file, read_model_file, save_model
from gcnet.weights.load import load_model


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    spec = replace(find("mask_rcnn_tiny_gc4").spec, class_names=("washer", "größe", "screw, flat"))
    return Detector(spec).eval()


def predictions(detector: Detector) -> list[torch.Tensor]:
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    found = detector.predict_images(picture, score_threshold=0.0)[0]
    assert len(found) > 10
    return [found.boxes, found.scores, found.labels, found.mask_probs]


def test_saved_and_loaded_to_the_bit(detector: Detector, tmp_path: Path) -> None:
    save_model(detector, tmp_path / "m.safetensors", provenance={"recipe": "x", "epoch": 3})
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.spec == detector.spec
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(predictions(detector), predictions(loaded), strict=True))
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["provenance"]) == {"recipe": "x", "epoch": 3}


def test_a_path_that_is_no_utf_8(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"mod\xe8le.safetensors")
    save_model(detector, path)
    keep_in_file(path, epoch=3)
    assert load_model(path).provenance == {"epoch": 3}


def test_provenance_goes_along_and_is_added_to(detector: Detector, tmp_path: Path) -> None:
    save_model(detector, tmp_path / "a.safetensors", provenance={"file": "old.pth", "epoch": 12})
    loaded = load_model(tmp_path / "a.safetensors")
    save_model(loaded, tmp_path / "b.safetensors", provenance={"epoch": 13})
    info = read_model_file(tmp_path / "b.safetensors")
    assert info.provenance == {"file": "old.pth", "epoch": 13}
    assert info.spec == detector.spec
    assert json.loads(info.metadata["versions"]) == {"gcnet": gcnet.__version__, "torch": torch.__version__}


@pytest.mark.parametrize("rule", ["opencv", "torchvision", "pillow"])
def test_preprocessing_is_written_so_that_others_can_do_it(
    rule: Resize, detector: Detector, tmp_path: Path
) -> None:
    """From the words of the file alone: the same input as ours."""
    detector = Detector(replace(detector.spec, resize=rule)).eval()
    save_model(detector, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        words = json.loads(file.metadata()["preprocessing"])
    picture = np.random.default_rng(0).integers(0, 256, (190, 257, 3), dtype=np.uint8)
    fit, interpolation = words["resize"]["fit"], words["resize"]["interpolation"]
    scale = min(fit["long_side"] / max(picture.shape[:2]), fit["short_side"] / min(picture.shape[:2]))
    half = 0.5 if words["resize"]["new_side"] == "floor(side * scale + 0.5)" else 0.0
    height, width = (int(side * scale + half) for side in picture.shape[:2])
    if "Pillow's BILINEAR" in interpolation:
        pixels = np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
    else:
        source = picture.astype(np.float32) if "32-bit floats" in interpolation else picture
        pixels = cv2.resize(source, (width, height), interpolation=cv2.INTER_LINEAR)
    values = (pixels - np.array(words["normalise"]["mean"])) / np.array(words["normalise"]["std"])
    rows, columns = (-side % words["pad"]["multiple"] for side in (height, width))
    expected = np.pad(values, ((0, rows), (0, columns), (0, 0))).transpose(2, 0, 1)

    seen = []
    detector.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    detector.predict_images(picture)
    torch.testing.assert_close(seen[0].double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_channels_last_models_are_saved(detector: Detector, tmp_path: Path) -> None:
    copy = Detector(detector.spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    copy.load_state_dict(detector.state_dict())
    save_model(copy, tmp_path / "m.safetensors")
    state = load_model(tmp_path / "m.safetensors").state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in detector.state_dict().items())


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_save_leaves_the_old_file(
    failing: str, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    save_model(detector, path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(detector, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_not_there(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"nowhere"):
        save_model(detector, tmp_path / "nowhere" / "m.safetensors")


def test_inserted_blocks_that_the_spec_does_not_describe(detector: Detector, tmp_path: Path) -> None:
    model = copy.deepcopy(detector)
    insert(model, "gc", options={"ratio": 1 / 4}, where="backbone.layer4", position="output", name="extra")
    with pytest.raises(GCNetError, match=r"inserted \(backbone.layer4.extra\), so .* add_context="):
        save_model(model, tmp_path / "m.safetensors")
    with pytest.raises(GCNetError, match="does not describe"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    remove(model)
    save_model(model, tmp_path / "m.safetensors")


def test_files_that_are_not_ours(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(GCNetError, match=r"no such file or folder: .*m\.safetensors"):
        load_model(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(GCNetError, match="holds another kind of model"):
        load_model(path)
    save_file({"weight": torch.zeros(2)}, path, {"format": "gcnet", "format_version": "2", "spec": "{}"})
    with pytest.raises(GCNetError, match="has format 2 and this gcnet reads up to 1: update gcnet"):
        load_model(path)
    save_file({"weight": torch.zeros(2)}, path, {"format": "gcnet", "spec": "{"})
    with pytest.raises(GCNetError, match="damaged"):
        load_model(path)
    path.write_text("not weights")
    with pytest.raises(GCNetError, match="damaged or not a safetensors file"):
        load_model(path)
    save_model(detector, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GCNetError, match="damaged"):
        load_model(path)


SHAPES = {
    "vector": ((5,), [(5,), (1, 5), (1, 5, 1, 1), (5, 1, 1)], [(4,), (5, 5), (5, 1, 5), (2, 5), ()]),
    "matrix": ((3, 5), [(3, 5), (3, 5, 1, 1)], [(5, 3), (15,), (3, 5, 3, 3), (3, 5, 1, 2), (3, 1, 5)]),
    "one output": ((1, 5), [(1, 5), (1, 5, 1, 1)], [(5,), (5, 1)]),
    "one input": ((5, 1), [(5, 1), (5, 1, 1, 1)], [(1, 5), (5,)]),
    "one": ((1,), [(1,), (1, 1), (1, 1, 1, 1)], [(), (2,)]),
    "scalar": ((), [(), (1,)], [(2,)]),
    "convolution": ((4, 3, 1, 1), [(4, 3, 1, 1)], [(4, 3), (3, 4, 1, 1), (4, 3, 3, 3), (4, 3, 1)]),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_which_shapes_fit(kind: str) -> None:
    shape, fitting, wrong = SHAPES[kind]
    holder = nn.Module()
    holder.weight = nn.Parameter(torch.zeros(shape))
    values = torch.arange(1.0, holder.weight.numel() + 1)
    for other in fitting:
        fill_weights(holder, {"weight": values.reshape(other)}, source="x")
        assert torch.equal(holder.weight.detach(), values.reshape(shape)), other
        nn.init.zeros_(holder.weight)
    for other in wrong:
        with pytest.raises(GCNetError, match=r"weight is .* there and .* here"):
            fill_weights(holder, {"weight": torch.ones(other)}, source="x")
        assert not holder.weight.any()


def test_what_does_not_fit_is_listed_and_nothing_is_copied() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    tensors = {"weight": torch.ones(2, 3)} | {f"extra{i}": torch.zeros(1) for i in range(20)}
    with pytest.raises(GCNetError) as raised:
        fill_weights(layer, tensors, source="file.pth")
    message = str(raised.value)
    assert message.startswith(
        "file.pth does not fit this model (tensors: 1 missing, 20 unexpected): missing bias; unexpected "
    )
    assert message.count("unexpected extra") == 2
    assert message.endswith("and 18 more")
    assert "\n" not in message
    assert torch.equal(layer.weight, before)


def test_batch_counts_may_be_missing() -> None:
    norm = nn.BatchNorm2d(4)
    state = {name: t + 1 for name, t in norm.state_dict().items() if name != "num_batches_tracked"}
    fill_weights(norm, state, source="x")
    assert norm.weight[0] == 2


# --- hostile files ----------------------------------------------------------------------------------------


def changed(spec: dict[str, Any], where: str, value: object) -> dict[str, Any]:
    """The spec with one field changed, `a.b` for field b of part a."""
    *parts, name = where.split(".")
    inner = spec = json.loads(json.dumps(spec))
    for part in parts:
        inner = inner[part]
    inner[name] = value
    return spec


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("backbone", "resnet"),
        ("backbone", None),
        ("backbone", [[]]),
        ("backbone.base_channels", "16"),
        ("backbone.base_channels", 16.0),
        ("backbone.base_channels", True),
        ("backbone.base_channels", -16),
        ("backbone.base_channels", 10**9),
        ("backbone.base_channels", 10**400),
        ("backbone.base_channels", 2**16),
        ("backbone.groups", 0),
        ("backbone.groups", 7),
        ("backbone.blocks", [1, 1, 1]),
        ("backbone.blocks", [1, 1, 1, 10**6]),
        ("backbone.blocks", [200, 200, 200, 200]),
        ("backbone.blocks", "1111"),
        ("backbone.norm", "layer"),
        ("backbone.context.ratio", math.nan),
        ("backbone.context.ratio", 0.0),
        ("backbone.context.ratio", 1e30),
        ("backbone.context.block", "eca"),
        ("backbone.context.fusion", ["multiply"]),
        ("rpn.nms_threshold", -1.0),
        ("rpn.pre_nms_test", 0),
        ("roi.box_channels", 99_999),
        ("roi.detections", "100"),
        ("roi.sampling", 100),  # of each cell: 490 million points of an image's regions
        ("roi.aggregate", {"kernel": 4}),
        ("backbone.scales", 100),
        ("backbone.widths", [8, 16]),
        ("image_size", [0, 0]),
        ("image_size", [10**7, 10]),
        ("image_std", [1.0, 0.0, 1.0]),
        ("image_mean", [math.inf, 0.0, 0.0]),
        ("class_names", "washer"),
        ("class_names", [1, 2, 3]),
        ("class_names", ["x" * 10**6, "a", "b"]),
        ("name", ["m"]),
        ("unknown", 1),
    ],
)
def test_hostile_specs_are_one_line(where: str, value: object, detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}
    spec = changed(asdict(detector.spec), where, value)
    save_file(tensors, path, {"format": "gcnet", "spec": json.dumps(spec)})
    with pytest.raises(GCNetError, match=r"m\.safetensors") as raised:
        load_model(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_metadata_of_other_shapes_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    deep = "[" * 100_000 + "]" * 100_000
    for field, text in (("spec", deep), ("spec", "[]"), ("spec", "1"), ("format_version", "x")):
        save_file({"w": torch.zeros(1)}, path, {"format": "gcnet", "spec": "{}", field: text})
        with pytest.raises(GCNetError, match=r"m\.safetensors") as raised:
            load_model(path)
        assert "\n" not in str(raised.value)


def test_a_model_is_written_tensor_by_tensor_without_a_second_copy(tmp_path: Path) -> None:
    layer = nn.Linear(1000, 1000)
    tensors = {
        "b.half": torch.arange(3.0).half(),
        "a.count": torch.tensor(7),
        "c.none": torch.zeros(0, 2),
        "d.flag": torch.tensor([True, False]),
        "e.across": layer.weight.detach().t(),
        "f.bf16": torch.ones(3, dtype=torch.bfloat16),
    }
    tracemalloc.start()
    with open(tmp_path / "x.safetensors", "wb") as file:
        _write(file, tensors, {"format": "gcnet"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # the matrix alone has four
    again = load_file(tmp_path / "x.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    assert all(again[name].dtype == tensor.dtype for name, tensor in tensors.items())
    data = (tmp_path / "x.safetensors").read_bytes()
    assert int.from_bytes(data[:8], "little") % 8 == 0  # and with it the place of each number


def test_tensors_that_are_taken_share_no_memory() -> None:
    module = nn.ModuleList([nn.Linear(2, 2, bias=False) for _ in range(4)])
    whole, shared = torch.ones(2, 2), torch.ones(2, 2)
    tensors = {
        "0.weight": whole,
        "1.weight": shared,
        "2.weight": shared,
        "3.weight": torch.ones(1).expand(2, 2),
    }
    fill_weights(module, tensors, source="x", take=True)
    assert module[0].weight.data_ptr() == whole.data_ptr()
    with torch.no_grad():
        for number, layer in enumerate(module):
            layer.weight[0, 0] = number + 2.0
    assert [layer.weight.tolist() for layer in module] == [[[n + 2.0, 1], [1, 1]] for n in range(4)]
    assert all(layer.weight.requires_grad for layer in module)
