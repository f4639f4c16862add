"""torchvision's compiled operators, without importing torchvision.

The package imports its models and with them PyTorch's compiler: more than all else that a prediction needs.
What inference calls is in its library alone. The derivatives are in the package, which training imports.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

LIBRARIES = ("_C_stable", "_C")  # of torchvision from 0.27 on, and before


def load_operators() -> None:
    """Makes `torch.ops.torchvision` known, from the library if it is where it should be."""
    package = find_spec("torchvision")
    if "torchvision" not in sys.modules and package is not None and package.origin is not None:
        finder = FileFinder(str(Path(package.origin).parent), (ExtensionFileLoader, EXTENSION_SUFFIXES))
        for name in LIBRARIES:
            library = finder.find_spec(name)
            if library is not None and library.origin is not None:
                try:
                    torch.ops.load_library(library.origin)
                    return
                except OSError:  # it has needs that the package knows of
                    break
    import torchvision  # noqa: F401


def nms(
    boxes: Float[Tensor, "R 4"], scores: Float[Tensor, " R"], iou_threshold: float
) -> Int64[Tensor, " K"]:
    """torchvision.ops.nms: indices of the boxes kept, best score first."""
    return torch.ops.torchvision.nms(boxes.float(), scores.float(), iou_threshold)


load_operators()
