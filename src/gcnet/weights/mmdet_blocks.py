"""Finds the context blocks in an mmdetection state dict, from the shapes of its tensors.

Names are those of `mmdet_keys.modernise`. C channels of a map, P of a block's bottleneck.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gcnet.models.spec import ContextSpec
from gcnet.weights.mmdet_config import Config

STAGES = (1, 2, 3, 4)
UNSAID_POSITION = "after_conv2"  # of a block on fewer channels than its residual block ends with
Shapes = Mapping[str, tuple[int, ...]]


def count_of(shapes: Shapes, pattern: str) -> int:
    """How many different numbers names have where the pattern has its group."""
    return len({match[1] for name in shapes if (match := re.fullmatch(pattern, name))})


def stage_lengths(shapes: Shapes) -> list[int]:
    """Residual blocks of c2 to c5."""
    return [count_of(shapes, rf"backbone\.layer{stage}\.(\d+)\.conv1\.weight") for stage in STAGES]


@dataclass(frozen=True)
class _Block:
    """A context block of a file: which of its residual block, and what its tensors tell."""

    number: int  # 0 is the first in its residual block
    stage: int
    index: int
    spec: ContextSpec  # at the default ratio, in the default stages
    widths: tuple[int, ...]  # P and C


def read_contexts(shapes: Shapes, config: Config) -> dict[str, Any]:
    """The context blocks as few specs: one for those that are alike in all but stage and place."""
    groups: dict[tuple[int, ContextSpec], list[_Block]] = {}
    for block in _context_blocks(shapes, config):
        groups.setdefault((block.number, block.spec), []).append(block)
    specs = [
        replace(spec, **ratio, **_places(shapes, part))
        for (_, spec), group in sorted(groups.items(), key=lambda pair: pair[0][0])
        for part, ratio in _by_ratio(group)
    ]
    return {"context": specs[0], "more_context": tuple(specs[1:])} if specs else {}


def _context_blocks(shapes: Shapes, config: Config) -> Iterator[_Block]:
    pattern = r"backbone\.layer(\d)\.(\d+)\.context_block(\d*)\."
    found = {match[0]: match.groups() for name in shapes if (match := re.match(pattern, name))}
    last = 3 if "backbone.layer1.0.conv3.weight" in shapes else 2
    for name, (stage, index, count) in found.items():
        number = int(count or 1) - 1
        options, widths = _block_kind(shapes, name, config)
        said = config.plugins[int(stage) - 1] if config.plugins else ()
        out = shapes[f"backbone.layer{stage}.{index}.conv{last}.weight"][0]
        position = f"after_conv{last}" if widths[1] == out else UNSAID_POSITION
        position = said[number] if number < len(said) else position
        position: Any = "after1x1" if position == f"after_conv{last}" else position
        yield _Block(number, int(stage) - 1, int(index), ContextSpec(position=position, **options), widths)


def _block_kind(shapes: Shapes, name: str, config: Config) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Its name here with the options that tensors tell, and (P, C)."""
    theta = shapes.get(f"{name}theta.conv.weight")
    if theta is not None:
        if theta[0] != theta[1] // 2:
            raise ValueError("non-local blocks of another width than half their channels")
        return {"block": "nl"}, theta[:2]
    if value := shapes.get(f"{name}value_conv.weight"):
        tensors = [name for name in shapes if "context_block" in name]
        return {"block": "ga"} | attention_options(tensors, config), value[:2]
    branches = {"add": f"{name}channel_add_conv.0.weight", "scale": f"{name}channel_mul_conv.0.weight"}
    fusion = tuple(word for word, key in branches.items() if key in shapes)
    pooling = "attention" if f"{name}conv_mask.weight" in shapes else "average"
    return {"block": "gc", "pooling": pooling, "fusion": fusion}, shapes[branches[fusion[0]]][:2]


def attention_options(names: Iterable[str], config: Config) -> dict[str, Any]:
    """What shapes do not tell of generalized attention, which is held against the `names` of its tensors."""
    if config.attention is None:
        raise ValueError("generalized attention, and nothing says its heads (a configuration does: --config)")
    heads, terms, stride = config.attention
    content, query_and_place, key, place = (digit == "1" for digit in terms)
    needed = {
        "query_conv.weight": content or query_and_place,
        "key_conv.weight": content or key,
        "appr_geom_fc_x.weight": query_and_place or place,
        "appr_bias": key,
        "geom_bias": place,
    }
    has = {end: any(name.endswith(f".{end}") for name in names) for end in needed}
    if has != needed:
        raise ValueError(f"generalized attention of other terms than {terms}, which its configuration says")
    mirrored = {"mirrored": True} if query_and_place and not place else {}  # upstream mixes up the two sides
    return {"heads": heads, "terms": terms, "key_stride": stride} | mirrored


def _by_ratio(group: list[_Block]) -> list[tuple[list[_Block], dict[str, Any]]]:
    """The blocks, with the ratio that gives the widths of all; without one, for each width by itself."""
    if group[0].spec.block != "gc":
        return [(group, {})]
    widths = {block.widths for block in group}
    if ratio := _ratio(widths):
        return [(group, {"ratio": ratio})]
    alone = [[block for block in group if block.widths == one] for one in sorted(widths)]
    alone.sort(key=lambda part: part[0].stage)
    return [(part, {"ratio": _ratio({part[0].widths})}) for part in alone]


def _ratio(widths: set[tuple[int, ...]]) -> float | None:
    """The ratio of which (bottleneck, channels) of all blocks follow, a simple one if there is."""
    low = max(width / channels for width, channels in widths)
    high = min((width + 1) / channels for width, channels in widths)
    simple = [1 / max(round(1 / low), 1), round(low, 2), round(high, 2), low, (low + high) / 2]
    return next((r for r in simple if all(int(channels * r) == width for width, channels in widths)), None)


def _places(shapes: Shapes, blocks: list[_Block]) -> dict[str, Any]:
    """The stages of some blocks, and their residual blocks where these are not all of a stage."""
    own = [tuple(block.index for block in blocks if block.stage == stage) for stage in range(4)]
    whole = all(len(numbers) in (0, n) for numbers, n in zip(own, stage_lengths(shapes), strict=True))
    return {"stages": tuple(map(bool, own)), "only": () if whole else tuple(own)}
