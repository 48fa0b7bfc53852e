"""Text work over a real socket: one key's flood, hostile texts and dead workers, beside another key's requests."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from panacea.config import Limits
from tests.api.chatting import CHAT, COMPLETIONS, ask, body, error_of
from tests.api.fake_engine import FakeEngine
from tests.api.serving import TEXT, Served, serving, wait_until
from tests.api.text_workers import PoolInThread
from tests.golden_files import BASE
from tests.schemas import ENDLESS_WORK, SCHEMAS
from tests.text.test_pool import ON_LOOP, workers_of

KEYS = ("flooder", "innocent")
LONGEST = TEXT.vocabulary.longest_token
LARGE_CONTEXT = 1 << 20


@contextmanager
def two_tenants(
    context_length: int = LARGE_CONTEXT, folder: Path = BASE, limits: Limits | None = None
) -> Generator[tuple[Served, PoolInThread, httpx2.Client, httpx2.Client]]:
    """A server with workers of its own, and a client for each of two keys."""
    engine = FakeEngine()
    engine.info = replace(engine.info, context_length=context_length)

    async def make_engine() -> FakeEngine:
        return engine

    text = PoolInThread(folder, several_tenants=True)
    try:
        with serving(
            make_engine, text=text, api_keys=KEYS, limits=limits or Limits(), send_buffer_bytes=4096
        ) as served:
            clients = [
                httpx2.Client(base_url=served.url, timeout=60, headers={"authorization": f"Bearer {key}"})
                for key in KEYS
            ]
            with clients[0], clients[1]:
                yield served, text, clients[0], clients[1]
    finally:
        text.close()


class Flood:
    """Several requests at once, each in a thread of its own, until the block ends."""

    def __init__(self, client: httpx2.Client, path: str, bodies: list[dict[str, Any]]) -> None:
        self.answers: list[httpx2.Response] = []
        self._client = client
        self._threads = [threading.Thread(target=self._post, args=[path, each]) for each in bodies]

    def __enter__(self) -> "Flood":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def _post(self, path: str, content: dict[str, Any]) -> None:
        self.answers.append(self._client.post(path, json=content))


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized() -> None:
    with two_tenants(context_length=64) as (_, text, client, _):
        jobs = text.stats.jobs
        most = 64 * LONGEST
        for path, content in (
            ("/v1/tokenize", {"prompt": "x" * (most + 1)}),
            (COMPLETIONS, body(COMPLETIONS, prompt="x" * (most + 1))),
        ):
            error = error_of(client.post(path, json=content))
            assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
            assert str(most) in error["message"]
        assert text.stats.jobs == jobs
        long = [{"role": "user", "content": "x" * most}]
        for path, content in (("/v1/tokenize", {"messages": long}), (CHAT, body(messages=long))):
            error = error_of(client.post(path, json=content))
            assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
        assert client.post("/v1/tokenize", json={"prompt": "x" * most}).json()["count"] > 64
        error = error_of(client.post("/v1/detokenize", json={"tokens": [5] * 65}))
        assert (error["code"], error["param"]) == ("context_length_exceeded", "tokens")


@pytest.mark.slow
def test_a_flood_of_long_texts_delays_nobody_else() -> None:
    with two_tenants() as (_, text, flooder, innocent):
        with Flood(
            flooder, "/v1/tokenize", [{"prompt": f"{index} " + "\u00e9" * 400_000} for index in range(6)]
        ) as flood:
            wait_until(lambda: text.stats.waiting > 3, 30)
            begin = time.monotonic()
            ask(innocent)
            took_s = time.monotonic() - begin
            assert text.stats.waiting > 1, "the flood was over before"
        assert took_s < 2
        assert [answer.json()["count"] > 800_000 for answer in flood.answers] == [True] * 6


def test_a_result_that_nobody_reads_counts_as_held_bytes() -> None:
    prompt = "\u00e9" * 100_000
    with two_tenants() as (served, _, client, _):
        held = served.admission.body_bytes
        with client.stream("POST", "/v1/tokenize", json={"prompt": prompt, "return_token_strs": True}) as response:
            wait_until(lambda: held.held > 1_000_000, 30)
            assert len(response.read()) > 1_000_000
        wait_until(lambda: not held.held, 30)


def test_a_killed_workers_schema_is_a_503_and_later_a_200() -> None:
    def schema(content: dict[str, Any]) -> dict[str, Any]:
        return body(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": content}})

    with two_tenants() as (_, text, client, _):
        with Flood(client, CHAT, [schema(ENDLESS_WORK)]) as flood:
            wait_until(lambda: text.stats.jobs == 2 and text.stats.waiting == 0, 30)
            for pid in workers_of(text.pool):
                os.kill(pid, signal.SIGKILL)
        (response,) = flood.answers
        assert (response.status_code, error_of(response)["code"]) == (503, "text_worker_failed")
        assert int(response.headers["retry-after"]) >= 1
        wait_until(lambda: client.post(CHAT, json=body()).status_code == 200, 30)
        assert client.post(CHAT, json=schema(SCHEMAS["text"])).status_code == 200


def test_a_request_that_waits_too_long_for_a_worker_is_a_503(tmp_path: Path) -> None:
    shutil.copy(BASE / "tokenizer.json", tmp_path)
    (tmp_path / "chat_template.jinja").write_text(ON_LOOP)
    loop = body(messages=[{"role": "user", "content": "loop"}])
    with two_tenants(folder=tmp_path, limits=Limits(queue_timeout_s=0.5)) as (_, _, client, _):
        with Flood(client, CHAT, [loop] * 3) as flood:
            pass
        assert [error_of(answer)["code"] for answer in flood.answers] == ["queue_timeout"] * 3
        assert ask(client)
