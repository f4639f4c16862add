"""Images at addresses such as s3://bucket/a.jpg, through fsspec (extra `remote`)."""

from __future__ import annotations

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
    try:
        system, path = _system(address)
        if "*" in path:
            found = system.glob(path)
        elif system.isdir(path):
            found = system.ls(path, detail=False)
        else:
            return [address]
        return [system.unstrip_protocol(one) for one in found]
    except GCNetError:
        raise
    except Exception as error:  # each service has its own kinds
        raise _failed(address, error) from None


def fetch(address: str) -> bytes:
    """The bytes of a file. Raises GCNetError if it cannot be fetched or is larger than `LARGEST`."""
    try:
        system, path = _system(address)
        with system.open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except GCNetError:
        raise
    except Exception as error:
        raise _failed(address, error) from None
    if len(data) > LARGEST:
        raise GCNetError(f"{address} has more than {LARGEST >> 20} MB; shrink it, or leave it out")
    return data


def _system(address: str) -> tuple[Any, str]:
    try:
        import fsspec

        return fsspec.core.url_to_fs(address)
    except ImportError as error:  # of fsspec, or of the package for a service
        raise GCNetError(f"{address}: {error}; pip install 'gcnet[remote]'") from None


def _failed(address: str, error: Exception) -> GCNetError:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return GCNetError(f"{address} cannot be read ({reason}); check the address and who may read it")
