"""Slow, silent, broken and too many connections, byte by byte on real sockets; and a neighbour who notices nothing."""

import json
import socket
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx2
import pytest

from panacea.api.connections.connection import SPARE_CONNECTIONS
from panacea.config import Limits
from tests.api.chatting import CHAT, ask, body, contents
from tests.api.fake_engine import FakeEngine
from tests.api.metric_samples import Samples
from tests.api.serving import Served, serving, wait_until
from tests.api.test_disconnect import chat, connection, request

SHORT = Limits(head_timeout_s=1, body_timeout_s=1, idle_timeout_s=1)
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextmanager
def limited(limits: Limits, trusted_proxies: tuple[str, ...] = ()) -> Generator[Served]:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with serving(make_engine, limits=limits, trusted_proxies=trusted_proxies) as served:
        yield served


@pytest.fixture(scope="module")
def hasty() -> Generator[Served]:
    """A server that waits for nobody."""
    with limited(SHORT) as served:
        yield served


def answers(client: socket.socket) -> bytes:
    """All that the server says until it closes."""
    said = b""
    while part := client.recv(65536):
        said += part
    return said


def drip(client: socket.socket, parts: list[bytes]) -> bytes:
    """What the server says while it is sent one part after the other, slowly."""
    client.settimeout(0.05)
    for part in parts:
        with suppress(ConnectionError):  # the server has closed since; what it said before that can still be read
            client.sendall(part)
        try:
            said = client.recv(65536)
        except TimeoutError:
            continue
        client.settimeout(5)
        with suppress(ConnectionResetError):  # what was sent after the server had closed
            while part := client.recv(65536):
                said += part
        return said
    return b""


def error_in(said: bytes) -> tuple[int, dict[str, Any]]:
    """Status and error of an answer that closes its connection."""
    head, _, content = said.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"connection: close" in lines
    assert b"content-type: application/json" in lines
    assert any(line.startswith(b"x-request-id: ") for line in lines)
    return int(head.split()[1]), json.loads(content)["error"]


def rejected(served: Served, reason: str) -> float:
    with httpx2.Client(base_url=served.url) as client:
        return Samples(client)("requests_rejected_total", reason=reason)


@pytest.mark.slow
def test_half_a_head_is_cut_off(hasty: Served) -> None:
    before = rejected(hasty, "head_timeout")
    with connection(hasty) as client:
        client.sendall(HEAD + b"X-Slow: a")
        status, error = error_in(answers(client))
    assert (status, error["code"]) == (408, "head_timeout")
    assert rejected(hasty, "head_timeout") == before + 1


@pytest.mark.slow
def test_a_head_that_drips_is_cut_off_all_the_same(hasty: Served) -> None:
    with connection(hasty) as client:
        said = drip(client, [bytes([byte]) for byte in HEAD * 10])
    assert error_in(said)[1]["code"] == "head_timeout"


@pytest.mark.slow
def test_a_second_head_has_no_more_time_than_the_first(hasty: Served) -> None:
    with connection(hasty) as client:
        client.sendall(chat(max_tokens=2))
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET / HT")
        assert error_in(answers(client))[1]["code"] == "head_timeout"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b'{"messages": [{"role"'])
def test_half_a_body_is_cut_off(hasty: Served, sent: bytes) -> None:
    before = rejected(hasty, "body_timeout")
    with connection(hasty) as client:
        client.sendall(request(sent, length=1000))
        status, error = error_in(answers(client))
    assert (status, error["code"]) == (408, "body_timeout")
    assert rejected(hasty, "body_timeout") == before + 1
    assert hasty.admission.is_idle
    assert hasty.admission.body_bytes.held == 0


def test_a_body_that_drips_is_cut_off_all_the_same(hasty: Served) -> None:
    with connection(hasty) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        said = drip(client, [b"1\r\n \r\n"] * 200)
    assert error_in(said)[1]["code"] == "body_timeout"


