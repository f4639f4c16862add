"""`gcnet.ops.add_relu` as Triton kernels: one pass over the map forward, one backward.

N images, C channels, P positions of a map, K pieces of its positions. Maps are dense, contiguous or
channels-last, and all of one layout. Arithmetic is in float32, whatever the maps are stored in.
"""

# pyright: reportArgumentType=false, reportMissingImports=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROUNDS = 8  # blocks of positions that one program of the backward pass sums up
# (positions, channels) of a block: along the dimension that lies together in memory
CONTIGUOUS_BLOCK, CHANNELS_LAST_BLOCK = (1024, 1), (16, 64)


def add_relu_(z: Tensor, shortcut: Tensor, shift: Tensor | None) -> None:
    """relu(z + shortcut + shift), written into `z`. `shift` is (N, C), of any strides."""
    strides, block = _layout(z)
    images, channels, positions = z.shape[0], z.shape[1], z[0, 0].numel()
    grid = (triton.cdiv(positions, block[0]), triton.cdiv(channels, block[1]), images)
    of_shift = (0, 0) if shift is None else shift.stride()
    with torch.cuda.device_of(z):
        _forward[grid](
            z, shortcut, z if shift is None else shift, channels, positions, *strides, *of_shift,
            HAS_SHIFT=shift is not None, BLOCK_P=block[0], BLOCK_C=block[1],
        )  # fmt: skip


def add_relu_backward(grad: Tensor, out: Tensor, wants_sum: bool) -> tuple[Tensor, Tensor | None]:
    """grad where `out` is above zero, and in float32 its sum over positions, (N, C), if wanted."""
    strides, block = _layout(out)
    images, channels, positions = out.shape[0], out.shape[1], out[0, 0].numel()
    pieces = triton.cdiv(positions, block[0] * ROUNDS)
    result = torch.empty_like(grad)
    sums = grad.new_empty((images, pieces, channels), dtype=torch.float32) if wants_sum else None
    grid = (pieces, triton.cdiv(channels, block[1]), images)
    with torch.cuda.device_of(out):
        _backward[grid](
            grad, out, result, out if sums is None else sums, channels, positions, *strides,
            WANTS_SUM=wants_sum, BLOCK_P=block[0], BLOCK_C=block[1], ROUNDS=ROUNDS,
        )  # fmt: skip
    return result, None if sums is None else sums.sum(dim=1)


def _layout(z: Tensor) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Strides of image, channel and position, and the shape of a block."""
    channels, positions = z.shape[1], z[0, 0].numel()
    if z.is_contiguous():
        return (channels * positions, positions, 1), CONTIGUOUS_BLOCK
    return (channels * positions, 1, channels), CHANNELS_LAST_BLOCK


@triton.jit
def _forward(
    z_ptr, shortcut_ptr, shift_ptr, channels, positions,
    image_stride, channel_stride, position_stride, shift_image, shift_channel,
    HAS_SHIFT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # Offsets in 64 bits: a batch may hold more elements than 32 bits count, and so may a picture.
    image = tl.program_id(2).to(tl.int64)
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    p = (tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)).to(tl.int64)
    inside = (p < positions)[:, None] & (c < channels)[None, :]
    at = image * image_stride + p[:, None] * position_stride + c[None, :] * channel_stride
    value = tl.load(z_ptr + at, inside, 0).to(tl.float32)
    value += tl.load(shortcut_ptr + at, inside, 0).to(tl.float32)
    if HAS_SHIFT:
        shift = tl.load(shift_ptr + image * shift_image + c * shift_channel, c < channels, 0).to(tl.float32)
        value += shift[None, :]
    value = tl.where(value < 0, 0.0, value)  # NaN stays NaN, as in PyTorch
    tl.store(z_ptr + at, value.to(z_ptr.dtype.element_ty), inside)


@triton.jit
def _backward(
    grad_ptr, out_ptr, result_ptr, sums_ptr, channels, positions,
    image_stride, channel_stride, position_stride,
    WANTS_SUM: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    piece, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    total = tl.zeros((BLOCK_C,), dtype=tl.float32)
    for i in range(ROUNDS):
        p = ((piece * ROUNDS + i) * BLOCK_P + tl.arange(0, BLOCK_P)).to(tl.int64)
        inside = (p < positions)[:, None] & (c < channels)[None, :]
        at = image * image_stride + p[:, None] * position_stride + c[None, :] * channel_stride
        grad = tl.load(grad_ptr + at, inside, 0).to(tl.float32)
        out = tl.load(out_ptr + at, inside, 0).to(tl.float32)
        grad = tl.where(out <= 0, 0.0, grad)
        tl.store(result_ptr + at, grad.to(result_ptr.dtype.element_ty), inside)
        total += tl.sum(grad, 0)
    if WANTS_SUM:
        row = image * tl.num_programs(0) + piece
        tl.store(sums_ptr + row * channels + c, total, c < channels)
