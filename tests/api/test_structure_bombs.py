"""Bodies whose structure costs much: counted before they are parsed, refused, and noticed by nobody else."""

import gc
import json
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from panacea.api.connections.json_body import MAX_STRUCTURE, MAX_VALUES, count_values, parse_json
from panacea.api.error_responses import ApiError
from panacea.api.generation.chat_request import ChatRequest
from panacea.api.generation.completion_request import CompletionRequest
from panacea.api.information.tokenization_request import DetokenizeRequest, TokenizeRequest
from panacea_lab.bench.soak.http_caller import Address, Caller
from tests.api.chatting import body
from tests.api.fake_engine import FakeEngine
from tests.api.serving import serving
from tests.api.test_connections import answers, error_in
from tests.api.test_disconnect import connection
from tests.api.test_request_line import CHAT_HEAD
from tests.fuzz.health_watch import watched
from tests.fuzz.structure_bombs import BOMBS, StructureBomb
from tests.fuzz.values import CHAT, COMPLETIONS, DETOKENIZE, TOKENIZE

MODELS: dict[str, type[BaseModel]] = {
    CHAT: ChatRequest,
    COMPLETIONS: CompletionRequest,
    TOKENIZE: TokenizeRequest,
    DETOKENIZE: DetokenizeRequest,
}
LONGEST_S = 0.4
"""Processor time for one body: 0.06 s is the longest that was measured, on a core of an AMD EPYC."""


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.name)
def test_no_body_takes_long(bomb: StructureBomb) -> None:
    body = bomb.body()
    gc.freeze()  # as the server does: the collector would look at everything that other tests have imported
    try:
        begin = time.thread_time()
        with suppress(ApiError):
            parse_json(body, MODELS[bomb.path])
        took_s = time.thread_time() - begin
    finally:
        gc.unfreeze()
    assert took_s < LONGEST_S


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        "a, b: [c] {d}",
        {"a": [1, 2, {"b": "\\"}], 'c"': '\\"', "d": "\\\\"},
        [[], {}, "", None, True, -1.5e3, '"', "\\", '\\"'],
        {"messages": [{"role": "user", "content": '{"a": ["b\\n"]}'}] * 7, "n": 1},
    ],
)
def test_values_are_counted_exactly_outside_of_strings(content: object) -> None:
    text = json.dumps(content)
    padded = text.encode() + b" " * (MAX_VALUES + 1)
    assert count_values(padded) == _signs(content) + 1


def _signs(content: object) -> int:
    """Brackets, commas and colons."""
    members = list(content.values()) if isinstance(content, dict) else content if isinstance(content, list) else []
    is_container = isinstance(content, dict | list)
    colons = len(members) if isinstance(content, dict) else 0
    return is_container + max(0, len(members) - 1) + colons + sum(_signs(member) for member in members)


def test_a_long_text_full_of_signs_is_no_structure() -> None:
    text = '"[{:,}]\\' * (MAX_VALUES // 4)
    chat = parse_json(json.dumps({"messages": [{"role": "user", "content": text}]}).encode(), ChatRequest)
    assert chat.messages[0].content[0].text == text


@pytest.mark.parametrize("context", [512, 200_000, 1_000_000])
def test_a_prompt_of_as_many_token_ids_as_the_context_is_read(context: int) -> None:
    ids = [7] * context
    assert parse_json(json.dumps({"prompt": ids}).encode(), CompletionRequest, context).prompt == [ids]


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": ' + b"[1," * MAX_STRUCTURE,
        b"[" * (MAX_STRUCTURE + 1),
        b'""' * (MAX_STRUCTURE + 1),
        b'{"a": [' + b"1," * MAX_VALUES,
        b"{" + b":" * (MAX_VALUES + 1),
    ],
)
def test_more_is_refused_also_where_nothing_is_json(body: bytes) -> None:
    with pytest.raises(ApiError, match="holds more than") as caught:
        parse_json(body, ChatRequest)
    assert (caught.value.status, caught.value.code) == (413, "too_many_values")


def test_a_name_that_occurs_twice_is_named_with_its_path_in_a_large_body_too() -> None:
    weights = ", ".join(f'"{number}": 1' for number in range(30_000))
    body = f'{{"messages": [{{"role": "user", "content": [{{"type": "text", "text": "", "text": ""}}]}}], {weights}}}'
    with pytest.raises(ApiError, match="occurs twice") as caught:
        parse_json(body.encode(), ChatRequest)
    assert caught.value.param == "messages[0].content[0].text"


@contextmanager
def threads(*targets: Callable[[], None]) -> Generator[None]:
    """Runs each target in a thread. Ends when all have ended."""
    running = [threading.Thread(target=target) for target in targets]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        for thread in running:
            thread.join()


@pytest.mark.slow
def test_health_and_a_stream_are_served_beside_three_looping_bombs() -> None:
    async def make_engine() -> FakeEngine:
        return FakeEngine(step_s=0.01)

    statuses = Counter[int]()
    gaps_s: list[float] = []
    with serving(make_engine) as served, watched(served.url) as watch:
        end = time.monotonic() + 8

        def bomb(first: int) -> None:
            number = first
            while time.monotonic() < end:
                bomb = BOMBS[number % len(BOMBS)]
                with closing(Caller(Address.of(served.url))) as caller:
                    statuses[caller.ask("POST", bomb.path, bomb.body()).status] += 1
                number += 1

        def chunks() -> None:
            while time.monotonic() < end:
                with connection(served) as client:
                    client.settimeout(60)
                    client.sendall(CHAT_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 300_000)
                    statuses[error_in(answers(client))[0]] += 1

        def read_a_stream() -> None:
            with httpx2.Client(base_url=served.url, timeout=60) as client:
                while time.monotonic() < end:
                    asked = body(stream=True, max_tokens=100, ignore_eos=True)
                    with client.stream("POST", CHAT, json=asked) as response:
                        last = time.monotonic()
                        for _ in response.iter_lines():
                            gaps_s.append(time.monotonic() - last)
                            last = time.monotonic()

        with threads(partial(bomb, 0), partial(bomb, 15), partial(bomb, 30), chunks, read_a_stream):
            pass
    assert statuses.total() >= 10
    assert set(statuses) <= {200, 400, 413, 429}
    assert watch.failures == []
    assert watch.p99_s < 1, watch.report()
    assert max(gaps_s) < 3, f"a stream paused for {max(gaps_s):.1f} s"


def test_a_waiting_request_holds_nothing_large_of_its_body() -> None:
    large = "a" * 1_000_000
    fields: dict[str, Any] = {
        "messages": [{"role": "user", "content": large}],
        "user": large,
        "metadata": {str(number): large for number in range(16)},
        "chat_template_kwargs": {"enable_thinking": [large]},
        "preference": [1] * 10_000,
        "logit_bias": {str(number): 1 for number in range(1000)},
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": large[:9000]}}},
    }
    form = {"stop": ["x"], "stream": True, "stream_options": {"include_usage": True}, "logprobs": True}
    kept = ChatRequest.model_validate(fields | form, strict=True).without_content()
    assert len(pickle.dumps(kept)) < 2000
    assert kept.model_dump(include=set(form), exclude_none=True) == form
