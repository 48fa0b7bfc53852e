"""A client that does not read: what waits for it is bounded, then it is dropped, and nobody else notices."""

import asyncio
import json
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from panacea.api.connections.backlog import Backlog
from panacea.config import Limits
from tests.api.chatting import CHAT, ask, body, contents
from tests.api.fake_engine import FakeEngine
from tests.api.metric_samples import Samples
from tests.api.serving import Served, serving, wait_until
from tests.api.test_disconnect import request

LARGE: dict[str, Any] = {
    "max_tokens": 150,
    "ignore_eos": True,
    "n": 4,
    "logprobs": True,
    "top_logprobs": 20,
    "stream": True,
}
"""Some 2 MB, more than the buffers on both sides hold."""


@contextmanager
def limited(limits: Limits) -> Generator[tuple[Served, FakeEngine, httpx2.Client]]:
    engine = FakeEngine()

    async def make_engine() -> FakeEngine:
        return engine

    with (
        serving(make_engine, limits=limits, send_buffer_bytes=16384) as served,
        httpx2.Client(base_url=served.url, timeout=60) as client,
    ):
        yield served, engine, client


@contextmanager
def lazy(served: Served, **fields: Any) -> Generator[socket.socket]:
    """A client that has asked and does not read."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before it connects, or it does not count
        client.settimeout(30)
        client.connect(("127.0.0.1", served.port))
        client.sendall(request(json.dumps(body(**LARGE | fields)).encode()))
        yield client


def is_gone(client: socket.socket) -> bool:
    """Whether the server has cut the connection off. Reads what there is."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def test_a_client_that_is_too_far_behind_is_dropped_and_others_do_not_notice() -> None:
    with limited(Limits(max_unread_tokens=20)) as (served, engine, client):
        alone = contents(ask(client))
        with lazy(served) as reader:
            wait_until(lambda: len(engine.submitted) == 5, 60)
            wait_until(lambda: engine.live == 0, 60)
            assert [contents(ask(client)) for _ in range(3)] == [alone] * 3
            assert is_gone(reader)
        assert engine.aborted == 4
        wait_until(lambda: served.admission.is_idle)
        assert Samples(client)("requests_rejected_total", reason="slow_reader") == 1


def test_a_client_that_takes_nothing_for_too_long_is_dropped() -> None:
    with limited(Limits(slow_reader_timeout_s=0.5, max_unread_tokens=10**6)) as (served, engine, client):
        with lazy(served) as reader:
            wait_until(lambda: len(engine.submitted) == 4, 60)
            wait_until(lambda: engine.live == 0 and served.admission.is_idle, 60)
            assert is_gone(reader)
        assert Samples(client)("requests_rejected_total", reason="slow_reader") == 1


def test_a_client_that_never_takes_its_whole_answer_is_dropped() -> None:
    """Its request is answered long ago, and only the connection is left."""
    with limited(Limits(slow_reader_timeout_s=0.5)) as (served, engine, _), lazy(served, stream=False) as reader:
        wait_until(lambda: served.server.server_state.total_requests == 1, 60)
        assert engine.live == 0
        wait_until(lambda: len(served.server.server_state.connections) == 0, 60)
        assert is_gone(reader)


@pytest.mark.slow
def test_a_slow_client_that_does_read_gets_everything() -> None:
    # 4 s are more than the kernel and a busy machine pause between two window updates of so small a buffer.
    with limited(Limits(slow_reader_timeout_s=4, max_unread_tokens=10**6)) as (served, engine, client):
        fields: dict[str, Any] = {"n": 1, "max_tokens": 300}
        expected = client.post(CHAT, json=body(**LARGE | fields)).text
        with lazy(served, **fields) as reader:
            said = b""
            begin = time.monotonic()
            while not said.endswith(b"0\r\n\r\n"):
                said += reader.recv(2048)
                time.sleep(0.03)
            assert time.monotonic() - begin > 5, "too quick to be a slow client"
        texts = [chunk["choices"] for chunk in chunks(unchunked(said))]
        assert texts == [chunk["choices"] for chunk in chunks(expected)]
        wait_until(lambda: engine.live == 0)


def unchunked(said: bytes) -> str:
    """The body of an answer in chunked encoding."""
    rest = said.partition(b"\r\n\r\n")[2]
    content = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        content += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return content.decode()


def chunks(events: str) -> list[dict[str, Any]]:
    *blocks, done, end = events.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def test_a_reader_that_waits_is_never_behind() -> None:
    """However much arrives at once: an event loop that was held up is not the client's fault."""

    async def run() -> list[int]:
        given_up: list[bool] = []
        backlog = Backlog[int](10)
        backlog.give_up = lambda: given_up.append(True)
        reader = asyncio.create_task(backlog.get())
        await asyncio.sleep(0)
        for number in range(1000):
            backlog.put(number)
        assert not given_up
        assert await reader == 0
        backlog.put(1000)  # now it is busy with the first, and the others are too many
        backlog.put(1001)
        assert given_up == [True]
        return [await backlog.get() for _ in range(1001)]

    assert asyncio.run(run()) == list(range(1, 1002))


@pytest.mark.parametrize("items", [1, 10])
def test_a_busy_reader_is_not_behind_below_the_limit(items: int) -> None:
    async def run() -> None:
        backlog = Backlog[int](10)
        backlog.give_up = lambda: pytest.fail("given up")
        for number in range(items):
            backlog.put(number)

    asyncio.run(run())
