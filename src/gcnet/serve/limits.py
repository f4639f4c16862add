"""The limits of the service, which `gcnet serve` has as options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a service.

    Attributes:
        queue: requests accepted at a time, from their first byte to their answer; others get status 429.
        batch_size: images predicted together.
        timeout: seconds that a request may take, half of them to come.
        max_bytes: largest size of a request in bytes.
        max_pixels: largest number of pixels of an image; one that is decoded takes three bytes a pixel and
            more.
    """

    queue: int = 64
    batch_size: int = 8
    timeout: float = 60.0
    max_bytes: int = 20_000_000
    max_pixels: int = 64_000_000
