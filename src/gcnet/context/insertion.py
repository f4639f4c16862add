"""Puts context blocks into any network, without changes to its code (where: arXiv 1904.11492, section 5.1).

A block becomes a child of the module that it is put into; the network's own parameters keep their names.
`running` lets the module that calls the preceding module call the block after it.

N images, C channels, `...` positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from inspect import unwrap
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gcnet.console import did_you_mean, listed
from gcnet.context.blocks import make_block
from gcnet.context.residual import CONTAINERS, called_modules, drops, residual_blocks
from gcnet.context.running import forget_blocks, runs_block
from gcnet.context.widths import Expect, is_inserted, layout, probed_channels, shown
from gcnet.context_spec import find_block
from gcnet.errors import GCNetError

Position = Literal["after1x1", "after_add", "output"]
MakeBlock = Callable[[int], nn.Module]


def insert(
    model: nn.Module,
    block: MakeBlock | str,
    *,
    options: Mapping[str, Any] | None = None,
    where: str | Sequence[str] | None = None,
    position: Position = "after1x1",
    channels: int | None = None,
    example: Tensor | tuple[Any, ...] | None = None,
    channel_dim: int | None = None,
    name: str = "context",
) -> list[str]:
    """Puts new blocks into `model`, in place. Do it before compiling or wrapping the model, and before the
    optimiser takes its parameters.

        insert(resnet50, "gc", options={"ratio": 1 / 4}, where="layer[234]")  # the paper's c3 to c5

    Args:
        model: any network.
        block: a name of `gcnet.context_spec.BLOCKS`, or a callable that makes a block from a number of
            channels: a class such as `GlobalContext`, or a `partial` of one.
        options: options of a block that is given by name.
        where: names of modules, as in `model.named_modules()`; `*`, `?` and `[...]` match within a part of a
            dotted name. None: the whole model.
        position: "after1x1": in every residual block at or below `where`, at the end of its branch (in a
            bottleneck after the last 1x1 convolution and its norm), before the add. "after_add": on the
            output of these residual blocks, after their last activation. "output": on the output of the
            modules named by `where`.
        channels: C of the maps, if it cannot be found from the modules.
        example: an input of the model, or a tuple of its arguments. The model is run on it once, in eval
            mode, to find C.
        channel_dim: the dimension of C in the maps: 1, or -1 for tokens (N, L, C) and (N, H, W, C) maps.
            None: it is found by running the containing module on a map and on tokens, or by its layers.
        name: name of the new child modules.

    Returns:
        The names of the new blocks, as in `model.get_submodule(name)`, in the model's order. They are on the
        device, and have the dtype and training mode, of the modules that they were put into.

    Raises:
        GCNetError: there is no such block or option, nothing matches `where`, C cannot be found, there is a
            block of that name already, or a block would not run there. The model is then unchanged.
    """
    _check(model, channels, channel_dim, name)
    make = _maker(block, {} if options is None else options)
    places = _places(model, where, position, example is not None)
    _check_free(model, places, name)
    layouts = {p.site: layout(model.get_submodule(p.holder), _within(p.site, p.holder)) for p in places}
    dims = {site: channel_dim or dim for site, (_, dim) in layouts.items()}
    widths = {site: channels or width for site, (width, _) in layouts.items()}
    if channels is None and example is not None:
        widths = probed_channels(model, dims, example)
    blocks = [_made(make, widths[place.site], model, place, dims[place.site]) for place in places]
    for place, new in zip(places, blocks, strict=True):
        _attach(model, place, new, name)
    return [_join(place.holder, name) for place in places]


def remove(model: nn.Module, *, name: str | None = None) -> list[str]:
    """Removes the blocks that `insert` added, all or those of one `name`. Returns their names.

    Afterwards the model's state dict and outputs are those of a model that never had them, but for what
    training changed in its own parameters.
    """
    for module in model.modules():
        forget_blocks(module, name)
    removed = []
    for path in inserted_blocks(model):
        holder, _, child = path.rpartition(".")
        if name in (None, child):
            delattr(model.get_submodule(holder), child)
            removed.append(path)
    return removed


def inserted_blocks(model: nn.Module) -> list[str]:
    """The names of all blocks that `insert` put into `model`."""
    return [path for path, module in model.named_modules() if path and is_inserted(module)]


class _Place(NamedTuple):
    """Names of modules: whose output goes through the block, who holds that, and whose `forward` runs it.

    `before`: the input of `site` goes through the block, because that drops it.
    """

    site: str
    holder: str
    caller: str
    before: bool = False


def _check(model: nn.Module, channels: int | None, channel_dim: int | None, name: str) -> None:
    """Raises GCNetError if the model is none yet, or an argument cannot be meant."""
    if not isinstance(model, nn.Module):
        raise GCNetError(f"model is a {type(model).__name__}; give a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise GCNetError("the model is TorchScript, which runs its own code: insert before that is made")
    for path, part in model.named_modules():
        if any(map(is_lazy, [*part.parameters(recurse=False), *part.buffers(recurse=False)])):
            raise GCNetError(f"{shown(path)} has no weights yet: run a batch through the model first")
    if channels is not None and (not isinstance(channels, int) or channels < 1):
        raise GCNetError(f"channels is {channels!r}; give a whole number, 1 or more")
    if channel_dim is not None and (not isinstance(channel_dim, int) or abs(channel_dim) not in range(1, 5)):
        raise GCNetError(f"channel_dim is {channel_dim!r}; give 1, or -1 for channels that come last")
    if not isinstance(name, str) or not name or "." in name or name.startswith("_"):
        raise GCNetError(f'name is {name!r}; give a word without ".", such as "context"')


def _check_free(model: nn.Module, places: Iterable[_Place], name: str) -> None:
    """Raises GCNetError where there is something of that name, or a block would not run."""
    there = inserted_blocks(model)
    for place in places:
        if _join(place.holder, name) in there:
            raise GCNetError(
                f'{shown(place.holder)} already has "{name}": remove that first, or pass another name='
            )
        if hasattr(model.get_submodule(place.holder), name):
            raise GCNetError(f'{shown(place.holder)} has a "{name}" of its own: pass another name=')
        caller = model.get_submodule(place.caller)
        if "forward" in vars(caller) and not _runs_children(caller):
            raise GCNetError(
                f"the forward of {shown(place.caller)} was replaced on the object itself, and would not run "
                "the block: insert before that is done"
            )


def _maker(block: MakeBlock | str, options: Mapping[str, Any]) -> MakeBlock:
    if not isinstance(options, Mapping):
        raise GCNetError(f"options is {options!r}; give names and values, such as {{'ratio': 1 / 4}}")
    if isinstance(block, str):
        find_block(block, options)
        return partial(make_block, block, **options)
    if not callable(block):
        raise GCNetError(f'block is {block!r}; give a name, such as "gc", or what makes a block')
    if options:
        raise GCNetError("options are those of a block given by name; bind those of a class with partial()")
    if isinstance(block, nn.Module):
        raise GCNetError(
            f"block is one module, and every place needs its own: pass what makes it, {type(block).__name__}"
        )
    return block


def _places(model: nn.Module, where: str | Sequence[str] | None, position: str, tried: bool) -> list[_Place]:
    if position not in ("after1x1", "after_add", "output"):
        raise GCNetError(f'position is "after1x1", "after_add" or "output", not {position!r}')
    if where is None and position == "output":
        raise GCNetError('position="output" needs where=, the names of the modules')
    inserted = inserted_blocks(model)
    modules = [path for path, _ in model.named_modules() if not _below_any(path, inserted)]
    matched = _matched(modules, where)
    named = {path for paths in matched.values() for path in paths}
    if position == "output":
        return [_output_place(model, path, tried) for path in modules if path in named]
    found = residual_blocks(model, lambda path: path in modules and _below_any(path, named))
    for pattern, paths in matched.items():
        if not any(_below_any(path, paths) for path in found):
            raise GCNetError(
                f'no residual block in {shown(pattern)}; position="output" takes any module by its name, '
                f"such as {listed(_parts(model, paths[0]))}"
            )
    if position == "after_add":
        return [_Place(path, path, path) for path in found]
    ends = {path: _join(path, end) for path, end in found.items()}
    return [_Place(end, path, path, drops(model.get_submodule(end))) for path, end in ends.items()]


def _matched(modules: Sequence[str], where: Any) -> dict[str, list[str]]:
    """The modules that each pattern in `where` names; it is what a user gave."""
    given = "" if where is None else where
    patterns = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if not patterns:
        raise GCNetError("where is empty: name modules, or leave it out for the whole model")
    matched = {}
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise GCNetError(f"where has {pattern!r}; give names of modules, as in model.named_modules()")
        matched[pattern] = [path for path in modules if _matches(path, pattern)]
        if not matched[pattern]:
            known = f"there is {', '.join(path for path in modules if path and '.' not in path)}"
            raise GCNetError(f'no module is named "{pattern}"; {did_you_mean(pattern, modules, known)}')
    return matched


def _parts(model: nn.Module, top: str) -> list[str]:
    """The larger modules at most two levels below `top` that a block can follow."""
    around = model.get_submodule(top).named_modules()
    below = {path: module for path, module in around if path and path.count(".") < 2}
    below = {path: module for path, module in below.items() if not _only_holds(module)}
    larger = [path for path, module in below.items() if any(True for _ in module.children())]
    return [_join(top, path) for path in larger or below] or [top]


def _output_place(model: nn.Module, path: str, tried: bool) -> _Place:
    """Refuses a module that its owner's `forward` does not call, unless an example will tell."""
    module = model.get_submodule(path)
    if _only_holds(module):
        raise GCNetError(
            f"{shown(path)} is a {type(module).__name__}, which cannot hold a block: name modules in it"
        )
    if not path:
        return _Place(path, path, path)
    names = [name for name, other in model.named_modules(remove_duplicate=False) if other is module]
    calls = {owner: called_modules(model.get_submodule(owner)) for owner in {_owner(model, n) for n in names}}
    if not tried and not any(called is None or module in called for called in calls.values()):
        others = "name a module inside it" if _runs_children(module) else "name another module"
        raise GCNetError(
            f"the forward of {shown(_owner(model, path))} does not call {shown(path)}, so a block there "
            f"would not run: {others}, or pass example= an input on which it is called"
        )
    # A leaf may be replaced, as by SyncBatchNorm: its caller still runs the block.
    leaf = not any(True for _ in module.children())
    callers = [owner for owner, called in calls.items() if leaf and module in (called or [])]
    return _Place(path, path, callers[0] if callers and len(calls) == 1 else path)


