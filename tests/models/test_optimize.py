"""Optimised detectors find what the plain ones do."""

from __future__ import annotations

import copy
import inspect
import io
from dataclasses import replace

import pytest
import torch

from gcnet.context import insert, record
from gcnet.context.insertion import inserted_blocks
from gcnet.errors import GCNetError
from gcnet.lab.subjects import busy_detector, random_batch
from gcnet.models.detector import Detector
from gcnet.models.fused import optimize
from gcnet.models.modes import in_eval_mode
from gcnet.models.packed import FusedConv, PackedLinear
from gcnet.models.spec import CascadeSpec, Precision
from gcnet.types import Detections
from gcnet.weights.catalog import find_detector
from gcnet.weights.files import save_model

BATCH = random_batch(2, (96, 128))


def assert_alike(ours: list[Detections], plain: list[Detections]) -> None:
    for a, b in zip(ours, plain, strict=True):
        assert len(a) == len(b) > 10
        torch.testing.assert_close(a.boxes, b.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
        assert a.labels.equal(b.labels)
        torch.testing.assert_close(a.mask_probs, b.mask_probs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "mask_rcnn_tiny_gc4"])
def test_same_detections(name):
    detector = busy_detector(name)
    assert_alike(detector.optimize().predict(BATCH), detector.predict(BATCH))


def test_same_detections_of_a_cascade():
    torch.manual_seed(0)
    spec = replace(find_detector("mask_rcnn_tiny_gc4").spec, cascade=CascadeSpec())
    detector = Detector(spec).eval()
    for head in detector.roi_heads.box_stages:
        torch.nn.init.normal_(head.cls.weight, std=0.5)
    assert_alike(detector.optimize().predict(BATCH), detector.predict(BATCH))


def test_group_norm_stays_as_it_is():
    spec = find_detector("mask_rcnn_tiny").spec
    detector = Detector(replace(spec, backbone=replace(spec.backbone, norm="group"))).eval()
    fast = detector.optimize()
    assert type(fast.backbone) is type(detector.backbone)
    assert fast.predict(BATCH)[0].boxes.allclose(detector.predict(BATCH)[0].boxes, atol=1e-3)


def test_the_original_is_untouched():
    detector = busy_detector("mask_rcnn_tiny_gc4").train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    detector.optimize().predict(BATCH)
    assert detector.training
    assert all(p.requires_grad for p in detector.roi_heads.parameters())
    assert all(before[name].equal(tensor) for name, tensor in detector.state_dict().items())


def test_bfloat16_is_near():
    """Scores in the third digit; which of two near-equal detections survives may change, so compare maps."""
    detector: Detector = busy_detector("mask_rcnn_tiny_gc4")
    fast = detector.optimize(precision="bf16")
    for ours, plain in zip(fast.features(BATCH), detector.features(BATCH), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - plain).norm() < 0.03 * plain.norm()
    found = fast.predict(BATCH)[0]
    assert len(found) > 10
    assert found.boxes.dtype == found.scores.dtype == found.mask_probs.dtype == torch.float32


def test_autocast_around_a_copy_does_what_it_does_around_its_model() -> None:
    detector = busy_detector("mask_rcnn_tiny_gc4")
    fast = detector.optimize()
    before = fast.predict(BATCH)
    with torch.autocast("cpu", torch.bfloat16):
        found = fast.predict(BATCH)
    for rounded, exact, after in zip(found, before, fast.predict(BATCH), strict=True):
        assert len(rounded) > 10
        torch.testing.assert_close(rounded.scores[:5], exact.scores[:5], atol=0.05, rtol=0)
        assert not rounded.scores.equal(exact.scores)
        assert after.scores.equal(exact.scores)


def test_what_says_what_and_where_is_not_rounded():
    detector = busy_detector("mask_rcnn_tiny_gc4")
    fast = detector.optimize(precision="bf16")
    for name in ("roi_heads.box_head.cls", "roi_heads.box_head.deltas"):
        assert fast.get_parameter(f"{name}.layer.weight").equal(detector.get_parameter(f"{name}.weight"))
    last = [detector.get_parameter(f"rpn.{name}.weight") for name in ("objectness", "deltas")]
    assert fast.get_buffer("rpn.outputs.layer.weight").equal(torch.cat(last))
    logits, _ = fast.rpn.run(fast.features(BATCH))[0]
    assert not logits.equal(logits.bfloat16().float())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_prediction_copies_nothing(precision: Precision) -> None:
    """A part left in training mode would have each prediction copy the model and pack its weights again."""
    fast = busy_detector("mask_rcnn_tiny_gc4").optimize(precision=precision)
    assert in_eval_mode(fast) is fast
    if precision == "fp32" and torch.backends.mkldnn.is_available():
        fast.predict(BATCH)
        assert all(
            part.weight.is_mkldnn for part in fast.modules() if isinstance(part, FusedConv | PackedLinear)
        )


