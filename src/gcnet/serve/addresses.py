"""Fetches images from addresses in a request.

Anyone who can send a request chooses what this machine connects to. So only public addresses are allowed: the
host's name is looked up once, and the connection goes to the address that was checked. Redirects are not
followed.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from urllib.parse import urlsplit

import urllib3

from gcnet.console import one_line
from gcnet.errors import GCNetError

CONNECT = 5.0  # seconds
CHUNK = 1 << 16
PORTS = {"http": 80, "https": 443}


def fetch_image(url: str, most: int, seconds: float) -> bytes:
    """The bytes at an address.

    Raises GCNetError: it is none of http or https, its host is not public, or does not answer with at most
    `most` bytes in time.
    """
    end = time.monotonic() + seconds
    shown = one_line(url, 120)
    try:
        parts = urlsplit(url)
        usual = PORTS[parts.scheme]
        host, port = parts.hostname or "", parts.port or usual
        address = public_address(host, port)
    except (ValueError, KeyError, OSError):
        raise GCNetError(f"{shown}: no public http or https address; upload the image") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Host": parts.netloc.rpartition("@")[2], "User-Agent": "gcnet", "Accept": "image/*"}
    timeout = urllib3.Timeout(connect=CONNECT, read=min(CONNECT, seconds))
    if parts.scheme == "https":
        pool = urllib3.HTTPSConnectionPool(
            address, port, timeout=timeout, server_hostname=host, assert_hostname=host
        )
    else:
        pool = urllib3.HTTPConnectionPool(address, port, timeout=timeout)
    try:
        with pool:
            answer = pool.request(
                "GET", target, headers=headers, redirect=False, retries=False, preload_content=False
            )
            if answer.status != 200:
                raise GCNetError(f"{shown}: the host answers {answer.status}; upload the image")
            data = bytearray()
            while chunk := answer.read1(CHUNK):
                data += chunk
                if len(data) > most or time.monotonic() > end:
                    raise GCNetError(f"{shown}: more than {most:,} bytes, or not there in {seconds:g} s")
            return bytes(data)
    except GCNetError:
        raise
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise GCNetError(f"{shown}: cannot be fetched ({type(error).__name__}); upload the image") from None


def public_address(host: str, port: int) -> str:
    """The first address of a host. Raises ValueError if one of its addresses is not public, or OSError."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not found or not all(is_public(address) for address in found):
        raise ValueError(host)
    return found[0]


def is_public(address: str) -> bool:
    """Whether an address is public, and does not embed another one that may not be."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        translated = parsed in ipaddress.ip_network("64:ff9b::/96")  # to IPv4, by a router
        if parsed.ipv4_mapped or parsed.sixtofour or parsed.teredo or translated:
            return False
    return parsed.is_global and not parsed.is_multicast