def _owner(model: nn.Module, path: str) -> str:
    """The name of the module around another whose `forward` runs it: not a plain list of modules."""
    owner = path.rpartition(".")[0]
    while owner and type(model.get_submodule(owner)).forward is nn.Module.forward:
        owner = owner.rpartition(".")[0]
    return owner


def _made(
    make: MakeBlock, channels: int | None, model: nn.Module, place: _Place, channel_dim: int
) -> nn.Module:
    if channels is None:
        told = f"{shown(place.site)} does not tell how many channels it returns"
        raise GCNetError(f"{told}: pass channels=, or example= an input")
    try:
        new = make(channels)
    except (TypeError, ValueError) as error:
        raise GCNetError(f"no block for {shown(place.site)}: {error}; change options=, or where=") from None
    if not isinstance(new, nn.Module):
        raise GCNetError(f"block makes a {type(new).__name__} for {channels} channels, not a torch.nn.Module")
    if channel_dim != 1:
        new = ChannelsFirst(new, channel_dim)
    holder = model.get_submodule(place.holder)
    for parameter in [*holder.parameters(), *model.parameters()]:
        if parameter.is_floating_point():
            new.to(parameter.device, parameter.dtype)
            break
    new.train(holder.training)
    new.register_forward_pre_hook(Expect(place.site, channels, channel_dim))
    # torch.fx keeps modules of torch.nn whole. It traces through others, and blocks use shapes and strides,
    # which it does not know.
    new.__module__ = "torch.nn"
    return new