@pytest.mark.slow
def test_compiled_for_all_sizes(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("GCNET_HOME", str(tmp_path))
    detector = busy_detector("mask_rcnn_tiny_gc4")
    fast = detector.optimize(compiled=True)
    for size in ((96, 128), (128, 96)):
        batch = random_batch(1, size)
        assert_alike(fast.predict(batch), detector.predict(batch))
    assert any((tmp_path / "compiled").iterdir())


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(GCNetError, match="C compiler"):
        busy_detector("mask_rcnn_tiny").optimize(compiled=True)


def test_another_precision_is_named() -> None:
    checked_later = inspect.unwrap(optimize)  # the checks of types in tests come before its own
    with pytest.raises(GCNetError, match="no precision 'half'; give fp32, bf16, fp16"):
        checked_later(busy_detector("mask_rcnn_tiny"), precision="half")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_copies_and_pickles_predict_the_same(precision: Precision) -> None:
    fast = busy_detector("mask_rcnn_tiny_gc4").optimize(precision=precision)
    for _ in range(2):  # before and after its weights were packed
        file = io.BytesIO()
        torch.save(fast, file)
        file.seek(0)
        for twin in (copy.deepcopy(fast), torch.load(file, weights_only=False)):
            for ours, plain in zip(twin.predict(BATCH), fast.predict(BATCH), strict=True):
                assert ours.boxes.equal(plain.boxes)
                assert ours.scores.equal(plain.scores)


def test_no_weight_can_be_changed_that_is_not_used() -> None:
    """What a prediction has packed is not there a second time, unpacked, to be changed without effect."""
    fast = busy_detector("mask_rcnn_tiny_gc4").optimize()
    before = fast.predict(BATCH)
    parameters = dict(fast.named_parameters())
    assert not any(name.startswith(("backbone.stem", "rpn.conv")) for name in parameters)
    for parameter in parameters.values():
        parameter.data.zero_()
    assert not fast.predict(BATCH)[0].boxes.equal(before[0].boxes)


def test_what_a_copy_for_prediction_refuses(tmp_path) -> None:
    detector = busy_detector("mask_rcnn_tiny_gc4")
    fast = detector.optimize()
    fast.predict(BATCH)
    for refused in (
        lambda: fast.load_state_dict(detector.state_dict()),
        lambda: fast.load_state_dict(detector.state_dict(), strict=False),
        lambda: save_model(fast, tmp_path / "fast.safetensors"),
        fast.backbone.state_dict,
        fast.optimize,
        lambda: fast.train().losses(BATCH, []),
    ):
        with pytest.raises(GCNetError, match="only predicts"):
            refused()
    assert not any(tmp_path.iterdir())


def test_inserted_blocks_stay() -> None:
    detector = busy_detector("mask_rcnn_tiny_gc4")
    insert(detector, "gc", where=["backbone.layer2.0", "backbone.layer3"], position="output", name="more")
    insert(detector, "se", where="rpn.conv", position="output")
    for name in inserted_blocks(detector):
        for parameter in detector.get_submodule(name).parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    assert_alike(detector.optimize().predict(BATCH), detector.predict(BATCH))


def test_recorded_maps_are_those_of_the_original() -> None:
    detector = busy_detector("mask_rcnn_tiny_gc4")
    with record(detector) as plain:
        detector.predict(BATCH)
    fast = detector.optimize()
    with record(fast) as maps:
        fast.predict(BATCH)
    assert len(maps) == len(plain) > 0
    for ours, theirs in zip(maps.values(), plain.values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", [None, "fp32", "fp16"])
def test_weights_cast_by_hand_are_refused(precision: Precision | None) -> None:
    """Also to the precision that a copy has, but not in all of its layers."""
    detector = busy_detector("mask_rcnn_tiny")
    model = detector.optimize(precision=precision) if precision else detector
    with pytest.raises(GCNetError, match=r"cast to torch\.float16"):
        model.half().predict(BATCH)
