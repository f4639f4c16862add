"""Drawing: objects on images, attention over images, and sheets of images."""

from gcnet.viz.heat import attention_overlay, mark_point
from gcnet.viz.objects import class_colors, draw_detections, draw_targets
from gcnet.viz.sheet import grid, sheet

__all__ = [
    "attention_overlay",
    "class_colors",
    "draw_detections",
    "draw_targets",
    "grid",
    "mark_point",
    "sheet",
]
