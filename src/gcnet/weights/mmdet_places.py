"""Where the configurations of mmdetection 1.x, 2.x and 3.x keep the options that are read."""

from __future__ import annotations

from typing import Any

from gcnet.weights.config_text import at, dicts, find, first_dict, nested, numbers, pair, without, word

POSITIONS = ("after_conv1", "after_conv2", "after_conv3")  # of plugins; the last one is the usual one


def used(values: dict[str, Any]) -> dict[str, Any]:
    """What a prediction uses of a configuration. The same names elsewhere are of trainings, or left over.

    `model` is the detector, out of its `wrapper`, with its `test_cfg` and `data_preprocessor`, and
    `test_pipelines` are those of the data sets of the test. Where no model is named, all names are its own.
    """
    given = values.get("model")
    whole = given if isinstance(given, dict) else values
    model = next((own for own in nested(given) if "backbone" in own), whole)
    own = without(model, "train_cfg")
    for name in ("test_cfg", "data_preprocessor"):
        found = (place[name] for place in (whole, model, values) if isinstance(place.get(name), dict))
        own[name] = next(found, {})
    kept = {name: values[name] for name in ("_base_", "_run_", "img_norm_cfg") if name in values}
    return kept | {
        "model": own if given is None or whole is given else given,
        "wrapper": {} if model is whole else {"type": whole.get("type", "")},
        "test_pipelines": _test_pipelines(values),
    }


def _test_pipelines(values: dict[str, Any]) -> list[Any]:
    """Those of the test's data sets, in any wrappers; else the one that is named so, or a size alone."""
    tested = at(values, "test_dataloader.dataset") or at(values, "data.test")
    named = values.get("test_pipeline") or {name: values[name] for name in ("img_scale",) if name in values}
    return find(tested, "pipeline") or [named]


def normalisation(values: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """What has the `mean` and `std` of images, and whether the network's input is RGB."""
    # That of several branches has the one of an image inside.
    processor = next((own for own in dicts(values, "data_preprocessor") if "mean" in own), {})
    if processor:
        return processor, bool(processor.get("bgr_to_rgb", False))
    steps = (step for step in nested(values["test_pipelines"][0]) if word(step.get("type")) == "Normalize")
    found = next((step for step in steps if "mean" in step), first_dict(values, "img_norm_cfg"))
    return found, bool(found.get("to_rgb", True))


def image_size(values: dict[str, Any]) -> tuple[float, ...] | None:
    """Two sides that images are fitted in; None if there are none."""
    steps = values["test_pipelines"][0]
    return next(filter(None, map(pair, [*find(steps, "img_scale"), *find(steps, "scale")])), None)


def convolution_types(values: dict[str, Any], part: str) -> set[str]:
    """Classes of the convolutions of a part of the model."""
    return {word(conv.get("type")) for conv in dicts(dicts(values, part), "conv_cfg")}


def plugins(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the residual blocks."""
    found = first_dict(values, "backbone").get("plugins")
    return [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list) else []


def anchors(values: dict[str, Any]) -> dict[str, Any]:
    """The options of the anchors; 1.x had them in the head itself."""
    rpn = first_dict(values, "rpn_head")
    old = {name: rpn.get(f"anchor_{name}") for name in ("scales", "ratios", "strides")}
    found = first_dict(rpn or values, "anchor_generator")
    return found or {name: value for name, value in old.items() if value}


def anchor_strides(values: dict[str, Any]) -> tuple[int, ...] | None:
    """Whole numbers, one for each of the five levels; None if they are not."""
    steps = numbers(anchors(values).get("strides"), 5) or ()
    whole = steps and all(step >= 1 and step % 1 == 0 for step in steps)
    return tuple(map(int, steps)) if whole else None


def test_settings(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of inference: of the second stage, and of proposals."""
    return _test(values, "rcnn", "roi_head"), _test(values, "rpn", "rpn_head")


def _test(values: dict[str, Any], name: str, head: str) -> dict[str, Any]:
    tests = [*find(first_dict(values, "test_cfg"), name), *find(first_dict(values, head), "test_cfg")]
    return next((test for test in tests if isinstance(test, dict)), {})
