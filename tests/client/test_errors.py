"""Statuses, lost connections and retries: what is raised, what is tried again, and when."""

import asyncio
import json
import pickle
import re
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

import panacea_client
from panacea.errors import EngineError
from panacea_client import (
    AsyncPanacea,
    BadRequestError,
    InternalServerError,
    InvalidResponseError,
    NetworkError,
    NotFoundError,
    Panacea,
    PanaceaError,
    RateLimitError,
    ServerError,
    SettingsError,
    StatusError,
    TimedOutError,
    UnavailableError,
    errors,
)
from panacea_client.errors import BY_STATUS
from panacea_client.failures import status_error
from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served
from tests.client.either import Either, MakeClient
from tests.client.hostile import Hang, Hostile, Pause, Reply, Reset, answer, hostile

MODELS = answer(b'{"data": []}')
ERROR = json.dumps({"error": {"message": "no\x1b[31m room", "type": "t", "param": "p", "code": "c"}}).encode()
RETRIED = [408, 409, 429, 500, 502, 503, 504, 599]
NOT_RETRIED = [301, 400, 401, 403, 404, 405, 413, 415, 418, 421, 422]


def status(number: int, headers: str = "", body: bytes = ERROR) -> Reply:
    return [answer(body, f"{number} Whatever", headers=f"x-request-id: r-{number}\r\n{headers}")]


@contextmanager
def nobody() -> Generator[str]:
    """A URL at which nobody listens, for as long as the block lasts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("number", [*RETRIED, *NOT_RETRIED])
def test_every_status_has_its_class_and_says_what_the_server_said(make_client: MakeClient, number: int) -> None:
    with hostile(status(number)) as server:
        client = make_client(server.url, max_retries=0)
        for ask in (client.models, lambda: client.chat("Hello"), lambda: next(client.stream("Hello"))):
            with pytest.raises(StatusError) as raised:
                ask()
            error = raised.value
            fallback = ServerError if number >= 500 else panacea_client.RedirectError if number < 400 else StatusError
            assert type(error) is BY_STATUS.get(number, fallback)
            assert isinstance(error, ServerError) == (number >= 500)
            assert (error.status, error.param, error.code, error.request_id) == (number, "p", "c", f"r-{number}")
            assert error.message.startswith("no?[31m room")
            assert error.url.startswith(server.url)
            assert str(error).startswith(f"{number}: no?[31m room")
            assert f"r-{number}" in str(error)
    assert len(server.requests) == 3


def test_the_tree_of_errors_is_the_one_drawn() -> None:
    drawn = errors.__doc__ or ""
    for name in panacea_client.__all__:
        kind = getattr(panacea_client, name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert re.search(rf"\b{name}\b", drawn), f"{name} is not drawn"
            assert issubclass(kind, PanaceaError)
    for number, kind in BY_STATUS.items():
        assert any(kind.__name__ in line and line.split()[-1] == str(number) for line in drawn.splitlines())


def test_errors_survive_a_pickle() -> None:
    error = RateLimitError("slow down", status=429, retry_after_s=3.0, url="u", request_id="r", param="p", code="c")
    for each in (error, NetworkError("gone", url="u"), SettingsError("bad"), panacea_client.StreamError("x", code="c")):
        again = pickle.loads(pickle.dumps(each))  # noqa: S301
        assert (type(again), str(again), vars(again)) == (type(each), str(each), vars(each))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>Bad gateway</html>", b"null", b'{"error": "text"}', b'{"error": {"message": 3}}', b"\xff\xfe",
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_an_error_without_words_still_says_status_and_url(make_client: MakeClient, body: bytes) -> None:
    with hostile(status(502, body=body)) as server, pytest.raises(panacea_client.BadGatewayError) as error:
        make_client(server.url, max_retries=0).models()
    assert str(error.value) == f"502: {server.url}/v1/models answered Whatever (request r-502)"


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("number", RETRIED)
def test_two_retries_are_enough_for_a_server_that_comes_back(make_client: MakeClient, number: int) -> None:
    with hostile(status(number), status(number), [MODELS]) as server:
        assert make_client(server.url).models() == []
    assert len(server.requests) == 3
    names = {line for request in server.requests for line in request.split(b"\r\n") if line.startswith(b"x-request-id")}
    assert len(names) == 1, "the log cannot tell that these are one request"


@pytest.mark.usefixtures("quick_retries")
def test_the_last_failure_is_raised(make_client: MakeClient) -> None:
    with hostile(status(503), status(429), status(500), [MODELS]) as server, pytest.raises(InternalServerError):
        make_client(server.url).models()
    assert len(server.requests) == 3
    with hostile(status(503)) as server, pytest.raises(UnavailableError):
        make_client(server.url, max_retries=4).chat("Hello")
    assert len(server.requests) == 5


@pytest.mark.parametrize("number", NOT_RETRIED)
def test_what_would_not_help_is_not_tried_again(make_client: MakeClient, number: int) -> None:
    with hostile(status(number)) as server, pytest.raises(StatusError):
        make_client(server.url).models()
    assert len(server.requests) == 1


@pytest.mark.parametrize("number", [504, 429])
def test_a_server_that_says_so_is_not_asked_again(make_client: MakeClient, number: int) -> None:
    with hostile(status(number, "x-should-retry: false\r\n")) as server, pytest.raises(StatusError):
        make_client(server.url).chat("Hello")
    assert len(server.requests) == 1


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    "reply",
    [[], [Reset()], [b"HTTP/1.1 200 OK\r\ncontent-len"], [b"garbage\r\n\r\n"], [MODELS[:-3]], [MODELS[:-3], Reset()]],
    ids=["closed", "reset", "half a header", "garbage", "half a body", "reset in the body"],
)
def test_a_lost_connection_is_tried_again(make_client: MakeClient, reply: Reply) -> None:
    with hostile(reply, reply, [MODELS]) as server:
        assert make_client(server.url).models() == []
    with hostile(reply) as server, pytest.raises(NetworkError, match=server.url) as error:
        make_client(server.url).models()
    assert len(server.requests) == 3
    assert not isinstance(error.value, TimedOutError)
    assert error.value.url == f"{server.url}/v1/models"
    assert error.value.request_id
    assert {f"x-request-id: {error.value.request_id}".encode() in request for request in server.requests} == {True}


def test_every_request_has_a_name_of_its_own(make_client: MakeClient) -> None:
    with hostile([MODELS]) as server:
        client = make_client(server.url)
        for _ in range(3):
            client.models()
    names = {line for request in server.requests for line in request.split(b"\r\n") if line.startswith(b"x-request-id")}
    assert len(names) == 3


@pytest.mark.usefixtures("quick_retries")
def test_a_server_that_starts_late_is_found(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the first attempt."""
    begun = time.monotonic()
    with nobody() as url, pytest.raises(NetworkError, match=f"no server answers at {url}.*PANACEA_BASE_URL"):
        make_client(url).models()
    assert time.monotonic() - begun < 2
    attempts: list[float] = []
    monkeypatch.setattr("panacea_client.retries.uniform", lambda *_bounds: attempts.append(1) or 1.0)  # type: ignore[func-returns-value]
    with nobody() as url, pytest.raises(NetworkError):
        make_client(url).chat("Hello")
    assert len(attempts) == 3


