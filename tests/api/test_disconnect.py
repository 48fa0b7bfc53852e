"""A client that goes away frees its engine requests within a second, whatever they are doing. Real sockets."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from panacea.api.connections.backlog import Backlog
from panacea.api.connections.disconnect import CancelOnDisconnect
from panacea.api.connections.event_stream import EventStream
from tests.api.chatting import CHAT, COMPLETIONS, ask, body, contents
from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, serving, wait_until

LONG: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True}


@contextmanager
def connection(server: Served) -> Generator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        yield connection


def request(content: bytes, *, path: str = CHAT, length: int | None = None, extra: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{extra}"
        f"Content-Length: {len(content) if length is None else length}\r\n\r\n"
    )
    return head.encode() + content


def chat(path: str = CHAT, **fields: Any) -> bytes:
    return request(json.dumps(body(path, **LONG | fields)).encode(), path=path)


def reset(connection: socket.socket) -> None:
    """Closes with a reset, as a killed process or a dropped network does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("leave", [socket.socket.close, reset])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("state", ["queued or prefilling", "decoding"])
def test_a_client_that_leaves_frees_its_requests(
    own_server: Served,
    engine: FakeEngine,
    caplog: pytest.LogCaptureFixture,
    state: str,
    n: int,
    stream: bool,
    leave: Any,
) -> None:
    engine.prefill_s, engine.step_s = (60, 60) if state == "queued or prefilling" else (0, 0.02)
    with connection(own_server) as client:
        client.sendall(chat(n=n, stream=stream))
        wait_until(lambda: engine.live == n)
        if state == "decoding":
            if stream:
                assert client.recv(20).startswith(b"HTTP/1.1 200")
            time.sleep(0.1)
        assert engine.live == n
        leave(client)
        wait_until(lambda: engine.live == 0, 1)
    assert engine.aborted == n
    own_server.stop()
    assert not caplog.records


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "fields", "requests"), [(CHAT, {}, 1), (COMPLETIONS, {"prompt": ["a", "b"]}, 2)])
def test_a_silent_engine_does_not_keep_a_request(
    own_server: Served, engine: FakeEngine, path: str, fields: dict[str, Any], requests: int, stream: bool
) -> None:
    """Decoding, but with no next token to come: preempted, for one."""
    engine.step_s = 60
    with connection(own_server) as client:
        client.sendall(chat(path, stream=stream, **fields))
        if stream:
            client.recv(1)
        wait_until(lambda: engine.live == requests)
        time.sleep(0.05)
    wait_until(lambda: engine.live == 0, 1)
    assert engine.aborted == requests


def test_a_client_that_stops_reading_and_leaves_frees_its_requests(own_server: Served, engine: FakeEngine) -> None:
    """The server is then waiting to write."""
    with connection(own_server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.sendall(chat(stream=True, n=16, logprobs=True, top_logprobs=20, max_tokens=400))
        wait_until(lambda: len(engine.submitted) == 16)
        time.sleep(0.2)
    wait_until(lambda: engine.live == 0, 1)


def test_a_client_that_leaves_in_its_body_leaves_nothing(
    own_server: Served, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    for cut in (0, 1, 50):
        with connection(own_server) as client:
            client.sendall(request(b"{" * cut, length=1000))
            time.sleep(0.05)
    with httpx2.Client(base_url=own_server.url) as client:
        assert contents(ask(client))
    assert (engine.live, len(engine.submitted)) == (0, 1)
    own_server.stop()
    assert not caplog.records


def test_others_go_on_when_one_leaves(own_server: Served, engine: FakeEngine) -> None:
    engine.step_s = 0.005
    with httpx2.Client(base_url=own_server.url, timeout=30) as neighbour:
        expected = contents(ask(neighbour, n=2))
        with connection(own_server) as client:
            client.sendall(chat(n=3))
            wait_until(lambda: engine.live == 3)
        assert contents(ask(neighbour, n=2)) == expected
    wait_until(lambda: engine.live == 0, 1)
    assert engine.aborted == 3


def test_a_client_that_stays_is_served_to_the_end(own_server: Served, engine: FakeEngine) -> None:
    """Also on a connection that is kept, and with the next request already sent behind the first."""
    engine.step_s = 0.005
    with connection(own_server) as client:
        client.sendall(chat(max_tokens=20) + chat(max_tokens=20))
        received = b""
        while received.count(b'"usage"') < 2:
            part = client.recv(65536)
            assert part, received
            received += part
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert engine.aborted == 0


def test_a_server_that_ends_frees_what_runs(engine: FakeEngine) -> None:
    async def make_engine() -> FakeEngine:
        return engine

    engine.step_s = 0.05
    with serving(make_engine) as served, connection(served) as client:
        client.sendall(chat(stream=True))
        assert client.recv(1)
        served.stop()
    assert (engine.live, engine.aborted) == (0, 1)


async def no_message() -> Message:
    raise AssertionError("nobody asks")


@pytest.mark.parametrize("messages", [0, 1, 2])
def test_a_stream_that_cannot_be_sent_closes_its_events_and_their_source(messages: int) -> None:
    closed: list[str] = []
    sent: list[Message] = []

    async def numbers(name: str) -> AsyncGenerator[bytes]:
        try:
            for number in range(5):
                yield str(number).encode()
        finally:
            closed.append(name)

    async def fail(message: Message) -> None:
        if len(sent) == messages:
            raise ConnectionResetError
        sent.append(message)

    async def run() -> None:
        events, source = numbers("events"), numbers("source")
        await anext(source)
        with pytest.raises(ConnectionResetError):
            await EventStream(events, source, Backlog(1))({}, no_message, fail)
        # Events that never began have nothing to close.
        assert closed == (["events", "source"] if messages else ["source"])

    asyncio.run(run())


SCOPE: Scope = {"type": "http"}
BODY: Message = {"type": "http.request", "body": b"", "more_body": False}


async def ignore(_message: Message) -> None:
    pass


def test_a_cancellation_that_is_no_disconnect_goes_on() -> None:
    async def forever(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.sleep(60)

    async def run() -> None:
        task = asyncio.create_task(CancelOnDisconnect(forever)(SCOPE, no_message, ignore))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_what_happens_after_an_answer_is_not_cancelled() -> None:
    """Servers report a disconnect as soon as the answer is complete."""
    steps: list[str] = []
    answered = asyncio.Event()

    async def receive() -> Message:
        if not steps:
            return BODY
        await answered.wait()
        return {"type": "http.disconnect"}

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        steps.append("read")
        await send({"type": "http.response.body", "body": b""})
        answered.set()
        await asyncio.sleep(0.01)
        steps.append("cleaned up")

    asyncio.run(CancelOnDisconnect(app)(SCOPE, receive, ignore))
    assert steps == ["read", "cleaned up"]


def test_nobody_waits_for_a_disconnect_once_the_request_is_over() -> None:
    messages = [BODY]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.sleep(60)
        raise AssertionError

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def run() -> None:
        await CancelOnDisconnect(app)(SCOPE, receive, ignore)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_a_stop_string_in_one_choice_frees_that_one_at_once(own_server: Served, engine: FakeEngine) -> None:
    engine.step_s = 0.01
    with httpx2.Client(base_url=own_server.url, timeout=30) as client:
        one = contents(ask(client, n=3, max_tokens=30))
        stop = next(text[5:8] for text in one if len(text) > 8)
        answer = ask(client, n=3, max_tokens=30, stop=stop)
    assert contents(answer) == [text.partition(stop)[0] for text in one]
    assert engine.aborted == sum(stop in text for text in one)
    assert engine.live == 0
