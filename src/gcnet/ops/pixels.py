"""Converts arrays of gray, colour and opacity, of any depth, to RGB uint8.

H x W pixels, C channels: 1 (gray), 2 (gray and opacity), 3 (RGB) or 4 (RGB and opacity).
"""

from __future__ import annotations

import logging
from functools import cache

import numpy as np
from jaxtyping import Shaped, UInt8

from gcnet.errors import GCNetError

log = logging.getLogger(__name__)

KINDS = "a path, bytes, a binary file, a PIL image, an H x W x 3 uint8 RGB array or a 3 x H x W tensor"


def as_rgb(image: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "H W 3"]:
    """An H x W or H x W x C array as RGB: see `gcnet.ops.decode.as_rgb_array`."""
    channels = 1 if image.ndim == 2 else image.shape[-1]
    known = image.ndim in (2, 3) and channels in (1, 2, 3, 4) and image.dtype.kind in "buif"
    if not known or not image.size:
        raise GCNetError(f"is {image.dtype} of shape {image.shape}; give {KINDS}")
    image = image[:, :, None] if image.ndim == 2 else image
    colours, opacity = image, None
    if channels in (2, 4):
        colours, opacity = image[..., :-1], image[..., -1:]
    colours = _as_bytes(colours)
    if opacity is not None and (opacity := _as_bytes(opacity, bits=16)).min() < 255:
        colours = _on_white(colours, opacity)
    return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else np.ascontiguousarray(colours)


def _as_bytes(values: Shaped[np.ndarray, "H W C"], bits: int | None = None) -> UInt8[np.ndarray, "H W C"]:
    """Values of uint8; of uint16 the upper eight of their bits; floats in [0, 1] times 255."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        if bits is None:
            _tell_of_16_bits()
            bits = next(bits for bits in (8, 10, 12, 14, 16) if int(values.max()) < 1 << bits)
        return (values >> (bits - 8)).astype(np.uint8)
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(values.astype(np.float32) * 255).astype(np.uint8)
    raise GCNetError(
        f"has {values.dtype} values from {low:g} to {high:g}; images are uint8, uint16, or floats in [0, 1]"
    )


def _on_white(
    colours: UInt8[np.ndarray, "H W C"], opacity: UInt8[np.ndarray, "H W 1"]
) -> UInt8[np.ndarray, "H W C"]:
    laid = np.empty_like(colours)
    for top in range(0, len(colours), 256):  # a strip at a time: in 16 bits they need twice the memory
        strip = slice(top, top + 256)
        alpha = opacity[strip].astype(np.uint16)
        laid[strip] = (colours[strip] * alpha + 255 * (255 - alpha) + 127) // 255
    return laid


@cache
def _tell_of_16_bits() -> None:
    """Warns once in a process."""
    log.warning("images have 16 bits a channel: each is read at the range that it uses, of 8 to 16 bits")
