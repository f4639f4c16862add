"""Images at addresses such as s3://bucket/a.jpg, through fsspec (extra `remote`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gcnet.errors import GCNetError

LARGEST = 1 << 28  # bytes of an image that are fetched


def is_address(text: str) -> bool:
    """Whether it begins with a protocol."""
    protocol, mark, _ = text.partition("://")
    return bool(mark) and protocol.replace("+", "").isalnum()


def list_address(address: str) -> list[str]:
    """The addresses in a folder, or that match a pattern. An http(s) address is always one image.

    Raises GCNetError where the place cannot be looked at.
    """
    if address.startswith(("http://", "https://")):
        return [address]
    with _system(address) as (system, path):
        if "*" in path:
            found = system.glob(path)
        elif system.isdir(path):
            found = system.ls(path, detail=False)
        else:
            return [address]
        return [system.unstrip_protocol(one) for one in found]


def fetch(address: str) -> bytes:
    """The bytes of a file. Raises GCNetError if it cannot be fetched or is larger than `LARGEST`."""
    with _system(address) as (system, path), system.open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise GCNetError(f"{address} has more than {LARGEST >> 20} MB; shrink it, or leave it out")
    return data


@contextmanager
def _system(address: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the path in it; its errors inside are ours."""
    try:
        import fsspec

        yield fsspec.core.url_to_fs(address)
    except ImportError as error:  # of fsspec, or of the package for a service
        raise GCNetError(f"{address}: {error}; pip install 'gcnet[remote]'") from None
    except Exception as error:  # each service has its own kinds
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise GCNetError(
            f"{address} cannot be read ({reason}); check the address and who may read it"
        ) from None
