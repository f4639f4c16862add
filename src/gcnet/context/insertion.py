"""Puts context blocks into any network, without changes to its code (where: arXiv 1904.11492, section 5.1).

A block becomes a child of the module that it is put into; the network's own parameters keep their names. The
module whose `forward` calls the block gets a subclass of its class. The subclass runs the same `forward` on a
view of the module in which the preceding module is replaced by that module followed by the block. So tracers,
compilers and copies see two modules of the network, one after the other.

N images, C channels, `...` positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache, partial, wraps
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from gcnet.console import did_you_mean, listed
from gcnet.context.blocks import make_block
from gcnet.context.residual import CONTAINERS, called_modules, residual_blocks
from gcnet.context.widths import Expect, is_inserted, layout, probed_channels, shown
from gcnet.context_spec import find_block
from gcnet.errors import GCNetError

Position = Literal["after1x1", "after_add", "output"]
MakeBlock = Callable[[int], nn.Module]
KINDS: dict[Any, type[nn.Module]] = {}  # classes of views; compilers look through no functools.cache


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
        GCNetError: there is no such block or option, nothing matches `where`, C cannot be found, or there is
            a block of that name already. The model is then unchanged.
    """
    make = _maker(block, options or {})
    places, there = _places(model, where, position), inserted_blocks(model)
    for place in places:
        if _join(place.holder, name) in there:
            raise GCNetError(
                f'{shown(place.holder)} already has "{name}": remove that first, or pass another name='
            )
        if hasattr(model.get_submodule(place.holder), name):
            raise GCNetError(f'{shown(place.holder)} has a "{name}" of its own: pass another name=')
    found = {}
    for place in places:
        holder = model.get_submodule(place.holder)
        found[place.site] = layout(holder, _within(place.site, place.holder))
    dims = {site: channel_dim or dim for site, (_, dim) in found.items()}
    if channels is not None:
        widths = dict.fromkeys(found, channels)
    elif example is not None:
        widths = probed_channels(model, dims, example)
    else:
        widths = {site: width for site, (width, _) in found.items() if width is not None}
        if unknown := [site for site in found if site not in widths]:
            told = f"{shown(unknown[0])} does not tell how many channels it returns"
            raise GCNetError(f"{told}: pass channels=, or example= an input")
    blocks = [_made(make, widths[place.site], model, place, dims[place.site]) for place in places]
    for place, new in zip(places, blocks, strict=True):
        _attach(model, place, new, name)
    return [_join(place.holder, name) for place in places]


def remove(model: nn.Module, *, name: str | None = None) -> list[str]:
    """Removes the blocks that `insert` added, all or those of one `name`. Returns their names.

    Afterwards the model's state dict and outputs are those of a model that never had them, but for what
    training changed in its own parameters.
    """
    module: Any
    for module in model.modules():
        if "_runs" in vars(module):
            kept = [run for run in module._runs if name not in (None, run.block.rpartition(".")[2])]
            module._runs = kept
            if not kept:
                module.__class__ = type(module).__bases__[0]
                del module._runs
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
    """Names of modules: whose output goes through the block, who holds that, and whose `forward` runs it."""

    site: str
    holder: str
    caller: str


def _maker(block: MakeBlock | str, options: Mapping[str, Any]) -> MakeBlock:
    if isinstance(block, str):
        find_block(block, options)
        return partial(make_block, block, **options)
    if options:
        raise GCNetError("options are those of a block given by name; bind those of a class with partial()")
    if isinstance(block, nn.Module):
        raise GCNetError(
            f"block is one module, and every place needs its own: pass what makes it, {type(block).__name__}"
        )
    return block


def _places(model: nn.Module, where: str | Sequence[str] | None, position: str) -> list[_Place]:
    if position not in ("after1x1", "after_add", "output"):
        raise GCNetError(f'position is "after1x1", "after_add" or "output", not {position!r}')
    if where is None and position == "output":
        raise GCNetError('position="output" needs where=, the names of the modules')
    inserted = inserted_blocks(model)
    modules = [path for path, _ in model.named_modules() if not any(_below(path, top) for top in inserted)]
    patterns = [""] if where is None else [where] if isinstance(where, str) else list(where)
    if not patterns:
        raise GCNetError("where is empty: name modules, or leave it out for the whole model")
    matched = {pattern: [path for path in modules if _matches(path, pattern)] for pattern in patterns}
    for pattern, paths in matched.items():
        if not paths:
            known = f"there is {', '.join(path for path in modules if path and '.' not in path)}"
            raise GCNetError(f'no module is named "{pattern}"; {did_you_mean(pattern, modules, known)}')
    named = {path for paths in matched.values() for path in paths}
    if position == "output":
        return [_output_place(model, path) for path in modules if path in named]
    found = residual_blocks(model, lambda path: path in modules and any(_below(path, top) for top in named))
    for pattern, paths in matched.items():
        if not any(_below(path, top) for path in found for top in paths):
            raise GCNetError(
                f'no residual block in {shown(pattern)}; position="output" takes any module by its name, '
                f"such as {listed(_parts(model, paths[0]))}"
            )
    if position == "after_add":
        return [_Place(path, path, path) for path in found]
    return [_Place(_join(path, end), path, path) for path, end in found.items()]


def _parts(model: nn.Module, top: str) -> list[str]:
    """The larger modules at most two levels below `top` that a block can follow."""
    around = model.get_submodule(top)
    below = [(path, module) for path, module in around.named_modules() if path.count(".") < 2]
    larger = [path for path, module in below if path and any(True for _ in module.children())]
    return [_join(top, path) for path in larger or [path for path, _ in below[1:]]] or [top]


