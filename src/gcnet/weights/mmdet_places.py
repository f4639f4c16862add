"""Where the configurations of mmdetection 1.x, 2.x and 3.x keep the options that are read."""

from __future__ import annotations

from typing import Any, Literal

from gcnet.weights.config_text import (
    Computed,
    at,
    dicts,
    find,
    first_dict,
    nested,
    numbers,
    pairs,
    without,
    word,
)

POSITIONS = ("after_conv1", "after_conv2", "after_conv3")  # of plugins; the last one is the usual one
NOT_NORMALISED = {"mean": [0.0] * 3, "std": [1.0] * 3}


def used(values: dict[str, Any]) -> dict[str, Any]:
    """What a prediction uses of a configuration. The same names elsewhere are of trainings, or left over.

    `model` is the detector, out of its `wrapper`, with its `test_cfg` and `data_preprocessor`, and
    `test_pipelines` are those of the data sets of the test. Where no model is named, all names are its own.
    """
    given = values.get("model")
    whole = given if isinstance(given, dict) else values
    model = next((own for own in nested(given) if "backbone" in own), whole)
    own = without(model, "train_cfg")
    for name, spellings, holders in (
        # A wrapper prepares the images of its detector, but its own `test_cfg` is about the wrapper.
        ("test_cfg", ("test_cfg",), (model, whole, values)),
        ("data_preprocessor", ("data_preprocessor", "preprocess_cfg"), (whole, model, values)),
    ):
        found = (holder.get(spelling) for spelling in spellings for holder in holders)
        own[name] = next((one for one in found if isinstance(one, dict)), {})
    kept = {name: values[name] for name in ("_base_", "_run_", "img_norm_cfg") if name in values}
    return kept | {
        "model": own if given is None or whole is given else given,
        "wrapper": {} if model is whole else {"type": whole.get("type", "")},
        "test_pipelines": _test_pipelines(values),
    }


def _test_pipelines(values: dict[str, Any]) -> list[Any]:
    """Those of the test's data sets, in any wrappers; else the one that is named so, or a size alone."""
    tested = at(values, "test_dataloader.dataset") or at(values, "data.test")
    if isinstance(tested, Computed):
        return [tested]
    alone = [{"img_scale": values["img_scale"]}] if "img_scale" in values else []
    named = values.get("test_pipeline") or alone
    old = next((own for own in nested(tested) if "img_scale" in own), None)
    return find(tested, "pipeline") or [_old_pipeline(old) if old else named]


def _old_pipeline(own: dict[str, Any]) -> list[dict[str, Any]]:
    """What a data set of mmdetection 0.6 does, which has options in place of steps."""
    resize = {"img_scale": own["img_scale"], "keep_ratio": own.get("resize_keep_ratio", True)}
    return [
        {"type": "Resize", **resize, "flip": own.get("flip_ratio", 0) not in (0, None)},
        {"type": "Normalize", **first_dict(own, "img_norm_cfg")},
        {"type": "Pad", "size_divisor": own.get("size_divisor")},
        {"type": "Collect"},
    ]


