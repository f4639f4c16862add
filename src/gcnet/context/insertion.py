"""Context blocks into any network, without touching its code (where: arXiv 1904.11492, section 5.1).

A block becomes a child of the module that it is put into, and a forward hook runs it there: the network's
own parameters keep their names, and the block's are added. N images, C channels, `...` positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from gcnet.console import did_you_mean
from gcnet.context.channels import known_channels, probed_channels
from gcnet.context.hooks import ChannelsFirst, Expect, Follow, RunBlock, is_inserted, shown
from gcnet.context.residual import CONTAINERS, residual_blocks
from gcnet.errors import GCNetError

Position = Literal["after1x1", "after_add", "output"]
MakeBlock = Callable[[int], nn.Module]


def insert(
    model: nn.Module,
    block: MakeBlock,
    *,
    where: str | Sequence[str] | None = None,
    position: Position = "after1x1",
    channels: int | None = None,
    example: Tensor | tuple[Any, ...] | None = None,
    channel_dim: int = 1,
    name: str = "context",
) -> list[str]:
    """Puts new blocks into `model`, in place. Do it before compiling or wrapping the model, and before the
    optimiser takes its parameters.

        insert(resnet50, partial(GlobalContext, ratio=1 / 4), where="layer[234]")  # the paper's c3 to c5

    Args:
        model: any network.
        block: makes a block for a number of channels; a class such as `GlobalContext` or a `partial` of one.
        where: names of modules, as in `model.named_modules()`; `*`, `?` and `[...]` match within a part of a
            dotted name. None: the whole model.
        position: "after1x1": in every residual block at or below `where`, at the end of its branch (in a
            bottleneck the last 1x1 convolution and its norm), before the add; "after_add": there, on what
            the residual block returns, after its last activation; "output": on what the modules named by
            `where` return.
        channels: C of the maps, where it cannot be told from the modules.
        example: an input of the model, or a tuple of its arguments: run once, in eval mode, to see C.
        channel_dim: which dimension of the maps is C: 1, or -1 for tokens (N, L, C) and (N, H, W, C) maps.
        name: of the new child modules.

    Returns:
        The names of the new blocks, as in `model.get_submodule(name)`, in the model's order. They are on the
        device, and have the dtype and training mode, of the modules that they were put into.

    Raises:
        GCNetError: nothing matches `where`, C is not known, or a place has a block of that name already. The
            model is then as before.
    """
    if isinstance(block, nn.Module):
        raise GCNetError(
            f"block is one module, and every place needs its own: pass what makes it, {type(block).__name__}"
        )
    places = _places(model, where, position)
    for place in places:
        holder = place.holder_in(model)
        if hasattr(holder, name):
            raise GCNetError(
                f'{shown(place.holder)} already has "{name}": remove that first, or pass another name='
            )
    sites = {place.site: model.get_submodule(place.site) for place in places}
    if channels is not None:
        widths = dict.fromkeys(sites, channels)
    elif example is not None:
        widths = probed_channels(model, sites, example, channel_dim)
    else:
        widths = {
            place.site: known_channels(place.site, sites[place.site], place.holder_in(model))
            for place in places
        }
    blocks = [_made(block, widths[place.site], model, place, channel_dim) for place in places]
    for place, new in zip(places, blocks, strict=True):
        _attach(model, place, new, name)
    return [_join(place.holder, name) for place in places]


def remove(model: nn.Module, *, name: str | None = None) -> list[str]:
    """Takes out what `insert` put in: all of it, or the blocks of one `name`. Returns their names.

    Afterwards the model's state dict and outputs are those of a model that never had them, but for what
    training changed in its own parameters.
    """
    removed = []
    for path, module in list(model.named_modules()):
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(hook, RunBlock | Follow) and name in (None, hook.name):
                    del hooks[key]
        holder, _, child = path.rpartition(".")
        if path and is_inserted(module) and name in (None, child):
            delattr(model.get_submodule(holder), child)
            removed.append(path)
    return removed


class _Place(NamedTuple):
    """Names of modules: whose output goes through the block, who holds it, and who sees to it (or None)."""

    site: str
    holder: str
    watcher: str | None

    def holder_in(self, model: nn.Module) -> nn.Module:
        return model.get_submodule(self.holder)


def _places(model: nn.Module, where: str | Sequence[str] | None, position: str) -> list[_Place]:
    if position not in ("after1x1", "after_add", "output"):
        raise GCNetError(f'position is "after1x1", "after_add" or "output", not {position!r}')
    if where is None and position == "output":
        raise GCNetError('position="output" needs where=, the names of the modules')
    modules = {path: module for path, module in model.named_modules() if not _in_inserted(model, path)}
    patterns = [""] if where is None else [where] if isinstance(where, str) else list(where)
    if not patterns:
        raise GCNetError("where is empty: name modules, or leave it out for the whole model")
    matched = {pattern: [path for path in modules if _matches(path, pattern)] for pattern in patterns}
    for pattern, paths in matched.items():
        if not paths:
            raise GCNetError(f'no module is named "{pattern}"; {_near(pattern, modules)}')
    named = {path for paths in matched.values() for path in paths}
    if position == "output":
        return [_output_place(model, path) for path in modules if path in named]
    found = residual_blocks(model, lambda path: path in modules and any(_below(path, top) for top in named))
    for pattern, paths in matched.items():
        if not any(_below(path, top) for path in found for top in paths):
            raise GCNetError(
                f'no residual block in {shown(pattern)}; position="output" takes any module by its name'
            )
    if position == "after_add":
        return [_Place(path, path, None) for path in found]
    return [_Place(_join(path, end), path, path) for path, end in found.items()]


def _output_place(model: nn.Module, path: str) -> _Place:
    module = model.get_submodule(path)
    forward = getattr(type(module), "forward", None)
    if isinstance(module, CONTAINERS) and forward is not nn.Sequential.forward:
        raise GCNetError(
            f"{shown(path)} is a {type(module).__name__}, which cannot hold a block: name modules in it"
        )
    # Leaves get replaced (SyncBatchNorm, folded norms), the hook with them: a module above watches.
    leaf = not any(True for _ in module.children())
    return _Place(path, path, _caller(model, path) if leaf and path else None)


def _caller(model: nn.Module, path: str) -> str:
    """The module above that is called itself; nobody calls a ModuleList."""
    path = path.rpartition(".")[0]
    while path and isinstance(model.get_submodule(path), nn.ModuleList | nn.ModuleDict):
        path = path.rpartition(".")[0]
    return path


def _made(block: MakeBlock, channels: int, model: nn.Module, place: _Place, channel_dim: int) -> nn.Module:
    new = block(channels)
    if not isinstance(new, nn.Module):
        raise GCNetError(f"block makes a {type(new).__name__} for {channels} channels, not a torch.nn.Module")
    holder = place.holder_in(model)
    if channel_dim != 1:
        new = ChannelsFirst(new, channel_dim)
    for parameter in [*holder.parameters(), *model.parameters()]:
        if parameter.is_floating_point():
            new.to(parameter.device, parameter.dtype)
            break
    new.train(holder.training)
    new.register_forward_pre_hook(Expect(place.site, channels, channel_dim))
    return new


def _attach(model: nn.Module, place: _Place, block: nn.Module, name: str) -> None:
    holder, site = place.holder_in(model), model.get_submodule(place.site)
    holder.add_module(name, block)
    if site is holder and type(site).forward is nn.Sequential.forward:
        return  # it calls its children in order, so the block runs as its last one
    run = RunBlock(name, None if site is holder else holder)
    if place.watcher is None:
        site.register_forward_hook(run)
        return
    path = place.site[len(place.watcher) + 1 :] if place.watcher else place.site
    model.get_submodule(place.watcher).register_forward_pre_hook(Follow(name, path, run, site))


def _in_inserted(model: nn.Module, path: str) -> bool:
    return any(is_inserted(model.get_submodule(part)) for part in _prefixes(path))


def _prefixes(path: str) -> Iterator[str]:
    parts = path.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))


def _matches(path: str, pattern: str) -> bool:
    parts, wanted = path.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _below(path: str, top: str) -> bool:
    return not top or path == top or path.startswith(f"{top}.")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _near(pattern: str, paths: Iterable[str]) -> str:
    children = (path for path in paths if path and "." not in path)
    return did_you_mean(pattern, paths, otherwise=f"there is {', '.join(children)}")
