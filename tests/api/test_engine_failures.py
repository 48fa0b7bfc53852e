"""An engine that fails, refuses or breaks: a clear error before the first byte, an event in a stream after it."""

import json
from typing import Any

import httpx2
import pytest

from panacea.errors import EngineDeadError, EngineError, RequestError
from tests.api.chatting import CHAT, COMPLETIONS, ask, body, error_of
from tests.api.fake_engine import FakeEngine


class PanicException(BaseException):
    """A panic of a library in Rust, as pyo3 makes it: no `Exception`."""

    __module__ = "pyo3_runtime"


FAILURES = [
    pytest.param(PanicException("a secret"), 500, "internal_error", "see the server's log", id="a panic"),
    pytest.param(EngineError("out of memory"), 503, "engine_unavailable", "out of memory", id="failed"),
    pytest.param(EngineDeadError("its process is gone"), 503, "engine_unavailable", "process", id="dead"),
    pytest.param(ValueError("a secret"), 500, "internal_error", "see the server's log", id="a bug"),
]


paths = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])


@paths
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("failure", "status", "code", "words"), FAILURES)
def test_a_failure_before_the_first_token_is_a_status(
    own_client: httpx2.Client,
    engine: FakeEngine,
    failure: BaseException,
    status: int,
    code: str,
    words: str,
    stream: bool,
    path: str,
) -> None:
    engine.failure = failure
    response = own_client.post(path, json=body(path, stream=stream, n=3))
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, code)
    assert words in error["message"]
    assert "secret" not in response.text
    assert engine.live == 0


@paths
@pytest.mark.parametrize(("failure", "status", "code", "words"), FAILURES)
def test_a_failure_in_an_answer_is_a_status_too_if_it_does_not_stream(
    own_client: httpx2.Client, engine: FakeEngine, failure: BaseException, status: int, code: str, words: str, path: str
) -> None:
    engine.failure, engine.failure_at = failure, 5
    response = own_client.post(path, json=body(path, n=2))
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert words in error_of(response)["message"]


@paths
@pytest.mark.parametrize(("failure", "status", "code", "words"), FAILURES)
def test_a_failure_in_a_stream_is_its_last_event(
    own_client: httpx2.Client, engine: FakeEngine, failure: BaseException, status: int, code: str, words: str, path: str
) -> None:
    engine.failure, engine.failure_at, engine.script = failure, 3, list(range(50, 80))
    response = own_client.post(path, json=body(path, stream=True, n=2))
    assert response.status_code == 200, status
    *events, last, end = response.text.split("\n\n")
    assert end == ""
    assert all(("chat.completion.chunk" if path == CHAT else "text_completion") in event for event in events)
    name, _, data = last.partition("\n")
    assert name == "event: error"
    content: dict[str, Any] = json.loads(data.removeprefix("data: "))
    assert set(content) == {"error"}
    assert content["error"]["code"] == code
    assert content["error"]["type"] == "server_error"
    assert words in content["error"]["message"]
    assert "secret" not in data
    assert engine.live == 0


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_can_never_serve_is_a_400(own_client: httpx2.Client, engine: FakeEngine, stream: bool) -> None:
    engine.failure = RequestError("the prompt does not fit", "messages")
    response = own_client.post(CHAT, json=body(stream=stream))
    assert (response.status_code, error_of(response)["param"]) == (400, "messages")


def test_an_answer_that_ends_without_a_reason_is_an_engine_failure(
    own_client: httpx2.Client, engine: FakeEngine
) -> None:
    engine.truncate_at = 4
    response = own_client.post(CHAT, json=body())
    assert (response.status_code, error_of(response)["code"]) == (503, "engine_unavailable")


def test_the_server_goes_on_after_a_failure(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.failure = ValueError("once")
    assert own_client.post(CHAT, json=body()).status_code == 500
    engine.failure = None
    assert ask(own_client)["choices"]
