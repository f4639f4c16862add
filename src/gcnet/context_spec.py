"""The context blocks by name, and where a backbone has them: plain data, without torch.

A new block is a class, a line in `BLOCKS`, and a field of `ContextSpec` for an option that no block has yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

from gcnet.console import did_you_mean
from gcnet.errors import GCNetError


class BlockKind(NamedTuple):
    """A block: module and name of its class, and which of its arguments are options."""

    made_by: str
    options: tuple[str, ...] = ()


BLOCKS = {
    "ga": BlockKind(
        "gcnet.context.generalized:GeneralizedAttention", ("heads", "terms", "key_stride", "mirrored")
    ),
    "se": BlockKind("gcnet.context.blocks:SqueezeExcitation", ("ratio",)),
    "snl": BlockKind("gcnet.context.blocks:SimplifiedNonLocal"),
    "nl": BlockKind("gcnet.context.blocks:NonLocal"),
    "gc": BlockKind("gcnet.context.blocks:GlobalContext", ("ratio", "pooling", "fusion")),
    "eca": BlockKind("gcnet.context.gates:EfficientChannelAttention"),
    "cbam": BlockKind("gcnet.context.gates:ConvolutionalBlockAttention", ("ratio",)),
    "gct": BlockKind("gcnet.context.gates:GatedChannelTransformation"),
}


def find_block(name: str, options: Iterable[str] = ()) -> BlockKind:
    """The block of that name.

    Raises:
        GCNetError: there is none, or it has no such options.
    """
    kind = BLOCKS.get(name)
    if kind is None:
        hint = did_you_mean(name, BLOCKS, f"there are {', '.join(BLOCKS)}")
        raise GCNetError(f'there is no context block "{name}"; {hint}')
    foreign = sorted(set(options) - set(kind.options))
    if foreign:
        has = " and ".join(kind.options) or "none"
        raise GCNetError(f'the context block "{name}" has no option {foreign[0]}; its options: {has}')
    return kind


ADDING = ("gc", "snl", "nl", "ga")  # blocks that add their result; a new one adds zero
STAGES = ("c2", "c3", "c4", "c5")
_WHERE = ("block", "stages", "position", "only")  # fields of every block
Position = Literal["after_conv1", "after_conv2", "after1x1", "after_add"]


@dataclass(frozen=True)
class ContextSpec:
    """The context block in residual blocks (arXiv 1904.11492, sections 4.2 and 5.1).

    Attributes:
        ratio, pooling, fusion, heads, terms, key_stride, mirrored: options of the block, see its class.
            Options that the block does not have must be at their defaults.
        stages: which of c2, c3, c4 and c5 have the block.
        position: "after1x1" (after the last convolution and its norm, before the residual add) or
            "after_add". Our own ResNet also has "after_conv1" and "after_conv2" (of three convolutions, after
            the ReLU).
        block: a name of `BLOCKS`.
        only: for each of c2..c5 the numbers of the residual blocks that have it; empty for all. Of our own
            ResNet.

    Raises:
        GCNetError: there is no such block, it does not have an option that is not at its default, or `only`
            is not of four stages.
    """

    ratio: float = 1 / 16
    stages: tuple[bool, bool, bool, bool] = (False, True, True, True)
    position: Position = "after1x1"
    pooling: Literal["attention", "average"] = "attention"
    fusion: tuple[Literal["add", "scale"], ...] = ("add",)
    block: str = "gc"
    only: tuple[tuple[int, ...], ...] = ()
    heads: int = 8
    terms: str = "1111"
    key_stride: int = 2
    mirrored: bool = False

    def __post_init__(self) -> None:
        options = [field for field in fields(self) if field.name not in _WHERE]
        find_block(self.block, [f.name for f in options if getattr(self, f.name) != f.default])
        if len(self.only) not in (0, len(STAGES)):
            raise GCNetError(f"only is {self.only}; give the numbers of the blocks of c2, c3, c4 and c5")

    def is_in(self, stage: int, index: int) -> bool:
        """Whether residual block `index` of a stage (0 is c2) has a context block."""
        return self.stages[stage] and (not self.only or index in self.only[stage])

    @property
    def options(self) -> dict[str, Any]:
        """The options of the block, as its class takes them."""
        return {name: getattr(self, name) for name in BLOCKS[self.block].options}

    def changed(self, **changes: Any) -> ContextSpec:
        """A copy with these fields. If `block` changes, options that only the old one has are dropped."""
        kept = own_options(asdict(self) | {"block": changes.get("block", self.block)})
        return ContextSpec(**kept | changes)


def check_change(name: str, has: ContextSpec | None, new: ContextSpec | None) -> None:
    """Raises GCNetError if a trained model `name` cannot get `new` blocks, or lose those that it `has`."""
    if new is None and has is None:
        raise GCNetError(f"{name} has no context blocks to remove")
    if new is not None and has is not None:
        raise GCNetError(f"{name} has context blocks already: take them out with --remove-context")
    if new is not None and (new.block not in ADDING or new.fusion != ("add",)):
        raise GCNetError(f'the block "{new.block}" would change a trained network: add gc, snl, nl or ga')


def own_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `ContextSpec`, without options that its block does not have.

    Files from before options belonged to blocks hold those of others.
    """
    kind = find_block(values.get("block", ContextSpec.block))
    return {name: value for name, value in values.items() if name in (*_WHERE, *kind.options)}


def parse_context(block: str | None, ratio: float | str, stages: str) -> ContextSpec | None:
    """The blocks that `--add-context BLOCK --ratio 1/4 --stages c3-c5` means, or GCNetError."""
    if block is None:
        return None
    first, _, last = stages.partition("-")
    try:
        low, high = (STAGES.index(word) for word in (first, last or first))
        above, _, below = str(ratio).partition("/")
        number = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise GCNetError(
            f"--ratio {ratio} --stages {stages}: give a ratio such as 1/4, and stages such as c3-c5 or c4"
        ) from None
    if not 0 < number <= 1 or low > high:
        raise GCNetError(f"--ratio {ratio} --stages {stages}: a ratio is up to 1, and stages are c2 to c5")
    options: Any = {"ratio": number} if "ratio" in find_block(block).options else {}
    places: Any = tuple(low <= stage <= high for stage in range(len(STAGES)))
    return ContextSpec(block=block, stages=places, **options)
