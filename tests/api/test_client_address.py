"""Whose address a limit per client counts by, with and without proxies in front."""

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from panacea.api.access.admission import Admission
from panacea.api.access.key_ring import KeyRing
from panacea.api.connections.client_address import TrustedProxies, client_address
from panacea.api.connections.connection import HttpConfig
from panacea.config import Limits


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("unix", "unknown"),
        ("unknown", "unknown"),
        ("a" * 10_000, "unknown"),
    ],
)
def test_a_client_is_an_address_or_the_network_of_a_subscriber(host: str, counted: str) -> None:
    assert client_address({"type": "http", "client": (host, 5)}) == counted


def test_a_client_without_address_has_none() -> None:
    assert client_address({"type": "http", "client": None}) == "unknown"


def test_networks_addresses_and_unix_sockets_are_trusted() -> None:
    proxies = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
    trusted = {"10.1.2.3", "192.0.2.7", "::ffff:10.1.2.3", "2001:db8::5", "unix"}
    assert {host for host in (*trusted, "192.0.2.8", "2001:db9::5", "", "testclient") if host in proxies} == trusted


def seen(peer: str, forwarded: str | None, *trusted: str) -> str:
    """The client's address, for the application of a server with these proxies."""
    found: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        found.append(client_address(scope))

    limits = Limits()
    config = HttpConfig(app, limits, Admission(limits, 1, KeyRing((), limits)), trusted)
    config.load()
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    scope: Any = {"type": "http", "client": (peer, 5), "headers": headers}
    unused: Any = None
    asyncio.run(config.loaded_app(scope, unused, unused))
    return found[0]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "203.0.113.1, 192.0.2.7", "192.0.2.7"),  # the client wrote the first one
        ("10.0.0.1", "192.0.2.7, 10.0.0.2", "192.0.2.7"),  # two proxies
        ("10.0.0.1", None, "10.0.0.1"),
        ("unix", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "192.0.2.7", "127.0.0.1"),
        ("203.0.113.1", "192.0.2.7", "203.0.113.1"),
    ],
)
@pytest.mark.parametrize("network", ["10.0.0.0/8", "10.9.9.9/8"])
def test_only_a_trusted_proxy_is_believed(peer: str, forwarded: str | None, expected: str, network: str) -> None:
    assert seen(peer, forwarded, network) == expected
