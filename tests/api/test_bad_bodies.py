"""Over 700 bad bodies: each is a 4xx in the error shape that names the field and repeats no value, and nobody else
notices."""

import json
import threading
import time
from collections.abc import Generator
from typing import Any

import httpx2
import pytest

from panacea.api.connections.json_body import MAX_STRUCTURE, MAX_VALUES
from tests.api.bad_bodies import CLASSES, GOOD
from tests.api.bad_completions import COMPLETION_CLASSES
from tests.api.cases import DIMENSIONS, SECRET, with_field
from tests.api.chatting import CHAT, COMPLETIONS, ask, body, contents, error_of
from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, serving, wait_until

STATUSES = {"10 MB": {413}, "combinations": {400, 404}}


def holds_too_much(content: bytes) -> bool:
    """Whether a body exceeds the limits on its structure. Their strings have few signs."""
    containers = content.count(b"[") + content.count(b"{")
    signs = containers + content.count(b",") + content.count(b":")
    return len(content) <= 4 << 20 and (containers + content.count(b'"') // 2 > MAX_STRUCTURE or signs > MAX_VALUES)


@pytest.fixture(scope="module")
def busy_server() -> Generator[Served]:
    """A server that answers somebody all the while, who must not notice anything."""

    async def make_engine() -> FakeEngine:
        return FakeEngine(step_s=0.001)

    with serving(make_engine) as served, httpx2.Client(base_url=served.url, timeout=30) as neighbour:
        good: dict[str, Any] = {"max_tokens": 40, "n": 2, "preference": {"helpful": 1}}
        expected = contents(ask(neighbour, **good))
        answers: list[tuple[list[str], float]] = []
        over = threading.Event()

        def keep_asking() -> None:
            while not over.is_set():
                begin = time.monotonic()
                answers.append((contents(ask(neighbour, **good)), time.monotonic() - begin))

        thread = threading.Thread(target=keep_asking)
        thread.start()
        yield served
        try:
            wait_until(lambda: len(answers) > 5, 60)
        finally:
            over.set()
            thread.join()
        assert all(texts == expected for texts, _ in answers)
        assert max(seconds for _, seconds in answers) < 5


@pytest.fixture(scope="module")
def sender(busy_server: Served) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=busy_server.url, timeout=30) as client:
        yield client


def test_there_are_300_and_ten_of_each_kind_that_was_asked_for() -> None:
    assert sum(map(len, CLASSES.values())) >= 300
    few = {"too large", "many errors"}
    assert all(len(cases) >= 10 for name, cases in CLASSES.items() if name not in few)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "kind"), [*((CHAT, kind) for kind in CLASSES), *((COMPLETIONS, kind) for kind in COMPLETION_CLASSES)]
)
def test_bad_bodies_are_refused(sender: httpx2.Client, path: str, kind: str) -> None:
    for content, param in (CLASSES if path == CHAT else COMPLETION_CLASSES)[kind]:
        response = sender.post(path, content=content, headers={"content-type": "application/json"})
        shown = content[:200]
        if holds_too_much(content):
            assert (response.status_code, error_of(response)["code"]) == (413, "too_many_values"), shown
            continue
        assert response.status_code in STATUSES.get(kind, {400}), (shown, response.text)
        error = error_of(response)
        assert error["param"] == param, (shown, error)
        assert SECRET not in response.text, (shown, error)
        if param == "preference" and b"tiny:base" not in content:
            assert DIMENSIONS in error["message"], (shown, error)


def test_errors_say_what_would_be_right(sender: httpx2.Client) -> None:
    expected = {
        with_field("n", "17"): "n must be less than or equal to 16",
        with_field("temperature", '"0.5"'): "temperature must be a valid number",
        with_field("lambda", "1"): "lambda is not a field of this request",
        with_field("temperature", "NaN"): "temperature must be a finite number",
        b"{}": "messages is required",
        b"[]": "the body must be an object",
        with_field("messages", "[]"): "messages must have at least 1 item",
        with_field("stop", '["a", "b", "c", "d", "e"]'): "stop must have at most 4 items",
        with_field("store", "true"): "store is not supported by this server beyond null or False; leave it out",
        with_field("messages", '[{"role": "user", "content": 1}]'): "messages[0].content must be a string or an array "
        "of text parts",
        with_field("n", '1, "n": 1'): "n occurs twice",
    }
    none = "is not supported by this server"
    parts = '[{"role": "user", "content": [{"type": "KIND"}]}]'
    expected |= {
        with_field("tools", "[{}]"): f"tools {none} beyond null or []; leave it out",
        with_field("functions", "[{}]"): f"functions {none} beyond null or []; leave it out",
        with_field("modalities", '["audio"]'): f'modalities {none} beyond null or ["text"]; leave it out',
        with_field("audio", '{"voice": "a"}'): f"audio {none} beyond null; leave it out",
        with_field("messages", '[{"role": "tool", "content": "a"}]'): f"messages[0].role {none}: there are no tools",
    } | {
        with_field("messages", parts.replace("KIND", kind)): f"messages[0].content[0].type {none}: messages are text"
        for kind in ("image_url", "input_audio", "file")
    }
    for content, text in expected.items():
        response = sender.post(CHAT, content=content, headers={"content-type": "application/json"})
        assert error_of(response)["message"] == text


def test_errors_of_completions_say_what_would_be_right(sender: httpx2.Client) -> None:
    expected = {
        (
            "prompt",
            "1",
        ): "prompt must be a string, an array of strings, an array of token ids or an array of such arrays",
        ("prompt", "[]"): "prompt must have at least 1 item",
        ("prompt", '""'): "prompt must not be empty: this model has no beginning-of-sequence token",
        ("prompt", "[5, true]"): "prompt[1] must be a valid integer",
        ("prompt", "[5, 354]"): "prompt: token ids must be below 354",
        ("prompt", '["a", 5]'): "prompt[1] must be a valid string",
        ("max_tokens", "0"): "max_tokens 0 only scores the prompt, so it needs echo and logprobs",
        ("logprobs", "6"): "logprobs must be less than or equal to 5",
        ("best_of", "2"): "best_of other than n is not supported by this server; leave it out",
        ("suffix", '"."'): 'suffix is not supported by this server beyond null or ""; leave it out',
        ("n", '2, "prompt": ' + str([[5]] * 65)): "n times the number of prompts must be at most 128",
    }
    for (name, value), text in expected.items():
        rest = {key: item for key, item in body(COMPLETIONS).items() if key != name and f'"{key}":' not in value}
        content = f'{{"{name}": {value}, {json.dumps(rest)[1:]}'
        response = sender.post(COMPLETIONS, content=content, headers={"content-type": "application/json"})
        assert error_of(response)["message"] == text


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "application/jsonx",
    ],
)
def test_other_content_types_are_refused(sender: httpx2.Client, content_type: str | None) -> None:
    """A web page may send these to any server without asking it first."""
    headers = {} if content_type is None else {"content-type": content_type}
    response = sender.post(CHAT, content=GOOD, headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")


def test_a_content_type_may_name_its_charset(sender: httpx2.Client) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert sender.post(CHAT, content=GOOD, headers=headers).status_code == 200
