"""Finds the residual blocks of a network, and the end of the residual branch in each.

A block is recognised by what its `forward` computes, not by its class: it returns its input, or a projection
of it, plus a branch that one of its modules ends, and no layer with weights follows the sum. So one rule
finds the blocks of torchvision, timm and transformers, and of your own networks.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import signature, unwrap
from typing import Any

import torch
from torch import fx, nn

from gcnet.context.inspection import undone

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
JOINS = (operator.mul, operator.imul, torch.mul, "mul", "mul_", torch.cat)


def residual_blocks(model: nn.Module, include: Callable[[str], bool] = lambda name: True) -> dict[str, str]:
    """The residual blocks of `model` in its order; of nested ones the inner, unless there is only one inside.

    Args:
        model: any network; nothing is run.
        include: whether to consider the module of a name.

    Returns:
        From a block's name to the name, within the block, of the module whose output ends the residual
        branch: "bn3" in torchvision's bottleneck. A block whose `forward` torch.fx cannot trace is not found.
    """
    found: dict[str, str] = {}
    # Children before parents: what contains two blocks is a stage or a network, and need not be traced.
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, CONTAINERS) or not any(True for _ in module.children()) or not include(name):
            continue
        inner = [other for other in found if not name or other.startswith(f"{name}.")]
        end = _Trace.branch_end(module) if len(inner) < 2 else None
        if end is not None:
            for other in inner:  # one residual part in a residual block is an attention module of its branch
                del found[other]
            found[name] = end
    return dict(reversed(found.items()))


def called_modules(module: nn.Module) -> list[nn.Module] | None:
    """The modules that the module's own `forward` calls, with its optional arguments or without them; None if
    torch.fx cannot trace it."""
    if isinstance(module, torch.jit.ScriptModule):
        return []  # it runs its own code
    if unwrap(type(module).forward) is nn.MultiheadAttention.forward:
        return []  # it hands the weights of its layer to a function
    nodes = [node for graph in _graphs(module) for node in graph.nodes]
    if "forward" in vars(module) or not nodes:
        return None
    return [module.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"]


def _graphs(module: nn.Module) -> Iterator[fx.Graph]:
    """What the module's own `forward` computes, with its optional arguments and without them, as far as
    torch.fx can trace it."""
    for optional in (True, False):
        with suppress(Exception):  # control flow on data, odd arguments: whatever stops the tracer
            yield _OwnForward.graph(module, optional=optional)


class _OwnForward(fx.Tracer):
    """Traces one module's own `forward`, without inserted blocks: the modules that it calls stay calls."""

    @classmethod
    def graph(cls, module: nn.Module, *, optional: bool) -> fx.Graph:
        # fx cannot patch a decorator that takes `*args`, and that of inserted blocks would run them.
        kind: Any = type(type(module).__name__, (type(module),), {})
        kind.forward = unwrap(type(module).forward)  # set later: `__init_subclass__` may decorate it again
        own = object.__new__(kind)
        own.__dict__ = module.__dict__
        parameters = signature(kind.forward).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        with undone(module):  # what `forward` assigns is a proxy
            return cls().trace(own, None if optional else defaults)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def create_args_for_root(self, *args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
        """`*args` and `**kwargs`, which `forward` may hand on, are empty."""
        forward, given = super().create_args_for_root(*args, **kwargs)
        for place, one in enumerate(given):
            name = str(one.node.target) if isinstance(one, fx.Proxy) else ""
            if name.startswith("*"):
                given[place] = {} if name.startswith("**") else ()
        return forward, given


class _Trace:
    """What one module's `forward` computes from its first argument."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self.nodes: list[fx.Node] = list(graph.nodes)
        self.modules = dict(module.named_modules())
        self.start = next((node for node in self.nodes if node.op == "placeholder"), None)

    @classmethod
    def branch_end(cls, module: nn.Module) -> str | None:
        """The module at which the residual branch ends; None if this is no residual block."""
        graph = next(_graphs(module), None)
        if graph is None:
            return None
        trace = cls(module, graph)
        total = trace.sum()
        if total is None:
            return None
        shortcut, branch = sorted(total.args[:2], key=trace.learnt)
        if trace.learnt(shortcut) < 0 or trace.learnt(shortcut) == trace.learnt(branch):
            return None
        if trace.part(shortcut) != trace.part(branch):
            return None
        return trace.last_call(branch)

    def sum(self) -> fx.Node | None:
        """The sum that is returned, perhaps through an activation; None if there is none."""
        node: Any = self.nodes[-1].args[0]
        while isinstance(node, fx.Node) and not self._adds(node):
            if self._called(node) is not None and _leaves_with_parameters(self.modules[str(node.target)]):
                return None
            node = self._main_input(node)
        return node if isinstance(node, fx.Node) else None

    def last_call(self, node: Any) -> str | None:
        """The module that made `node`; stochastic depth is skipped, so that it drops the block too.

        A module that is called twice (a shared activation) marks no place; then it is the one before it. None
        if two modules made it, as where one is a gate for the other.
        """
        calls = [called for called in map(self._called, self.nodes) if called is not None]
        drop = None
        while node is not None:
            called = self._called(node)
            if called is None and drop is not None:  # a scale on the branch, before the drop: stay behind it
                return drop
            if called is not None and calls.count(called) == 1:
                if not drops(self.modules[called]):
                    return called
                drop = drop or called
            if node.target in JOINS and sum(self.learnt(each) >= 0 for each in node.all_input_nodes) > 1:
                return None
            node = self._main_input(node)
        return drop

    def learnt(self, node: Any) -> int:
        """How many modules with parameters lie between the input and `node`; -1: it has nothing of it."""
        seen: set[fx.Node] = set()
        ahead = [node]
        while ahead:
            node = ahead.pop()
            if node not in seen:
                seen.add(node)
                ahead.extend(node.all_input_nodes)
        if self.start not in seen:
            return -1
        called = [name for name in map(self._called, seen) if name is not None]
        return sum(_leaves_with_parameters(self.modules[name]) for name in called)

    def part(self, node: Any) -> Any:
        """The key of the map in the input that `node` is computed from; None if the input is one map."""
        while isinstance(node, fx.Node):
            last, node = node, self._main_input(node)
            if node is self.start and last.target is operator.getitem and isinstance(last.args[1], str | int):
                return last.args[1]
        return None

    def _adds(self, node: fx.Node) -> bool:
        return node.target in SUMS and all(isinstance(arg, fx.Node) for arg in node.args[:2])

    def _called(self, node: fx.Node) -> str | None:
        return str(node.target) if node.op == "call_module" else None

    def _main_input(self, node: fx.Node) -> fx.Node | None:
        return max(node.all_input_nodes, key=self.learnt, default=None)


def _leaves_with_parameters(module: nn.Module) -> int:
    return sum(1 for part in module.modules() if any(True for _ in part.parameters(recurse=False)))


def drops(module: nn.Module) -> bool:
    """Whether a module is stochastic depth or dropout of any library; timm uses Identity if it is off."""
    name = type(module).__name__.lower()
    return isinstance(module, nn.Identity) or "drop" in name or "stochastic" in name
