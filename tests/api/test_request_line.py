"""How a request is framed: what two programs could read differently is refused. Byte by byte on real sockets."""

import json
import socket
import time
from collections.abc import Generator, Iterable
from contextlib import suppress

import pytest

from panacea.api.error_responses import LibraryPanicError, panics_as_errors
from tests.api.chatting import body
from tests.api.serving import Served
from tests.api.test_connections import answers, error_in
from tests.api.test_disconnect import connection
from tests.api.test_engine_failures import PanicException

CHAT_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def client(server: Served) -> Generator[socket.socket]:
    with connection(server) as opened:
        opened.settimeout(30)
        yield opened


@pytest.mark.parametrize("length", [b"0", b"5", b"100"])
def test_a_length_beside_an_encoding_is_refused_and_nothing_behind_it_is_read(
    client: socket.socket, length: bytes
) -> None:
    both = CHAT_HEAD + b"Content-Length: " + length + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    client.sendall(both + HEALTH)
    said = answers(client)
    assert error_in(said)[0] == 400
    assert b'"status":"ok"' not in said


def test_an_encoding_in_a_version_that_has_none_is_refused(client: socket.socket) -> None:
    head = CHAT_HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")
    client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + HEALTH)
    status, error = error_in(answers(client))
    assert (status, error["code"]) == (400, "invalid_http")


@pytest.mark.parametrize("version", [b"3.7", b"2.0", b"0.9", b"1.2"])
def test_other_versions_of_http_are_refused(client: socket.socket, version: bytes) -> None:
    client.sendall(b"GET /health HTTP/" + version + b"\r\nHost: localhost\r\n\r\n")
    status, error = error_in(answers(client))
    assert (status, error["code"]) in [(505, "http_version_not_supported"), (400, "invalid_http")]


@pytest.mark.parametrize("target", [b"http://localhost/health", b"HTTP://localhost:8000/health?a", b"http://localhost"])
def test_a_target_in_absolute_form_is_served(client: socket.socket, target: bytes) -> None:
    client.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answers(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "target",
    [
        b"http://[::1/health",
        b"http://",
        b"http:///health",
        b"ftp://localhost/health",
        b"localhost:80",
        b"health",
        b"//[",
    ],
)
def test_a_target_of_no_usual_form_is_refused(client: socket.socket, target: bytes) -> None:
    client.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert error_in(answers(client))[0] in (400, 404)


def test_the_host_of_an_absolute_target_counts(client: socket.socket) -> None:
    client.sendall(b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert error_in(answers(client))[1]["code"] == "unknown_host"


@pytest.mark.parametrize("megabytes", [5, 12])
@pytest.mark.parametrize("closes", [False, True])
def test_a_client_that_sends_everything_before_it_reads_gets_its_413(
    client: socket.socket, megabytes: int, *, closes: bool
) -> None:
    length = megabytes << 20
    close = b"Connection: close\r\n" if closes else b""
    client.sendall(CHAT_HEAD + close + b"Content-Length: %d\r\n\r\n" % length)
    client.sendall(b" " * length)
    time.sleep(0.2)
    status, error = error_in(answers(client))
    assert (status, error["code"]) == (413, "body_too_large")


@pytest.mark.slow
def test_a_413_arrives_at_a_client_that_takes_its_time_to_send(client: socket.socket) -> None:
    client.sendall(CHAT_HEAD + b"Content-Length: %d\r\n\r\n" % (6 << 20))
    for _ in range(30):
        client.sendall(b" " * ((6 << 20) // 30))
        time.sleep(0.1)
    assert error_in(answers(client))[1]["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("start", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", 431, id="long head"),
        pytest.param(b"GET / HTTP/one\r\n\r\n", 400, id="no HTTP"),
        pytest.param(CHAT_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, id="no chunk"),
    ],
)
def test_other_early_answers_arrive_too(client: socket.socket, start: bytes, status: int) -> None:
    client.sendall(start + b"a" * (6 << 20))
    time.sleep(0.2)
    client.sendall(b"a" * (1 << 20))
    assert error_in(answers(client))[0] == status


def in_chunks(pieces: Iterable[bytes]) -> bytes:
    head = CHAT_HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_a_body_in_small_chunks_is_read(client: socket.socket) -> None:
    content = json.dumps(body()).encode().ljust(200_000)
    client.sendall(in_chunks(content[start : start + 150] for start in range(0, len(content), 150)))
    assert answers(client).startswith(b"HTTP/1.1 200")


def test_a_body_in_chunks_of_a_byte_is_refused(client: socket.socket) -> None:
    """h11 takes as long for a chunk of one byte as for one of a kilobyte."""
    client.sendall(in_chunks([b" "] * 20_000))
    status, error = error_in(answers(client))
    assert (status, error["code"]) == (413, "too_many_chunks")


def test_what_follows_an_early_answer_is_read_within_a_bound(client: socket.socket) -> None:
    client.sendall(CHAT_HEAD + b"Content-Length: 4000000000\r\n\r\n")
    sent = 0
    with suppress(ConnectionError):
        while sent < 256 << 20:
            client.sendall(b" " * (1 << 20))
            sent += 1 << 20
    assert sent < 64 << 20


def test_a_small_body_that_nobody_read_does_not_close_the_connection(client: socket.socket) -> None:
    client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
    first = b""
    while not first.endswith(b"}}"):
        first += client.recv(65536)
    assert first.startswith(b"HTTP/1.1 404")
    assert b"connection: close" not in first
    client.sendall(HEALTH)
    assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_panic_is_an_error_and_other_signals_pass() -> None:
    with pytest.raises(LibraryPanicError), panics_as_errors():
        raise PanicException("a secret")
    with pytest.raises(KeyboardInterrupt), panics_as_errors():
        raise KeyboardInterrupt