@pytest.mark.slow
@pytest.mark.parametrize("drips", [False, True])
def test_a_body_that_nobody_asked_for_is_no_way_to_stay(hasty: Served, *, drips: bool) -> None:
    """The answer is out, and the rest of the request comes slowly or never."""
    with connection(hasty) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        said = b""
        while not said.endswith(b'{"status":"ok"}'):
            said += client.recv(65536)
        wait_until(lambda: len(hasty.server.server_state.connections) == 1)
        if drips:
            with suppress(ConnectionError):
                assert drip(client, [b" "] * 200) == b""
        wait_until(lambda: not hasty.server.server_state.connections)


@pytest.mark.slow
@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_idle_connections_are_closed_without_a_word(hasty: Served, first: bytes) -> None:
    with connection(hasty) as client:
        client.sendall(first)
        said = answers(client)
    assert said.count(b"HTTP/1.1") == bool(first)


@pytest.mark.slow
def test_a_slow_answer_is_not_a_slow_client(hasty: Served) -> None:
    """Neither a client that waits for its answer nor one that streams is ever cut off by these limits."""
    engine = hasty.engine
    assert isinstance(engine, FakeEngine)
    engine.prefill_s, engine.step_s = 2, 0.3
    try:
        with httpx2.Client(base_url=hasty.url, timeout=30) as client:
            assert contents(ask(client, max_tokens=3, ignore_eos=True))
            response = client.post(CHAT, json=body(stream=True, max_tokens=3, ignore_eos=True))
        assert response.text.endswith("data: [DONE]\n\n")
    finally:
        engine.prefill_s = engine.step_s = 0


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"X-Long: " + b"a" * 20_000 + b"\r\n", id="one long header"),
        pytest.param(b"".join(b"X-%d: %s\r\n" % (index, b"a" * 400) for index in range(60)), id="long ones together"),
        pytest.param(b"".join(b"X-%d: a\r\n" % index for index in range(101)), id="too many"),
    ],
)
def test_too_much_before_the_body_is_a_431(server: Served, head: bytes, *, at_once: bool) -> None:
    with connection(server) as client:
        if at_once:
            client.sendall(HEAD + head + b"Content-Length: 0\r\n\r\n")
        else:
            client.sendall(HEAD + head)
            time.sleep(0.1)
            with suppress(ConnectionError):
                client.sendall(b"Content-Length: 0\r\n\r\n")
        status, error = error_in(answers(client))
    assert (status, error["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"GET /" + b"a" * 20_000 + b" HTTP/1.1", id="path"),
        pytest.param(b"GET /v1/models?" + b"a" * 20_000 + b" HTTP/1.1", id="query"),
    ],
)
def test_a_long_target_is_a_431(server: Served, line: bytes) -> None:
    with connection(server) as client:
        client.sendall(line + b"\r\nHost: localhost\r\n\r\n")
        assert error_in(answers(client))[0] == 431


def test_many_headers_of_usual_size_are_fine(server: Served) -> None:
    headers = {f"x-{index}": "a" * 100 for index in range(80)}
    with httpx2.Client(base_url=server.url, headers=headers) as client:
        assert contents(ask(client))


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client says hello",
        b"GET / HTTP/one\r\n\r\n",
        b"no such thing\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_a_400_in_the_error_shape(server: Served, sent: bytes) -> None:
    with connection(server) as client:
        client.sendall(sent)
        status, error = error_in(answers(client))
    assert (status, error["code"], error["type"]) == (400, "invalid_http", "invalid_request_error")