def test_a_silent_server_is_given_up_and_not_asked_twice(make_client: MakeClient) -> None:
    with hostile([Hang()]) as server:
        client = make_client(server.url)
        begun = time.monotonic()
        with pytest.raises(TimedOutError, match=f"{server.url}/v1/chat/completions sent nothing for longer"):
            client.chat("Hello", timeout=0.2)
        assert 0.2 <= time.monotonic() - begun < 2
        with pytest.raises(TimedOutError):
            make_client(server.url, timeout=0.2).models()
    assert (len(server.requests), server.gone) == (2, 2)


def test_a_slow_answer_is_no_silence(make_client: MakeClient) -> None:
    slow: list[Any] = []
    for byte in MODELS:
        slow += [bytes([byte]), Pause(0.004)]
    with hostile(slow) as server:
        assert make_client(server.url, timeout=0.3).models() == []


def gaps(server: Hostile) -> list[float]:
    return [after - before for before, after in pairwise(server.times)]


def test_pauses_grow_and_differ_between_clients(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panacea_client.retries._FIRST_DELAY_S", 0.4)  # leaves a busy machine 0.2 s and 0.4 s
    with hostile(status(503)) as server, pytest.raises(UnavailableError):
        make_client(server.url).models()
    first, second = gaps(server)
    assert 0.3 <= first < 0.6 <= second < 1.2


@pytest.mark.slow
@pytest.mark.parametrize(
    "header",
    [lambda: "1", lambda: " 1.0 ", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)],
    ids=["seconds", "fraction", "date"],
)
def test_retry_after_is_obeyed(make_client: MakeClient, header: Callable[[], str]) -> None:
    with hostile(status(429, f"retry-after: {header()}\r\n"), [MODELS]) as server:
        assert make_client(server.url).models() == []
    (gap,) = gaps(server)
    assert 0.95 <= gap < 2.5


