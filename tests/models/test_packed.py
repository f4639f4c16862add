"""Layers of optimised copies compute what the plain ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gcnet.models import packed
from gcnet.models.packed import Float32, FusedConv, PackedLinear


def test_fresh_weights_after_a_move():
    conv = nn.Conv2d(4, 8, 3, padding=1)
    ours, picture = FusedConv(conv), torch.randn(1, 4, 9, 9)
    ours(picture)
    ours = ours.double()
    torch.testing.assert_close(ours(picture.double()), conv.double()(picture.double()))


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str)
def test_a_linear_layer_of_any_number_of_rows(monkeypatch, dtype, off, onednn):
    monkeypatch.setattr(packed, "_ONEDNN", onednn and packed._ONEDNN)
    layer = nn.Linear(40, 30).to(dtype)
    ours = PackedLinear(layer)
    for rows in (50, 3, 0):
        x = torch.randn(rows, 40, dtype=dtype)
        torch.testing.assert_close(ours(x), layer(x), atol=off, rtol=off)
    ours = ours.double()
    torch.testing.assert_close(ours(x.double()), layer.double()(x.double()))


@pytest.mark.parametrize("images", [1, 3])
def test_full_precision_in_parts_of_a_map_is_that_of_the_whole(monkeypatch, images):
    monkeypatch.setattr(packed, "_CACHED", 30)  # two rows and a last one
    conv = nn.Conv2d(8, 5, 1)
    picture = torch.randn(images, 8, 7, 13).bfloat16().to(memory_format=torch.channels_last)
    ours = Float32(FusedConv(conv))(picture)
    torch.testing.assert_close(ours, conv(picture.float()))
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_an_exported_layer_in_full_precision_takes_maps_of_other_sizes():
    conv = nn.Conv2d(8, 5, 1)
    layer = Float32(FusedConv(conv))
    sizes = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    with torch.no_grad():
        program = torch.export.export(layer, (torch.randn(1, 8, 40, 60).half(),), dynamic_shapes=sizes)
        picture = torch.randn(1, 8, 90, 70).half()
        torch.testing.assert_close(program.module()(picture), conv(picture.float()))