def _output_place(model: nn.Module, path: str) -> _Place:
    module = model.get_submodule(path)
    if isinstance(module, CONTAINERS) and not _runs_children(module):
        raise GCNetError(
            f"{shown(path)} is a {type(module).__name__}, which cannot hold a block: name modules in it"
        )
    # A leaf may be replaced, as by SyncBatchNorm: its caller still runs the block.
    caller = path.rpartition(".")[0]
    while caller and isinstance(model.get_submodule(caller), nn.ModuleList | nn.ModuleDict):
        caller = caller.rpartition(".")[0]
    leaf = path and not any(True for _ in module.children())
    calls = called_modules(model.get_submodule(caller)) if leaf else []
    return _Place(path, path, caller if _within(path, caller) in calls else path)


def _made(make: MakeBlock, channels: int, model: nn.Module, place: _Place, channel_dim: int) -> nn.Module:
    try:
        new = make(channels)
    except ValueError as error:
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
    caller: Any = model.get_submodule(place.caller)
    model.get_submodule(place.holder).add_module(name, block)
    if place.site == place.caller and _runs_children(caller):
        return  # the block runs as its last child
    if "_runs" not in vars(caller):
        caller.__class__ = _with_blocks(type(caller))
        caller._runs = []
    run = _Run(_within(place.site, place.caller), _join(_within(place.holder, place.caller), name))
    caller._runs = [*caller._runs, run]  # another list: copies of the module have this one
    _with_runs(caller, type(caller).__bases__[0])  # makes the classes, which compilers cannot


class _Run(NamedTuple):
    """Names within the module that runs a block: whose output goes into it ("": its own), and the block."""

    site: str
    block: str


@cache
def _with_blocks(base: type[nn.Module]) -> type[nn.Module]:
    """A subclass of `base` whose `forward` is that of `base`, with the blocks of `_runs`."""

    @wraps(base.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = base.forward(_with_runs(self, base), *args, **kwargs)
        for run in self._runs:
            if not run.site:
                out = _block(self, run)(out)
        return out

    # In a file there is `base`, which can be imported, and not this class.
    def reduce(self: Any) -> tuple[Any, ...]:
        return _blank, (base,), self.__dict__

    namespace = {"forward": forward, "plain_forward": base.forward, "__reduce__": reduce}
    return type(base.__name__, (base,), namespace | {"__module__": base.__module__})


def _blank(base: type[nn.Module]) -> nn.Module:
    return object.__new__(_with_blocks(base))


def _with_runs(module: Any, base: type[nn.Module]) -> nn.Module:
    """A view of `module`, of class `base`, where blocks run after the sites in it."""
    view = _view(module, base)
    for run in module._runs:
        if run.site:
            _follow(view, run.site, _block(module, run))
    return view


def _view(module: nn.Module, base: type[nn.Module], block: nn.Module | None = None) -> Any:
    """The module, of class `base`, as one whose children can be replaced, and which may run a block too."""
    kind = KINDS.get((base, block is None))
    if kind is None:
        kind = KINDS[base, block is None] = _viewed(base) if block is None else _followed(base)
    view = object.__new__(kind)
    children = dict(module._modules)
    view.__dict__.update(module.__dict__)
    view.__dict__.update(_modules=children, _viewed=module, _block=block)
    return view


def _follow(view: nn.Module, site: str, block: nn.Module) -> None:
    """Lets `block` run after the module named `site` in a view."""
    name, _, rest = site.partition(".")
    child: Any = view._modules[name]
    if rest:
        inner = view._modules[name] = _view(child, type(child))
        _follow(inner, rest, block)
    else:
        view._modules[name] = _view(child, type(child), block)


def _viewed(base: type[nn.Module]) -> type[nn.Module]:
    """A subclass of `base` for views: what is assigned to one is assigned to its module, and lasts."""

    def assign(self: Any, name: str, value: Any) -> None:
        setattr(self._viewed, name, value)
        base.__setattr__(self, name, value)

    def delete(self: Any, name: str) -> None:
        delattr(self._viewed, name)
        self.__dict__.pop(name, None)

    namespace = {"__setattr__": assign, "__delattr__": delete, "__module__": base.__module__}
    return type(base.__name__, (base,), namespace)


def _followed(base: type[nn.Module]) -> type[nn.Module]:
    """As `_viewed`, of a module that a block runs after: with its attributes, an instance of its class."""

    namespace: dict[str, Any] = {
        "__call__": lambda self, *args, **kwargs: self._block(self._viewed(*args, **kwargs)),
        "forward": lambda self, *args, **kwargs: self._block(self._viewed.forward(*args, **kwargs)),
        "__module__": base.__module__,
    }
    return type(base.__name__, (_viewed(base),), namespace)


def _block(module: nn.Module, run: _Run) -> nn.Module:
    try:
        return module.get_submodule(run.block)
    except AttributeError:
        raise GCNetError(f'"{run.site}" was replaced after insertion, and its block is lost') from None


class ChannelsFirst(nn.Module):
    """Runs a block on maps whose channels are not in dimension 1."""

    def __init__(self, block: nn.Module, channel_dim: int) -> None:
        super().__init__()
        self.block, self.channel_dim = block, channel_dim

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.movedim(self.channel_dim, 1)).movedim(1, self.channel_dim)


def _runs_children(module: nn.Module) -> bool:
    """Whether the module is a sequence that calls its children in order."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _below(path: str, top: str) -> bool:
    return not top or path == top or path.startswith(f"{top}.")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _within(path: str, top: str) -> str:
    """The name of a module within the module `top`, which is it or around it."""
    return path[len(top) :].removeprefix(".")