def steps(values: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Those of a test, and whatever options they have inside, by their class; "None" of what is none."""
    return [(word(step.get("type")), step) for step in nested(values["test_pipelines"][0])]


def kinds(values: dict[str, Any]) -> list[str]:
    """The class of each step."""
    return [kind for kind, _ in steps(values)]


def is_whole(values: dict[str, Any]) -> bool:
    """Whether a configuration has a whole backbone: what it does not say is at mmdetection's default then."""
    return bool({"type", "depth"} & first_dict(values, "backbone").keys())


def are_all(values: dict[str, Any]) -> bool:
    """Whether the steps are all that is done to images: what none of them does is not done then."""
    return is_whole(values) and any(kind.startswith(("Collect", "Pack")) for kind in kinds(values))


def preprocessor(values: dict[str, Any]) -> dict[str, Any]:
    """That of an image; the one of several branches has it inside."""
    return [{}, *dicts(values, "data_preprocessor")][-1]


def normalisation(values: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """What has the `mean` and `std` of images, and whether the network's input is RGB."""
    processor, step = preprocessor(values), normalising_step(values)
    found = step or ({} if are_all(values) else first_dict(values, "img_norm_cfg"))
    swaps = [any(processor.get(name) for name in ("bgr_to_rgb", "rgb_to_bgr", "to_rgb"))]
    swaps += ["rgb" in find(values["test_pipelines"][0], "channel_order")]  # as they are loaded
    if processor.get("mean") is not None:
        found = processor
    elif found:
        swaps.append(bool(found.get("to_rgb", True)))
    elif are_all(values):
        found = NOT_NORMALISED
    return found, sum(swaps) % 2 == 1


def mean_and_std(found: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Those of the three channels, if a model can have them."""
    mean, std = numbers(found.get("mean"), 3), numbers(found.get("std", [1.0] * 3), 3)
    return (mean, std) if mean and std and min(std) > 0 else None


def normalising_step(values: dict[str, Any]) -> dict[str, Any]:
    """The step of a test that normalises images, or an empty one."""
    return next((step for kind, step in steps(values) if kind == "Normalize" and "mean" in step), {})


def image_sizes(values: dict[str, Any]) -> list[tuple[int, int]]:
    """(long, short) sides that images are fitted in, the first one first."""
    found = [*find(values["test_pipelines"][0], "img_scale"), *find(values["test_pipelines"][0], "scale")]
    return list(dict.fromkeys((int(max(size)), int(min(size))) for one in found for size in pairs(one)))


def paddings(values: dict[str, Any]) -> list[Any]:
    """The numbers of pixels that images are padded to multiples of; without any, they are not."""
    found = [*find(values["test_pipelines"][0], "size_divisor"), preprocessor(values).get("pad_size_divisor")]
    return [divisor for divisor in found if divisor not in (None, 1)]


def plugins(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the residual blocks; 1.x had one kind, behind the second convolution."""
    backbone = first_dict(values, "backbone")
    found = backbone.get("plugins")
    if (old := first_dict(backbone, "gen_attention")) and not backbone.get("gcb"):
        own, where = {"type": "GeneralizedAttention", **old}, backbone.get("stage_with_gen_attention")
        stages = list(map(bool, where)) if isinstance(where, list) else None
        found = [{"cfg": own, "stages": stages, "position": POSITIONS[1]}]
    return [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list) else []


def attentions(values: dict[str, Any]) -> list[tuple[Any, Any, Any]]:
    """The kinds of generalized attention in it: number of heads, terms, stride of the keys."""
    found = [*(first_dict(plugin, "cfg") for plugin in plugins(values)), *dicts(values, "post_cfg")]
    found = [own for own in found if word(own.get("type")) == "GeneralizedAttention"]
    usual = (("num_heads", 9), ("attention_type", "1111"), ("kv_stride", 2))
    kinds = [tuple(own.get(name, value) for name, value in usual) for own in found]
    return [kind for number, kind in enumerate(kinds) if kind not in kinds[:number]]


def anchors(values: dict[str, Any]) -> dict[str, Any]:
    """The options of the anchors; 1.x had them in the head itself."""
    rpn = first_dict(values, "rpn_head")
    old = {name: rpn.get(f"anchor_{name}") for name in ("scales", "ratios", "strides", "base_sizes")}
    found = first_dict(rpn or values, "anchor_generator")
    return found or {name: value for name, value in old.items() if value}


def anchor_strides(values: dict[str, Any]) -> tuple[int, ...] | None:
    """Whole numbers, one for each of the five levels; None if they are not."""
    steps = numbers(anchors(values).get("strides"), 5) or ()
    whole = steps and all(step >= 1 and step % 1 == 0 for step in steps)
    return tuple(map(int, steps)) if whole else None


def test_settings(values: dict[str, Any], stage: Literal["rpn", "rcnn"]) -> dict[str, Any]:
    """Settings of inference: of proposals, or of the second stage."""
    head = first_dict(values, "rpn_head" if stage == "rpn" else "roi_head")
    tests = [*find(first_dict(values, "test_cfg"), stage), *find(head, "test_cfg")]
    return next((test for test in tests if isinstance(test, dict)), {})