def _attach(model: nn.Module, place: _Place, block: nn.Module, name: str) -> None:
    caller, site = model.get_submodule(place.caller), model.get_submodule(place.site)
    model.get_submodule(place.holder).add_module(name, block)
    new = _join(_within(place.holder, place.caller), name)
    if site is caller and _runs_children(caller):
        runs_block(caller, None, new)
        return
    within = _within(place.site, place.caller)
    names = [path for path, module in caller.named_modules(remove_duplicate=False) if module is site]
    for path in names:  # `forward` may call it by any of its own names
        if path == within or not _owner(caller, path):
            runs_block(caller, path, new, before=place.before)


class ChannelsFirst(nn.Module):
    """Runs a block on maps whose channels are not in dimension 1."""

    def __init__(self, block: nn.Module, channel_dim: int) -> None:
        super().__init__()
        self.block, self.channel_dim = block, channel_dim

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.movedim(self.channel_dim, 1)).movedim(1, self.channel_dim)


def _runs_children(module: nn.Module) -> bool:
    """Whether the module is a sequence that calls its children in order."""
    return isinstance(module, nn.Sequential) and unwrap(type(module).forward) is nn.Sequential.forward


def _only_holds(module: nn.Module) -> bool:
    """Whether the module is a list of others, which is not called, or calls them in its own way."""
    return isinstance(module, CONTAINERS) and not _runs_children(module)


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _below_any(path: str, tops: Iterable[str]) -> bool:
    """Whether a module is one of `tops`, or in one."""
    return any(not top or path == top or path.startswith(f"{top}.") for top in tops)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _within(path: str, top: str) -> str:
    """The name of a module within the module `top`, which is it or around it."""
    return path[len(top) :].removeprefix(".")