def test_an_upgrade_that_is_not_offered_is_a_plain_request(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    with httpx2.Client(base_url=server.url) as client:
        response = client.get("/health", headers={"connection": "upgrade", "upgrade": "websocket"})
    assert response.status_code == 200
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


@contextmanager
def crowded(most: int, busy: int) -> Generator[tuple[Served, list[socket.socket], ExitStack]]:
    """A server for `most` connections, with `busy` clients that wait for an answer."""
    with limited(Limits(max_connections=most)) as served, ExitStack() as stack:
        engine = served.engine
        assert isinstance(engine, FakeEngine)
        engine.prefill_s = 60
        clients: list[socket.socket] = []
        for number in range(busy):
            clients.append(stack.enter_context(connection(served)))
            with suppress(ConnectionError):  # it may be closed already
                clients[-1].sendall(chat())
            if number < most:
                wait_until(lambda: engine.live == len(clients), 20)
        engine.prefill_s = 0
        yield served, clients, stack


def test_connections_beyond_the_limit_are_told_so_and_probes_are_answered() -> None:
    with crowded(5, 5) as (served, _, stack):
        with connection(served) as client:
            client.sendall(chat())
            status, error = error_in(answers(client))
        assert (status, error["code"]) == (503, "too_many_connections")
        with httpx2.Client(base_url=served.url) as client:
            assert client.get("/ready").status_code == client.get("/health").status_code == 200
        stack.close()
        wait_until(lambda: not served.server.server_state.connections)
        with httpx2.Client(base_url=served.url) as client:
            assert contents(ask(client))
        assert rejected(served, "too_many_connections") == 1


def test_silent_connections_make_room_and_the_oldest_one_first() -> None:
    with limited(Limits(max_connections=3)) as served, ExitStack() as stack:
        clients = [stack.enter_context(connection(served)) for _ in range(3)]
        wait_until(lambda: len(served.server.server_state.connections) == 3)
        with httpx2.Client(base_url=served.url) as client:
            assert contents(ask(client))
            assert clients[0].recv(1) == b""  # closed, without an error
            for each in clients[1:]:
                each.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    each.recv(1)
        assert rejected(served, "too_many_connections") >= 1


def test_one_clients_silent_connections_displace_each_other_alone() -> None:
    """There is room for more connections in total. A head or a body that has begun is no complete request."""
    with limited(Limits(max_connections=100, max_peer_connections=4)) as served, ExitStack() as stack:
        begun = [b"", b"GET / HT", HEAD + b"Content-Length: 10\r\n\r\n{", b""] * 3
        clients = [stack.enter_context(connection(served)) for _ in begun]
        for silent, sent in zip(clients, begun, strict=True):
            with suppress(ConnectionError):
                silent.sendall(sent)
        wait_until(lambda: len(served.server.server_state.connections) <= 4)
        with httpx2.Client(base_url=served.url) as client:
            assert contents(ask(client))


@contextmanager
def standing_still(served: Served) -> Generator[None]:
    """Within the block, the server's event loop does nothing."""
    goes_on = threading.Event()
    served.server.servers[0].get_loop().call_soon_threadsafe(goes_on.wait, 30)
    try:
        yield
    finally:
        goes_on.set()


def test_clients_that_connect_at_once_and_have_sent_their_requests_are_all_answered() -> None:
    """They are no silent ones, even if the server accepts all of them before it reads from the first."""
    with limited(Limits(max_connections=200, max_peer_connections=4)) as served, ExitStack() as stack:
        with standing_still(served):
            clients = [stack.enter_context(connection(served)) for _ in range(50)]
            for client in clients:
                client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert all(client.recv(100).startswith(b"HTTP/1.1 200") for client in clients)


def test_an_address_of_a_trusted_proxy_may_have_many_silent_connections() -> None:
    limits = Limits(max_connections=100, max_peer_connections=4)
    with limited(limits, trusted_proxies=("127.0.0.0/8",)) as served, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connection(served))
        wait_until(lambda: len(served.server.server_state.connections) == 20)


def test_connections_far_beyond_the_limit_are_closed() -> None:
    with limited(Limits(max_connections=2)) as served, ExitStack() as stack:
        with standing_still(served):
            clients = [stack.enter_context(connection(served)) for _ in range(SPARE_CONNECTIONS + 12)]
            for client in clients:
                client.sendall(chat(max_tokens=1))
        said: list[bytes] = []
        for client in clients:
            with suppress(ConnectionResetError):
                said.append(client.recv(12))
        assert said.count(b"HTTP/1.1 200") == 2
        assert said.count(b"HTTP/1.1 503") == SPARE_CONNECTIONS


def test_a_neighbour_of_hostile_clients_gets_the_same_tokens(hasty: Served) -> None:
    with httpx2.Client(base_url=hasty.url, timeout=30) as client, ExitStack() as stack:
        alone = contents(ask(client))
        for start in (b"", b"GE", HEAD, request(b"{", length=100), b"\x00\xff", chat(stream=True)):
            for _ in range(5):
                stack.enter_context(connection(hasty)).sendall(start)
        assert [contents(ask(client)) for _ in range(20)] == [alone] * 20
    wait_until(lambda: hasty.admission.is_idle)
