"""Streams that end in every way, and what they leave behind."""

import asyncio
import gc
import json
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panacea.errors import EngineError
from panacea_client import (
    AsyncPanacea,
    InvalidResponseError,
    NetworkError,
    Panacea,
    PanaceaError,
    StreamBrokenError,
    StreamError,
    TimedOutError,
)
from panacea_client.transcript import Transcript
from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, wait_until
from tests.client.either import Either, MakeClient
from tests.client.hostile import CHUNKED_HEAD, STREAM_HEAD, Hang, Pause, Repeat, Reply, Reset, answer, hostile

QUESTION = "How do I sharpen a knife?"
PREFERENCE = {"helpful": 0.5, "concise": 0.5}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ERROR = {"error": {"message": "the engine failed", "type": "server_error", "param": None, "code": "engine_unavailable"}}


def chunk(text: str | None, finish_reason: str | None = None, **fields: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    body = {
        "id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "preference": PREFERENCE,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}], **fields,
    }  # fmt: skip
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
GOOD = (
    chunk("")
    + chunk("Lay the ")
    + chunk("bläde 🔪")
    + chunk(None, "stop")
    + chunk(None, choices=[], usage=USAGE)
    + DONE
)
TEXT = "Lay the bläde 🔪"


def test_a_good_stream_is_read_from_single_bytes(make_client: MakeClient) -> None:
    slow: list[Any] = [STREAM_HEAD]
    for place in range(0, len(GOOD), 7):
        slow += [GOOD[place : place + 7], Pause(0.0005)]
    replies: list[Reply] = [
        [STREAM_HEAD + GOOD],
        slow,
        [STREAM_HEAD, GOOD.replace(b"\n", b"\r\n")],
        [STREAM_HEAD, GOOD, Hang()],
    ]
    for reply in replies:
        with hostile(reply) as server, make_client(server.url).stream(QUESTION) as stream:
            assert "".join(stream) == stream.text == TEXT
            assert stream.usage is not None
            assert stream.usage.model_dump() == USAGE
            assert (stream.finish_reason, stream.preference, stream.request_id) == ("stop", PREFERENCE, "r-1")
            assert (stream.id, stream.model) == ("c-1", "m")
        assert server.gone == any(isinstance(step, Hang) for step in reply), "it waited for more than the end"


@settings(deadline=None)
@given(st.lists(st.integers(1, len(GOOD) - 1), max_size=30))
def test_however_a_stream_is_cut_into_chunks_it_says_the_same(places: list[int]) -> None:
    transcript = Transcript()
    bounds = [0, *sorted(places), len(GOOD)]
    pieces = [piece for begin, end in pairwise(bounds) for piece in transcript.feed(GOOD[begin:end])]
    assert pieces == ["Lay the ", "bläde 🔪"]
    assert transcript.done
    assert transcript.usage is not None


def test_what_a_newer_server_may_send_between_is_passed_over(make_client: MakeClient) -> None:
    news = b': keep-alive\n\nevent: progress\ndata: {"prefill": 0.5}\n\nid: 7\nretry: 1\n\n'
    last = chunk(None, "stop", usage=USAGE) + chunk("")
    with hostile([STREAM_HEAD, news, chunk("a"), news, chunk("b", novelty=1), last, news, DONE]) as server:
        stream = make_client(server.url).stream(QUESTION)
        assert list(stream) == ["a", "b"]
    assert stream.finish_reason == "stop"
    assert stream.usage is not None


CUTS: list[Reply] = [
    [STREAM_HEAD],
    [STREAM_HEAD, chunk("a")],
    [STREAM_HEAD, chunk("a"), b'data: {"id'],
    [STREAM_HEAD, chunk("a"), DONE[:-1]],
    [STREAM_HEAD, chunk("a"), Pause(0.05), Reset()],
    [CHUNKED_HEAD, b"5\r\ndata:\r\n"],
    [CHUNKED_HEAD, b"no number\r\n"],
    [STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-length: 9999\r\n\r\n"), chunk("a")],
]


@pytest.mark.parametrize("reply", CUTS)
def test_a_stream_that_stops_before_its_end_is_broken_and_not_tried_again(
    make_client: MakeClient, reply: Reply
) -> None:
    with hostile(reply) as server:
        stream = make_client(server.url).stream(QUESTION)
        with pytest.raises(StreamBrokenError, match=server.url) as error:
            list(stream)
    assert error.value.request_id == "r-1"
    assert len(server.requests) == 1
    assert stream.text == ("a" if chunk("a") in reply else "")


@pytest.mark.usefixtures("quick_retries")
def test_a_stream_that_has_not_begun_is_tried_again(make_client: MakeClient) -> None:
    with hostile([], [Reset()], [STREAM_HEAD, GOOD]) as server:
        assert "".join(make_client(server.url).stream(QUESTION)) == TEXT
    with hostile([answer(b"{}", "503 Busy")], [answer(b"{}", "429 Busy")], [STREAM_HEAD, GOOD]) as server:
        assert "".join(make_client(server.url).stream(QUESTION)) == TEXT
    with hostile([]) as server, pytest.raises(NetworkError, match=server.url):
        list(make_client(server.url).stream(QUESTION))
    assert len(server.requests) == 3


@pytest.mark.parametrize("name", [b"event: error\n", b""])
def test_an_error_in_the_stream_is_raised_as_the_server_said_it(make_client: MakeClient, name: bytes) -> None:
    event = name + b"data: " + json.dumps(ERROR).encode() + b"\n\n"
    with hostile([STREAM_HEAD, chunk("a"), event, Hang()]) as server:
        stream = make_client(server.url).stream(QUESTION)
        with pytest.raises(StreamError, match="the engine failed") as error:
            list(stream)
    assert (error.value.code, error.value.param, error.value.request_id) == ("engine_unavailable", None, "r-1")
    assert stream.text == "a"
    assert server.gone == 1, "the connection was left open"


@pytest.mark.parametrize("data", [b"", b"oh no", b"null", b"{}", b'{"error": "text"}', b"[" * 100_000])
def test_an_error_event_without_words_is_an_error_still(make_client: MakeClient, data: bytes) -> None:
    with hostile([STREAM_HEAD, b"event: error\ndata: " + data + b"\n\n"]) as server, pytest.raises(StreamError):
        list(make_client(server.url).stream(QUESTION))


@pytest.mark.parametrize(
    "event",
    [b"hello", b"null", b"[]", b"{}", b'{"choices": 3}', b"[" * 100_000, b"\xff", b'{"id": "c-1", "model": "m"}'],
)  # fmt: skip
def test_garbage_in_a_stream_is_an_invalid_response(make_client: MakeClient, event: bytes) -> None:
    with hostile([STREAM_HEAD, chunk("a"), b"data: " + event + b"\n\n", Hang()]) as server:
        stream = make_client(server.url).stream(QUESTION)
        with pytest.raises(InvalidResponseError, match=server.url):
            list(stream)
        assert stream.text == "a"
    assert server.gone == 1


def test_an_endless_line_ends_with_an_error_and_not_the_memory(make_client: MakeClient) -> None:
    with hostile([STREAM_HEAD, b"data: ", Repeat(b"x" * 2**20)]) as server, pytest.raises(InvalidResponseError):
        list(make_client(server.url).stream(QUESTION))
    assert server.gone == 1


def test_endless_comments_can_be_left(make_client: MakeClient) -> None:
    comments = Repeat(b": still here\n\n" * 99)
    with hostile([STREAM_HEAD, chunk("a"), comments]) as server, make_client(server.url).stream(QUESTION) as stream:
        assert next(stream) == "a"
    assert server.gone == 1


@pytest.mark.parametrize("kind", ["application/json", "text/html", "text/plain"])
def test_a_success_that_is_no_stream_is_an_invalid_response(make_client: MakeClient, kind: str) -> None:
    with hostile([answer(GOOD, kind=kind)]) as server, pytest.raises(InvalidResponseError, match=kind):
        list(make_client(server.url).stream(QUESTION))


def test_a_stream_that_falls_silent_times_out(make_client: MakeClient) -> None:
    with hostile([STREAM_HEAD, chunk("a"), Hang()]) as server:
        stream = make_client(server.url).stream(QUESTION, timeout=0.2)
        assert next(stream) == "a"
        with pytest.raises(TimedOutError, match=server.url) as error:
            next(stream)
        assert error.value.request_id == "r-1"
        with pytest.raises(StopIteration):
            next(stream)
    assert (server.gone, len(server.requests)) == (1, 1)


def test_leaving_a_stream_in_any_way_ends_the_servers_work(client: Either, engine: FakeEngine) -> None:
    engine.step_s = 0.01

    def stream() -> Any:
        return client.stream(QUESTION, extra={"ignore_eos": True})

    def closes_it() -> None:
        begun = stream()
        next(begun)
        begun.close()
        begun.close()

    def leaves_the_block() -> None:
        with stream() as begun:
            next(begun)

    def fails_in_the_block() -> None:
        with suppress(LookupError), stream() as begun:
            next(begun)
            raise LookupError

    for leave in (closes_it, leaves_the_block, fails_in_the_block):
        leave()
        assert engine.submitted
        wait_until(lambda: engine.live == 0)
    assert engine.aborted == 3


def test_a_dropped_stream_ends_the_servers_work(server: Served, engine: FakeEngine) -> None:
    engine.step_s = 0.01
    with Panacea(server.url) as client:
        for _ in client.stream(QUESTION, extra={"ignore_eos": True}):
            break
        wait_until(lambda: engine.live == 0)
    assert engine.aborted == 1


def test_a_dropped_asynchronous_stream_ends_the_servers_work(server: Served, engine: FakeEngine) -> None:
    engine.step_s = 0.01

    async def drop() -> None:
        async with AsyncPanacea(server.url) as client:
            async for _ in client.stream(QUESTION, extra={"ignore_eos": True}):
                break
            gc.collect()
            begun = time.monotonic()
            while engine.live and time.monotonic() - begun < 5:
                await asyncio.sleep(0.01)
            assert engine.live == 0

    asyncio.run(drop())
    assert engine.aborted == 1


def test_a_cancelled_task_ends_the_servers_work(server: Served, engine: FakeEngine) -> None:
    engine.step_s = 0.01

    async def work() -> None:
        async with AsyncPanacea(server.url) as client:

            async def read() -> None:
                async for _ in client.stream(QUESTION, extra={"ignore_eos": True}):
                    pass

            for asked in (read(), client.chat(QUESTION, extra={"ignore_eos": True}), client.sweep(QUESTION, steps=4)):
                task = asyncio.ensure_future(asked)
                begun = time.monotonic()
                while not engine.live and time.monotonic() - begun < 5:
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                begun = time.monotonic()
                while engine.live and time.monotonic() - begun < 5:
                    await asyncio.sleep(0.01)
                assert engine.live == 0

    asyncio.run(work())


def test_nothing_is_asked_before_the_first_piece_is_wanted(client: Either, engine: FakeEngine) -> None:
    with client.stream(QUESTION):
        pass
    unused = client.stream(QUESTION)
    unused.close()
    assert list(unused) == []
    assert engine.submitted == []


def test_the_real_servers_failure_in_a_stream_keeps_what_had_come(client: Either, engine: FakeEngine) -> None:
    engine.failure, engine.failure_at, engine.script = EngineError("made up"), 3, list(range(50, 80))
    stream = client.stream(QUESTION)
    with pytest.raises(StreamError, match="made up") as error:
        list(stream)
    assert error.value.code == "engine_unavailable"
    assert stream.text
    assert stream.request_id == error.value.request_id


def test_a_server_that_dies_in_a_stream_breaks_it(make_client: MakeClient) -> None:
    part = b"%x\r\n%b\r\n" % (len(chunk("a")), chunk("a"))
    with hostile([CHUNKED_HEAD, part, Reset()]) as server, pytest.raises(StreamBrokenError):
        list(make_client(server.url).stream(QUESTION))


def test_streams_of_one_client_run_side_by_side(client: Either) -> None:
    options: Any = {"max_tokens": 20, "extra": {"ignore_eos": True}}
    first, second = client.stream(QUESTION, seed=1, **options), client.stream(QUESTION, seed=2, **options)
    for _ in range(5):
        next(first)
        next(second)
    for _ in first:
        pass
    for _ in second:
        pass
    assert first.text == client.chat(QUESTION, seed=1, **options).text
    assert second.text == client.chat(QUESTION, seed=2, **options).text


def test_closing_the_client_ends_its_streams(server: Served, engine: FakeEngine) -> None:
    engine.step_s = 0.01
    with Panacea(server.url) as client:
        stream = client.stream(QUESTION, extra={"ignore_eos": True})
        next(stream)
    wait_until(lambda: engine.live == 0)
    with pytest.raises(PanaceaError):
        list(stream)


def test_an_event_loop_ends_quietly_behind_a_stream_that_was_left(
    server: Served, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.step_s = 0.01
    kept: list[object] = []

    async def leave() -> None:
        async with AsyncPanacea(server.url) as client:
            stream = client.stream(QUESTION, extra={"ignore_eos": True})
            await anext(stream)
            kept.append(stream)
            reading = asyncio.create_task(read(client))
            await asyncio.sleep(0.1)
        with pytest.raises(PanaceaError):
            await reading
        assert stream.text

    async def read(client: AsyncPanacea) -> None:
        async for _ in client.stream(QUESTION, extra={"ignore_eos": True}):
            pass

    asyncio.run(leave())
    wait_until(lambda: engine.live == 0)
    assert [record for record in caplog.records if record.name == "asyncio"] == []
