"""Drawing. The names are imported on first use: sheets want matplotlib, which takes a second or more."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcnet.viz.heat import attention_overlay, mark_point
    from gcnet.viz.objects import class_colors, draw_detections, draw_targets
    from gcnet.viz.sheet import grid

_HOME = {
    "attention_overlay": "heat",
    "class_colors": "objects",
    "draw_detections": "objects",
    "draw_targets": "objects",
    "grid": "sheet",
    "mark_point": "heat",
}

__all__ = ["attention_overlay", "class_colors", "draw_detections", "draw_targets", "grid", "mark_point"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gcnet.viz' has no attribute {name!r}")
    return getattr(import_module(f"gcnet.viz.{_HOME[name]}"), name)
