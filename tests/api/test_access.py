"""Who is answered: hosts, paths, methods, sizes; and a name for every answer. Keys: test_authorisation.py."""

import json
import re
import socket
import time
from collections.abc import Generator, Iterator

import httpx2
import pytest

from panacea.config import Limits
from tests.api.chatting import CHAT, body, error_of
from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, serving

KEYS = ("first-key", "zweiter-schlüssel")
LIMIT = 20_000


async def make_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def guarded() -> Generator[Served]:
    with serving(make_engine, api_keys=KEYS, limits=Limits(max_body_mib=LIMIT / 2**20)) as served:
        yield served


@pytest.fixture(scope="module")
def stranger(guarded: Served) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=guarded.url) as client:
        yield client


def key(value: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {value}".encode()}


# Hosts.


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [
        ("localhost", True),
        ("LocalHost:8000", True),
        ("127.0.0.1:1", True),
        ("[::1]", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("evil.example/localhost", False),
        ("localhost:8000:80", False),
        ("localhost:evil", False),
        ("localhost.", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nothing"])
def test_only_known_hosts_are_answered(client: httpx2.Client, host: str, is_answered: bool, path: str) -> None:
    response = client.get(path, headers={"host": host})
    assert (response.status_code != 421) == is_answered
    if not is_answered:
        assert error_of(response)["code"] == "unknown_host"


def test_a_request_without_host_is_not_answered(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert connection.recv(20).startswith(b"HTTP/1.1 421")


def test_a_star_answers_all_hosts() -> None:
    with serving(make_engine, allowed_hosts=("*",)) as served, httpx2.Client(base_url=served.url) as client:
        assert client.get("/health", headers={"host": "anything.example"}).status_code == 200


# Paths and methods.


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/../etc/passwd", "/%00", "/\u00e9", f"{CHAT}/"])
def test_unknown_paths_are_404(client: httpx2.Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, error_of(response)["param"]) == (404, None)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", CHAT), ("PUT", CHAT), ("POST", "/v1/models"), ("DELETE", "/health")]
)
def test_wrong_methods_are_405_and_the_right_one_is_named(client: httpx2.Client, method: str, path: str) -> None:
    response = client.request(method, path)
    error_of(response)
    assert response.status_code == 405
    assert response.headers["allow"] == ("POST" if path == CHAT else "GET")


# Sizes.


def padded(size: int) -> bytes:
    content = json.dumps(body()).encode()
    return content + b" " * (size - len(content))


def chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (3 * LIMIT, 413), (100 * LIMIT, 413)])
def test_bodies_above_the_limit_are_413(stranger: httpx2.Client, size: int, status: int, in_chunks: bool) -> None:
    content = chunks(padded(size)) if in_chunks else padded(size)
    headers = key(KEYS[0]) | {b"content-type": b"application/json"}
    response = stranger.post(CHAT, content=content, headers=headers)
    assert response.status_code == status
    if status == 413:
        assert error_of(response)["code"] == "body_too_large"


def test_a_client_may_finish_writing_a_body_that_is_too_large(server: Served) -> None:
    """Or its connection is reset, and it sees that instead of the 413."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        size = 3 * Limits().max_body_bytes
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}"
        connection.sendall(f"{head}\r\n\r\n".encode())
        for _ in range(size // 2**18):
            connection.sendall(b" " * 2**18)
            time.sleep(0.001)
        assert connection.recv(20).startswith(b"HTTP/1.1 413")


def test_a_body_announced_as_huge_is_refused_unread(guarded: Served) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEYS[0]}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {10**15}\r\n\r\n".encode())
        assert connection.recv(20).startswith(b"HTTP/1.1 413")


def test_a_body_that_never_ends_is_refused_at_the_limit(guarded: Served) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEYS[0]}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
        for _ in range(LIMIT // 0x2000 + 1):
            connection.sendall(chunk)
        assert connection.recv(20).startswith(b"HTTP/1.1 413")


# Request ids.


def test_every_answer_has_a_request_id_of_its_own(client: httpx2.Client) -> None:
    answers = [client.get(path) for path in ("/health", "/health", "/nothing", "/", "/docs")]
    answers += [client.post(CHAT, json=body()), client.post(CHAT, json=body(stream=True)), client.post(CHAT)]
    answers += [client.get("/health", headers={"host": "evil.example"})]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_without_a_key_there_is_one_too(stranger: httpx2.Client) -> None:
    assert stranger.get("/v1/models").headers["x-request-id"]


@pytest.mark.parametrize(
    ("given", "is_taken"), [("my-id_1.x", True), ("", False), ("a b", False), ("x" * 65, False), ("a\u00e9", False)]
)
def test_a_clients_own_id_is_taken_if_it_is_a_plain_word(client: httpx2.Client, given: str, is_taken: bool) -> None:
    answer = client.get("/health", headers={b"x-request-id": given.encode()})
    assert (answer.headers["x-request-id"] == given) == is_taken
