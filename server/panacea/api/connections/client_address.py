"""The address of a request's client, and which proxies are believed when they name one."""

import ipaddress
from collections.abc import Sequence

from starlette.types import Scope

UNIX = "unix"
"""The address of every peer on a Unix socket. Such a peer is a proxy."""

_NETWORK_BITS = 64
"""One customer of a provider has at least so large a part of IPv6."""


def client_address(scope: Scope) -> str:
    """The address of the client that sent a request; behind a trusted proxy, the one that the proxy names.

    All addresses of an IPv6 /64 count as one. "unknown" under a server that tells none.
    """
    client = scope.get("client")
    return "unknown" if client is None else shared_address(client[0])


def shared_address(address: str) -> str:
    """An address, or the network of an IPv6 address: what one client can choose freely counts as one.

    "unknown" for anything else, so that a client that invents names for itself gains nothing.
    """
    parsed = _parsed(address)
    if parsed is None:
        return "unknown"
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.IPv6Network((int(parsed), _NETWORK_BITS), strict=False))


def plain_address(address: str) -> str:
    """An address without the prefix that IPv4 addresses have on an IPv6 socket."""
    parsed = _parsed(address)
    return address if parsed is None else str(parsed)


class TrustedProxies:
    """The addresses and networks whose `X-Forwarded-For` is believed. Every peer on a Unix socket is one."""

    def __init__(self, proxies: Sequence[str]) -> None:
        """Raises `ValueError` for what is neither an address nor a network."""
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]

    def __contains__(self, address: str) -> bool:
        if address == UNIX:
            return True
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    @property
    def names(self) -> list[str]:
        """The proxies as uvicorn's middleware takes them: it would ignore a network with bits beyond its mask."""
        return [UNIX, *map(str, self._networks)]


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, ipaddress.IPv6Address) else parsed
