"""HTTP, the engine's process and the golden model together: real sockets, real tokens."""

import json
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from panacea.config import EngineConfig
from panacea.engine.client import EngineClient
from tests.api.serving import Served, serving, wait_until
from tests.golden_files import ADAPTER, BASE, GOLDEN

pytestmark = pytest.mark.slow

QUESTION = "How do I sharpen a knife?"
ENDLESS: dict[str, Any] = {"max_tokens": 480, "ignore_eos": True}
MAX_BATCH = 4


@pytest.fixture(scope="module")
def server() -> Generator[Served]:
    async def make_engine() -> EngineClient:
        return await EngineClient.start(EngineConfig(model=BASE, adapter=ADAPTER, max_batch=MAX_BATCH))

    with serving(make_engine) as served:
        yield served


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def golden_text(preference: list[float]) -> str:
    entries = json.loads((GOLDEN / "expected.json").read_text("utf-8"))["panacea"]
    entry = next(entry for entry in entries if entry["preference"] == preference)
    text: str = next(output["greedy_text"] for output in entry["outputs"] if output["prompt"] == QUESTION)
    return text


def ask(client: openai.OpenAI, preference: list[float]) -> str:
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=24,
        extra_body={"preference": preference},
    )
    return answer.choices[0].message.content or ""


def is_idle(server: Served) -> bool:
    """Whether the engine's last heartbeat says that nobody holds anything."""
    assert isinstance(server.engine, EngineClient)
    stats, info = server.engine.stats, server.engine.info
    return (
        stats is not None
        and stats.running == stats.waiting == 0
        and (stats.free_slots, stats.free_blocks) == (MAX_BATCH, info.num_blocks)
    )


def test_the_official_client_gets_the_golden_answers_streamed_or_not(client: openai.OpenAI) -> None:
    for preference in ([1.0, 0.0, 0.0], [0.2, 0.5, 0.3]):
        shown: Any = [1, 0, 0] if preference[0] == 1 else preference
        assert ask(client, shown) == golden_text(shown)
        stream = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            max_tokens=24,
            stream=True,
            extra_body={"preference": preference},
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == golden_text(shown)


def test_the_official_client_gets_them_as_completions_of_raw_prompts_too(client: openai.OpenAI) -> None:
    prompt = f"<|user|>{QUESTION}<|end|><|assistant|>"
    weights: list[Any] = [[1, 0, 0], [0.2, 0.5, 0.3]]
    for preference in weights:
        fields: Any = {"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 24}
        fields["extra_body"] = {"preference": preference}
        assert client.completions.create(**fields).choices[0].text == golden_text(preference)
        stream = client.completions.create(**fields, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == golden_text(preference)


def start(server: Served, **fields: Any) -> socket.socket:
    """A client that has sent its request and does not read."""
    content = json.dumps({"messages": [{"role": "user", "content": QUESTION}], **ENDLESS, **fields}).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def steps(server: Served) -> int:
    assert isinstance(server.engine, EngineClient)
    return server.engine.stats.steps if server.engine.stats else 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_clients_that_leave_free_the_engine_within_a_second(server: Served, n: int, stream: bool) -> None:
    """More than the batch holds: some are decoding, some are queued, and all leave at once."""
    wait_until(lambda: is_idle(server))
    before = steps(server)
    with ExitStack() as stack:
        connections = [stack.enter_context(start(server, n=n, stream=stream)) for _ in range(MAX_BATCH + 2)]
        wait_until(lambda: steps(server) > before and not is_idle(server))
        for connection in connections:
            connection.close()
        # A heartbeat comes every half second, so a second and that is the longest this may take to show.
        wait_until(lambda: is_idle(server), 1.5)
    assert steps(server) - before < 480, "they ran on to their ends"


def test_a_neighbour_of_clients_that_leave_gets_its_golden_answer(server: Served, client: openai.OpenAI) -> None:
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            with start(server, stream=True, preference=[0, 0, 1]) as connection:
                connection.recv(1)

    others = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in others:
        thread.start()
    try:
        for _ in range(10):
            assert ask(client, [1, 0, 0]) == golden_text([1, 0, 0])
    finally:
        stop.set()
        for thread in others:
            thread.join()
    wait_until(lambda: is_idle(server))
