"""A small residual network for the tests of insertion."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Residual, with one activation used twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.later = None  # as networks have it that can do without a part

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


class Network(nn.Module):
    """Two stages of 16 and 32 channels, and a head of 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2)
        self.stage1 = nn.Sequential(Block(16), Block(16))
        self.neck = nn.Sequential(nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.stage2 = nn.Sequential(Block(32))
        self.parts = nn.ModuleList([nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)])
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.neck(self.stage1(self.stem(x))))
        for part in self.parts:
            x = part(x)
        return self.head(x.mean(dim=(2, 3)))


def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


def stir(model: nn.Module, name: str = "context") -> None:
    """Gives the inserted blocks random weights, so that their presence shows."""
    torch.manual_seed(1)
    for key, parameter in model.named_parameters():
        if f"{name}." in key:
            nn.init.normal_(parameter, std=0.3)