@pytest.mark.parametrize(
    "header", ["0", "-5", "soon", "1e3", "nan", "", format_datetime(datetime(2001, 1, 1, tzinfo=UTC))]
)
def test_a_retry_after_that_says_nothing_delays_nothing(
    make_client: MakeClient, header: str, quick_retries: None
) -> None:
    with hostile(status(503, f"retry-after: {header}\r\n"), [MODELS]) as server:
        assert make_client(server.url).models() == []
    assert gaps(server)[0] < 0.5


@pytest.mark.parametrize("header", ["61", "9" * 400, format_datetime(datetime(2999, 1, 1, tzinfo=UTC))])
def test_a_server_that_asks_for_more_than_a_minute_is_not_waited_for(make_client: MakeClient, header: str) -> None:
    with hostile(status(429, f"retry-after: {header}\r\n")) as server, pytest.raises(RateLimitError) as error:
        make_client(server.url).models()
    assert error.value.retry_after_s is not None
    assert error.value.retry_after_s > 60
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"not json", "application/json"),
        (b"<html>a hotel's wifi</html>", "text/html"),
        (b"null", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "application/json"),
        (b'{"choices": []}', "application/json"),
        (b"\xff\xfe\x00", "application/json"),
        (b"[" * 100_000, "application/json"),
    ],
)
def test_a_success_that_is_no_answer_says_what_came(make_client: MakeClient, body: bytes, kind: str) -> None:
    with hostile([answer(body, kind=kind)]) as server:
        client = make_client(server.url)
        for ask in (
            lambda: client.chat("Hello"), lambda: client.complete("Hello"), client.models, client.preferences,
            client.evaluation, client.ready,
        ):  # fmt: skip
            with pytest.raises(InvalidResponseError, match=f"{server.url}.*{kind}"):
                ask()
    assert len(server.requests) == 6


def test_an_answer_without_choices_is_none(make_client: MakeClient) -> None:
    body = {"id": "1", "created": 1, "model": "m", "preference": None, "choices": [], "usage": dict.fromkeys(
        ("prompt_tokens", "completion_tokens", "total_tokens"), 1)}  # fmt: skip
    with hostile([answer(json.dumps(body).encode())]) as server, pytest.raises(InvalidResponseError, match="choices"):
        make_client(server.url).chat("Hello")


def test_a_body_in_a_broken_encoding_is_an_invalid_response(make_client: MakeClient) -> None:
    garbled = answer(b"no gzip at all", headers="content-encoding: gzip\r\n")
    with hostile([garbled]) as server, pytest.raises(InvalidResponseError):
        make_client(server.url).models()
    assert len(server.requests) == 1


def test_a_probe_asks_once(make_client: MakeClient) -> None:
    with hostile(status(503)) as server:
        assert not make_client(server.url).ready()
    assert len(server.requests) == 1
    with nobody() as url, pytest.raises(NetworkError):
        make_client(url, max_retries=0).ready()


def test_the_real_servers_errors_are_typed(client: Either, engine: FakeEngine) -> None:
    with pytest.raises(BadRequestError, match="helpful, harmless, concise") as bad:
        client.chat("Hello", preference={"kind": 1})
    assert (bad.value.param, bad.value.code) == ("preference", "invalid_preference")
    with pytest.raises(NotFoundError) as missing:
        client.chat("Hello", model="nobody")
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    with pytest.raises(BadRequestError) as unknown:
        client.chat("Hello", extra={"no_such_field": 1})
    assert unknown.value.param == "no_such_field"
    engine.failure = EngineError("out of memory")
    for ask in (lambda: client.chat("Hello"), lambda: next(client.stream("Hello"))):
        with pytest.raises(UnavailableError, match="out of memory") as failed:
            ask()
        assert failed.value.code == "engine_unavailable"
        assert failed.value.request_id


def test_a_closed_client_says_so(server: Served) -> None:
    with Panacea(server.url) as client:
        assert client.models()
    client.close()
    for ask in (client.models, lambda: next(client.stream("Hello")), lambda: client.compare("Hello", [None])):
        with pytest.raises(RuntimeError, match="closed"):
            ask()

    async def ask_late() -> None:
        async with AsyncPanacea(server.url) as late:
            assert await late.models()
        await late.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await late.models()

    asyncio.run(ask_late())


@pytest.mark.slow
@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4,5} \d\d:\d\d:\d\d ([A-Z]{3}|[+-]\d{4,9})"))
def test_no_retry_after_breaks_the_client(header: str) -> None:
    error = status_error(httpx2.Response(503, headers=[(b"retry-after", header.encode())], request=_REQUEST), "r")
    assert error.retry_after_s is None or error.retry_after_s >= 0


_REQUEST = httpx2.Request("GET", "http://localhost")
