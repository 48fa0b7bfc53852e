"""Who may ask without a key: for every route, in every form that a path can take on the wire. And from which pages."""

import itertools
import socket
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

from panacea.api import create_app
from panacea.api.access.bearer_keys import PUBLIC_PATHS
from panacea.api.access.key_ring import RATE_HEADERS
from panacea.config import Limits, ServerConfig
from tests.api.chatting import CHAT, COMPLETIONS, body, error_of
from tests.api.fake_engine import FakeEngine
from tests.api.serving import NAME, SPACE, Served, serving
from tests.api.text_workers import text_workers

KEYS = ("first-key", "zweiter-schlüssel")

# Every route stands in one of these two lists; a new one fails the tests until somebody has decided.
OPEN = {("GET", "/"), ("HEAD", "/"), ("GET", "/health"), ("GET", "/ready"), ("*", "/page")}
GUARDED = {
    ("GET", "/docs"),
    ("HEAD", "/docs"),
    ("GET", "/openapi.json"),
    ("HEAD", "/openapi.json"),
    ("GET", "/metrics"),
    ("GET", "/v1/keys"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model:path}"),
    ("GET", "/v1/preferences"),
    ("GET", "/v1/evaluation"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/tokenize"),
    ("POST", "/v1/detokenize"),
}
GUARDED_PATHS = sorted({path.replace("{model:path}", NAME) for _, path in GUARDED})


async def make_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def guarded() -> Generator[Served]:
    """A server with keys that answers to all host names: nothing but the key stands in the way."""
    with serving(make_engine, api_keys=KEYS, allowed_hosts=("*",), limits=Limits(max_wrong_keys=10**6)) as served:
        yield served


@pytest.fixture(scope="module")
def stranger(guarded: Served) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=guarded.url) as client:
        yield client


def authorization(value: str) -> dict[bytes, bytes]:
    return {b"authorization": value.encode()}


def key(value: str) -> dict[bytes, bytes]:
    return authorization(f"Bearer {value}")


WRONG = [
    *map(
        key, ("wrong", "first-ke", "first-key2", "First-Key", "first-key,", "zweiter-schl\u00fcsse", "Bearer first-key")
    ),
    *map(authorization, ("", "Bearer", "first-key", "Basic first-key", "Bearerfirst-key", "\u00e9")),
]


