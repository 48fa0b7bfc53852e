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
    """An address, or the network of an IPv6 address: what one client can choose freely counts as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), _NETWORK_BITS), strict=False))


class TrustedProxies:
    """The addresses and networks whose `X-Forwarded-For` is believed. Every peer on a Unix socket is one."""

    def __init__(self, proxies: Sequence[str]) -> None:
        """Raises `ValueError` for what is neither an address nor a network."""
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]

    def __contains__(self, address: str) -> bool:
        if address == UNIX:
            return True
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)
