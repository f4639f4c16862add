"""What tests of context blocks share; they can import `small_networks`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def awake() -> Callable[[nn.Module], nn.Module]:
    """Moves every parameter of a block, so that none is left at zero."""

    def move(block: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in block.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        return block

    return move