def routes_of(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Method and path of every route, as FastAPI dispatches them. A kind that is not known here is an error."""
    for route in routes:
        if isinstance(route, Route | APIRoute):
            for method in route.methods or ():
                yield method, route.path
        elif isinstance(route, Mount):
            yield "*", route.path
        else:
            # Recent versions of FastAPI keep an included router whole.
            included: Any = getattr(route, "original_router", None)
            assert included is not None, f"nobody knows who may ask {route!r}"
            yield from routes_of(included.routes)


def application() -> FastAPI:
    return create_app(ServerConfig(NAME), FakeEngine(), text_workers(), SPACE, None)


def test_every_route_is_listed_as_open_or_guarded() -> None:
    assert set(routes_of(application().router.routes)) == OPEN | GUARDED
    assert not OPEN & GUARDED


def test_a_new_route_would_be_found() -> None:
    app = application()
    app.add_api_route("/v1/new", lambda: None, methods=["PUT"])
    assert set(routes_of(app.router.routes)) - OPEN - GUARDED == {("PUT", "/v1/new")}
    app.add_api_websocket_route("/v1/socket", lambda: None)
    with pytest.raises(AssertionError, match="nobody knows who may ask"):
        list(routes_of(app.router.routes))


def test_the_open_paths_are_these() -> None:
    assert {path for _, path in OPEN} - {"/page"} == PUBLIC_PATHS


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "get", "X-ANY"])
@pytest.mark.parametrize("path", [*GUARDED_PATHS, "/nothing", "/v1"])
def test_every_path_but_the_open_ones_needs_a_key(stranger: httpx2.Client, method: str, path: str) -> None:
    for headers in ({}, *WRONG):
        response = stranger.request(method, path, headers=headers)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        if method != "HEAD":
            assert error_of(response)["code"] == "invalid_api_key"
    for right in KEYS:
        assert stranger.request(method, path, headers=key(right)).status_code != 401


@pytest.mark.parametrize("path", [*sorted(PUBLIC_PATHS), "/page/main.js"])
def test_open_paths_need_none(stranger: httpx2.Client, path: str) -> None:
    for headers in ({}, *WRONG):
        assert stranger.get(path, headers=headers).status_code == 200


# Forms of a path.


def forms(path: str) -> Iterator[str]:
    """Request targets that another program could take for `path`, or that hide it behind an open one."""
    yield from (
        f"/{path}",
        f"{path}/",
        f"{path}//",
        path.upper(),
        f"/.{path}",
        f"/x/..{path}",
        f"{path}/.",
        f"{path};x",
    )
    yield from (path.replace("/", "//"), path.replace("/", "/./"), path.replace("/", "%2f"), path.replace("/", "\\"))
    yield from (
        f"/%{ord(path[1]):02x}{path[2:]}",
        f"/%{ord(path[1]):02X}{path[2:]}",
        f"/%25{ord(path[1]):02x}{path[2:]}",
    )
    for opening in ("/health", "/ready", "/page", "/page/main.js", ""):
        for up in ("/..", "/%2e%2e", "/.%2e", "/..;", "/%2e%2e%2f..", "\\.."):
            yield f"{opening}{up}{path}"
    yield from (f"{path}?/health", f"{path}%3f/health", f"{path}#/health", f"{path}%23/health", f"{path}%00/health")
    yield from (f"{path}%20", f"{path}%0d%0a", f"{path}%c0%af", f"/health%00{path}", f"/health?{path}/../..{path}")
    for origin in (
        "http://localhost",
        "https://other.example",
        "http://localhost:1@other.example",
        "//localhost",
        "x:",
    ):
        yield from (f"{origin}{path}", f"{origin}/health/..{path}")


def status_and_body(port: int, target: str, headers: str = "") -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


@pytest.mark.parametrize("path", GUARDED_PATHS)
def test_no_form_of_a_path_gets_around_the_key(guarded: Served, path: str) -> None:
    open_body = status_and_body(guarded.port, "/health")
    refused = 0
    for target in forms(path):
        status, content = status_and_body(guarded.port, target)
        if target.startswith("/health?"):
            assert (status, content) == open_body  # what follows is a query
        elif status == 404:
            assert target.startswith("/page/")  # a file of the page that is not there
        else:
            assert status in (400, 401), target
            refused += 1
    assert refused > 30


HEADERS = [
    "X-Forwarded-Prefix: /health",
    "X-Forwarded-Path: /health",
    "X-Original-URL: /health",
    "X-Rewrite-URL: /health",
    "X-Forwarded-Host: 127.0.0.1",
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-Proto: https",
    "Forwarded: for=127.0.0.1;host=localhost",
    "X-HTTP-Method-Override: OPTIONS",
    "Proxy-Authorization: Bearer first-key",
    "X-Api-Key: first-key",
    "Api-Key: first-key",
    "Cookie: authorization=first-key",
    "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyE=",
]


@pytest.mark.parametrize("path", GUARDED_PATHS)
def test_no_header_but_one_lets_anyone_in(guarded: Served, path: str) -> None:
    for header in HEADERS:
        assert status_and_body(guarded.port, path, f"{header}\r\n")[0] == 401, header
    assert status_and_body(guarded.port, f"{path}?api_key=first-key&authorization=Bearer%20first-key")[0] == 401


@pytest.mark.parametrize("host", ["/health", "localhost/health", "localhost?", "localhost#", "a@localhost", "[::1", ""])
def test_no_host_lets_anyone_in(guarded: Served, host: str) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as connection:
        connection.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(12) in (b"HTTP/1.1 401", b"HTTP/1.1 400", b"HTTP/1.1 421")


def test_of_several_keys_none_is_believed(guarded: Served) -> None:
    right, wrong = "Authorization: Bearer first-key\r\n", "Authorization: Bearer wrong\r\n"
    assert status_and_body(guarded.port, "/v1/models", right)[0] == 200
    for pair in itertools.product((right, wrong), repeat=2):
        assert status_and_body(guarded.port, "/v1/models", "".join(pair))[0] == 401


def test_a_scheme_is_read_without_case_and_with_spaces(stranger: httpx2.Client) -> None:
    assert stranger.get("/v1/models", headers={"authorization": "bearer   first-key"}).status_code == 200


def test_a_server_without_keys_ignores_authorization(client: httpx2.Client) -> None:
    for headers in ({}, *WRONG):
        assert client.get("/v1/models", headers=headers).status_code == 200


# Other origins.

ORIGIN = "https://app.example"
AUTHORISED = {"authorization": "Bearer first-key"}
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
}


@pytest.fixture(scope="module")
def shared() -> Generator[httpx2.Client]:
    """Of a server that lets one origin's pages ask."""
    with (
        serving(make_engine, api_keys=KEYS, cors_origins=(ORIGIN,)) as served,
        httpx2.Client(base_url=served.url, timeout=30) as client,
    ):
        yield client


def cors_headers(response: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


def test_no_other_origin_is_let_in_unless_it_was_named(client: httpx2.Client) -> None:
    for origin in (ORIGIN, "null", "http://localhost", "http://127.0.0.1:8000"):
        for path in ("/", "/health", "/v1/models", "/v1/preferences", CHAT, "/nothing"):
            assert cors_headers(client.get(path, headers={"origin": origin})) == {}
            assert cors_headers(client.options(path, headers=PREFLIGHT | {"origin": origin})) == {}
        answer = client.post(CHAT, json=body(), headers={"origin": origin})
        assert (answer.status_code, cors_headers(answer)) == (200, {})


def test_a_page_may_send_the_headers_of_openais_client(shared: httpx2.Client) -> None:
    """Its client for JavaScript tells its version, runtime and retries in headers of its own."""
    names = "authorization, content-type, x-stainless-lang, x-stainless-retry-count, x-stainless-runtime"
    preflight = shared.options(CHAT, headers=PREFLIGHT | {"access-control-request-headers": names})
    assert preflight.status_code == 200
    assert set(names.split(", ")) <= set(preflight.headers["access-control-allow-headers"].lower().split(", "))
    assert "access-control-allow-credentials" not in preflight.headers


def test_a_named_origin_may_ask_with_a_key_and_read_errors(shared: httpx2.Client) -> None:
    preflight = shared.options(CHAT, headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert {"authorization", "content-type"} <= set(
        preflight.headers["access-control-allow-headers"].lower().split(", ")
    )
    for path, stream in itertools.product((CHAT, COMPLETIONS), (False, True)):
        answer = shared.post(path, json=body(path, stream=stream), headers={"origin": ORIGIN, **AUTHORISED})
        assert answer.status_code == 200
        assert cors_headers(answer) == {
            "access-control-allow-origin": ORIGIN,
            "access-control-expose-headers": ", ".join(("x-request-id", "retry-after", *RATE_HEADERS)),
        }  # fmt: skip
    for response, status in (
        (shared.get("/v1/models", headers={"origin": ORIGIN}), 401),
        (shared.post(CHAT, json={}, headers={"origin": ORIGIN, **AUTHORISED}), 400),
        (shared.get("/nothing", headers={"origin": ORIGIN, **AUTHORISED}), 404),
        (shared.get("/health", headers={"origin": ORIGIN, "host": "evil.example"}), 421),
    ):
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("origin", ["https://evil.example", f"{ORIGIN}.evil.example", "http://app.example", "null", ""])
def test_an_origin_that_was_not_named_may_not_read(shared: httpx2.Client, origin: str) -> None:
    assert "access-control-allow-origin" not in shared.options(CHAT, headers=PREFLIGHT | {"origin": origin}).headers
    answer = shared.get("/v1/models", headers={"origin": origin, **AUTHORISED})
    assert "access-control-allow-origin" not in answer.headers


def test_credentials_of_a_browser_are_never_let_in(shared: httpx2.Client) -> None:
    for response in (shared.options(CHAT, headers=PREFLIGHT), shared.get("/health", headers={"origin": ORIGIN})):
        assert "access-control-allow-credentials" not in response.headers


def test_a_preflight_gives_no_way_around_the_key(shared: httpx2.Client) -> None:
    """It is answered without one, and tells nothing but what was named at the start."""
    answer = shared.options("/v1/models", headers=PREFLIGHT)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert shared.options("/v1/models", headers={"origin": ORIGIN}).status_code == 401
