"""Runs inserted blocks: the `forward` of a network's module stays, and calls them where they were put.

The module whose `forward` calls a block gets a subclass of its class. The subclass runs the same `forward` on
a view of the module in which the preceding module is replaced by that module followed by the block. So
tracers, compilers and copies see two modules of the network, one after the other.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import Any, NamedTuple

from torch import nn

from gcnet.errors import GCNetError

KINDS: dict[Any, type[nn.Module]] = {}  # classes of views; compilers look through no functools.cache


class Run(NamedTuple):
    """Names within the module that runs a block: whose output goes into it, and the block.

    The site "" is the module itself; None: a sequence, of which the block is the last child. `before`: the
    site's input goes through the block.
    """

    site: str | None
    block: str
    before: bool


def runs_block(caller: Any, site: str | None, block: str, *, before: bool = False) -> None:
    """Lets `caller` run the module named `block` within it as `Run` says."""
    if "_runs" not in vars(caller):
        caller.__class__ = _with_blocks(type(caller))
        caller._runs = []
    # Another list: copies of the module have this one.
    caller._runs = [*caller._runs, Run(site, block, before)]
    _with_runs(caller, type(caller)._plain)  # makes the classes, which compilers cannot


def forget_blocks(module: Any, name: str | None) -> None:
    """Undoes `runs_block` for the blocks of a name, or for all."""
    if "_runs" in vars(module):
        module._runs = [run for run in module._runs if name not in (None, run.block.rpartition(".")[2])]
        # A class that others made of this one, as FSDP does, stays, and runs no block.
        if not module._runs and "_plain" in vars(type(module)):
            module.__class__ = type(module)._plain
            del module._runs


@cache
def _with_blocks(base: type[nn.Module]) -> type[nn.Module]:
    """A subclass of `base` whose `forward` is that of `base`, with the blocks of `_runs`."""

    @wraps(base.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = base.forward(_with_runs(self, base), *args, **kwargs)
        for run in self._runs:
            if run.site == "":
                out = _block(self, run)(out)
        return out

    # In a file there is `base`, which can be imported, and not this class.
    def reduce(self: Any) -> tuple[Any, ...]:
        return _blank, (base,), self.__dict__

    namespace: dict[str, Any] = {"forward": forward, "_plain": base, "__reduce__": reduce}
    if nn.Sequential in base.__mro__:  # its owner's `[:-1]` means what it meant
        namespace["__len__"] = lambda self: len(_without_blocks(self, base))
        namespace["__getitem__"] = lambda self, index: _without_blocks(self, base)[index]
    return type(base.__name__, (base,), namespace | {"__module__": base.__module__})


def _without_blocks(module: Any, base: type[nn.Module]) -> Any:
    plain, blocks = object.__new__(base), [run.block for run in module._runs]
    plain.__dict__.update(module.__dict__)
    plain.__dict__["_modules"] = {name: part for name, part in module._modules.items() if name not in blocks}
    return plain


def _blank(base: type[nn.Module]) -> nn.Module:
    return object.__new__(_with_blocks(base))


def _with_runs(module: Any, base: type[nn.Module]) -> nn.Module:
    """A view of `module`, of class `base`, where blocks run after the sites in it."""
    if not any(run.site for run in module._runs):
        return module
    view = _view(module, base)
    for run in module._runs:
        if run.site:
            _follow(view, run.site, _block(module, run), run.before)
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


def _follow(view: nn.Module, site: str, block: nn.Module, before: bool) -> None:
    """Lets `block` run after, or before, the module named `site` in a view."""
    name, _, rest = site.partition(".")
    child: Any = view._modules[name]
    if rest:
        inner = view._modules[name] = _view(child, type(child))
        _follow(inner, rest, block, before)
    else:
        view._modules[name] = _view(child, type(child), block)
        view._modules[name].__dict__["_before"] = before


def _viewed(base: type[nn.Module]) -> type[nn.Module]:
    """A subclass of `base` for views: what is assigned to one is assigned to its module, and lasts."""

    def assign(self: Any, name: str, value: Any) -> None:
        setattr(self._viewed, name, value)
        base.__setattr__(self, name, value)

    def delete(self: Any, name: str) -> None:
        delattr(self._viewed, name)
        self._modules.pop(name, None)
        self.__dict__.pop(name, None)

    namespace = {"__setattr__": assign, "__delattr__": delete, "__module__": base.__module__}
    return type(base.__name__, (base,), namespace)


def _followed(base: type[nn.Module]) -> type[nn.Module]:
    """As `_viewed`, of a module with a block: with its attributes, an instance of its class."""
    namespace: dict[str, Any] = {
        "__call__": lambda self, *args, **kwargs: _in_turn(self, self._viewed, args, kwargs),
        "forward": lambda self, *args, **kwargs: _in_turn(self, self._viewed.forward, args, kwargs),
        "__module__": base.__module__,
    }
    return type(base.__name__, (_viewed(base),), namespace)


def _in_turn(view: Any, call: Any, args: Any, kwargs: Any) -> Any:
    if view._before:
        return call(view._block(args[0]), *args[1:], **kwargs)
    return view._block(call(*args, **kwargs))


def _block(module: nn.Module, run: Run) -> nn.Module:
    try:
        return module.get_submodule(run.block)
    except AttributeError:
        raise GCNetError(f'"{run.site}" was replaced after insertion, and its block is lost') from None
