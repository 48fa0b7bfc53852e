"""Many requests on a real engine process and real sockets: one key's flood, a queue that is too long, readers that do
not read; and what others get meanwhile."""

import json
import socket
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from panacea.api_key import ApiKey
from panacea.config import EngineConfig, Limits
from panacea.engine.client import EngineClient
from tests.api.chatting import COMPLETIONS
from tests.api.metric_samples import Samples
from tests.api.serving import Served, serving, wait_until
from tests.api.test_disconnect import request
from tests.faults import faulty_engine as faults
from tests.faults.test_engine_faults import COMMAND, CONFIG

KEYS = ("key-a", "key-b")
PROMPT = [7, 8, 9]
LONG: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True}


@contextmanager
def served(
    config: EngineConfig = CONFIG, limits: Limits | None = None, keys: tuple[str, ...] = KEYS
) -> Generator[Served]:
    async def make_engine() -> EngineClient:
        return await EngineClient.start(config, command=COMMAND)

    with serving(make_engine, api_keys=keys, limits=limits or Limits(), send_buffer_bytes=16384) as server:
        yield server


@contextmanager
def asker(server: Served, key: str = KEYS[1]) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=60, headers={"authorization": f"Bearer {key}"}) as client:
        yield client


def ask(client: httpx2.Client, **fields: Any) -> str:
    response = client.post(COMPLETIONS, json={"prompt": PROMPT, **LONG} | fields)
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["text"]
    return text


def finished(client: httpx2.Client) -> float:
    return Samples(client)("request_success_total", finished_reason="length")


def is_idle(server: Served) -> bool:
    """Whether neither half holds anything."""
    stats = server.engine.stats
    return (
        server.admission.is_idle
        and server.admission.requests.held == server.admission.tokens.held == server.admission.body_bytes.held == 0
        and stats is not None
        and stats.running == stats.waiting == 0
        and (stats.free_slots, stats.free_blocks) == (faults.MAX_BATCH, faults.NUM_BLOCKS)
    )


def sent(server: Served, key: str = KEYS[0], **fields: Any) -> socket.socket:
    """A client that has asked, and does not read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    content = json.dumps({"prompt": PROMPT, **LONG} | fields).encode()
    client.sendall(request(content, path=COMPLETIONS, extra=f"Authorization: Bearer {key}\r\n"))
    return client


@pytest.mark.slow
def test_a_flood_by_one_key_keeps_another_waiting_for_a_turn_and_not_for_the_backlog() -> None:
    with served() as server, asker(server) as client, ExitStack() as stack:
        alone = ask(client)
        for _ in range(16):
            stack.enter_context(sent(server, n=16, max_tokens=200))
        wait_until(lambda: server.admission.requests.held > 14 * 16, 20)
        before = finished(client)
        assert ask(client) == alone
        meanwhile = finished(client) - before
        # A batch that ends to make room, and what ends beside the answer; the backlog is more than ten batches.
        assert meanwhile <= 5 * faults.MAX_BATCH, meanwhile
        assert server.admission.requests.held > 100
        stack.close()
        wait_until(lambda: is_idle(server), 20)


@pytest.mark.slow
def test_a_key_gets_no_more_tokens_by_asking_for_more_and_longer_answers() -> None:
    with served() as server, asker(server) as client, ExitStack() as stack:
        greedy, modest = (server.admission.keys.find(ApiKey.of(key).digest) for key in KEYS)
        assert greedy is not None
        assert modest is not None
        for _ in range(16):
            stack.enter_context(sent(server, n=16, max_tokens=200, stream=True))
        wait_until(lambda: server.admission.requests.held > 14 * 16, 20)
        before = greedy.total_tokens, modest.total_tokens
        threads = [threading.Thread(target=ask, args=(client,), kwargs={"n": 16, "max_tokens": 20}) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: modest.total_tokens - before[1] > 2500, 60)
        gained = greedy.total_tokens - before[0], modest.total_tokens - before[1]
        for thread in threads:
            thread.join()
        # Besides equal shares: the batch of the first key that runs when the second one comes, and another one.
        assert gained[0] <= gained[1] + 2 * faults.MAX_BATCH * 200, gained
        stack.close()
        wait_until(lambda: is_idle(server), 20)


@pytest.mark.slow
def test_who_waits_for_too_long_is_told_so_and_who_runs_goes_on() -> None:
    with (
        served(replace(CONFIG, queue_timeout_s=0.5), keys=()) as server,
        asker(server) as client,
        ExitStack() as stack,
    ):
        for _ in range(faults.MAX_BATCH):
            stack.enter_context(sent(server, max_tokens=450, stream=True))
        wait_until(lambda: server.engine.stats is not None and server.engine.stats.running == faults.MAX_BATCH)
        response = client.post(COMPLETIONS, json={"prompt": PROMPT, **LONG})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "queue_timeout")
        assert int(response.headers["retry-after"]) >= 1
        stats = server.engine.stats
        assert stats is not None
        assert stats.running == faults.MAX_BATCH
        stack.close()
        wait_until(lambda: is_idle(server))
        assert ask(client)


@pytest.mark.slow
def test_readers_that_do_not_read_are_dropped_and_free_the_engine_and_others_get_the_same_tokens() -> None:
    limits = Limits(max_unread_tokens=20, slow_reader_timeout_s=2)
    with served(limits=limits) as server, asker(server) as client, ExitStack() as stack:
        alone = ask(client)
        threads = [threading.Thread(target=lambda: answers.append(ask(client))) for _ in range(4)]
        answers: list[str] = []
        for _ in range(4):
            stack.enter_context(sent(server, max_tokens=490, logprobs=5, n=4, stream=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [alone] * 4
        wait_until(lambda: is_idle(server), 30)
        with asker(server, KEYS[0]) as other:
            assert Samples(other)("requests_rejected_total", reason="slow_reader") == 4
