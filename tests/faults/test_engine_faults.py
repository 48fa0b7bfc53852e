"""Every fault of the engine: clear errors in time, the truth at /ready, service again, and nothing left behind."""

import asyncio
import json
import math
import os
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2
import pytest

from panacea.config import EngineConfig, Supervision
from panacea.engine.client import EngineClient
from panacea.engine.supervisor import Supervisor
from tests.api.chatting import COMPLETIONS
from tests.api.metric_samples import Samples
from tests.api.serving import Served, serving, wait_until
from tests.faults import faulty_engine as faults
from tests.faults.holdings import Holdings
from tests.golden_files import BASE

INJECTIONS = int(os.environ.get("PANACEA_FAULTS", "3"))
"""Of each kind; `make faults` asks for twenty."""
WATCHDOG_S = 2.0
SUPERVISION = Supervision(watchdog_s=WATCHDOG_S, step_limit_s=WATCHDOG_S, backoff_s=0.01, backoff_limit_s=0.1)
COMMAND = [sys.executable, "-m", "tests.faults.faulty_engine"]
CONFIG = EngineConfig(model=BASE)
# Five seconds, in which three of them fill the cache: whoever waits for them to run together cannot come too late.
ENDLESS: dict[str, Any] = {"max_tokens": 1200, "ignore_eos": True, "seed": 1}


@pytest.fixture
def gate() -> threading.Event:
    """Engines start only while this is set, so that no test comes too late to see that there is none."""
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def server(
    gate: threading.Event, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Generator[Served]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("t")))

    async def launch() -> EngineClient:
        while not gate.is_set():
            await asyncio.sleep(0.001)
        return await EngineClient.start(CONFIG, SUPERVISION, COMMAND)

    with serving(lambda: Supervisor.start(CONFIG, SUPERVISION, launch)) as served:
        yield served


@dataclass
class Client:
    """Somebody who is being answered while a fault happens, and when and how it heard of it."""

    stream: bool
    url: str
    tokens: int = 0
    error: dict[str, Any] | None = None
    status: int = 0
    heard: float = math.inf

    def run(self) -> None:
        body = {"prompt": [40, 41, 42], "stream": self.stream, **ENDLESS}
        with httpx2.stream("POST", f"{self.url}{COMPLETIONS}", json=body, timeout=60) as response:
            self.status = response.status_code
            for line in response.iter_lines():
                self.tokens += line.startswith("data: ")
                if '"error"' in line:
                    self.heard = time.monotonic()
                    self.error = json.loads(line.removeprefix("data: "))["error"]


def ask(server: Served, prompt: list[int], **fields: Any) -> httpx2.Response:
    body = {"prompt": prompt, **ENDLESS, "max_tokens": 20, **fields}
    return httpx2.post(f"{server.url}{COMPLETIONS}", json=body, timeout=60)


def is_ready(server: Served) -> bool:
    return httpx2.get(f"{server.url}/ready").status_code == 200


def is_idle(server: Served) -> bool:
    """Whether the engine's last heartbeat says that nobody holds anything."""
    assert isinstance(server.engine, Supervisor)
    stats = server.engine.stats
    return (
        stats is not None
        and stats.running == stats.waiting == 0
        and (stats.free_slots, stats.free_blocks) == (faults.MAX_BATCH, faults.NUM_BLOCKS)
    )


def all_answered(server: Served, clients: list[Client]) -> bool:
    """Whether all are in the midst of an answer; only those that stream can tell."""
    stats = server.engine.stats
    return (
        stats is not None
        and stats.running == len(clients)
        and all(client.tokens > 3 for client in clients if client.stream)
    )


def span(times_s: list[float]) -> str:
    return f"{statistics.median(times_s):.2f} s ({min(times_s):.2f} to {max(times_s):.2f})"


def poison(token: int) -> Callable[[Served], None]:
    """A request with this fault in it, sent by somebody who does not care for the answer."""

    def send(server: Served) -> None:
        threading.Thread(target=ask, args=[server, [token, 40]], daemon=True).start()

    return send


def give_signal(number: signal.Signals) -> Callable[[Served], None]:
    def send(server: Served) -> None:
        assert isinstance(server.engine, Supervisor)
        assert server.engine.pid is not None
        os.kill(server.engine.pid, number)

    return send


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inject", "limit_s", "words"),
    [
        pytest.param(give_signal(signal.SIGKILL), 2, "was ended by SIGKILL", id="killed"),
        pytest.param(poison(faults.BREAKS), 2, "a step raised RuntimeError", id="breaks"),
        pytest.param(give_signal(signal.SIGSTOP), WATCHDOG_S + 2, "was silent for more than 2 s", id="stopped"),
        pytest.param(poison(faults.HANGS), WATCHDOG_S + 2, "a step of the engine took more than 2 s", id="hangs"),
        pytest.param(
            poison(faults.HANGS_WITH_THE_INTERPRETER), WATCHDOG_S + 2, "was silent for more than 2 s", id="stuck"
        ),
    ],
)
def test_a_fault_of_the_engine_is_told_to_all_in_time_and_service_comes_back(
    server: Served, gate: threading.Event, inject: Callable[[Served], None], limit_s: float, words: str
) -> None:
    assert isinstance(server.engine, Supervisor)
    whole_answer = ask(server, [40, 41, 42]).json()["choices"]
    held: list[Holdings] = []
    heard_s: list[float] = []
    back_s: list[float] = []
    for injection in range(INJECTIONS):
        clients = [Client(stream, server.url) for stream in (True, True, False)]
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        wait_until(partial(all_answered, server, clients), 20)
        gate.clear()
        inject(server)
        begin = time.monotonic()
        wait_until(lambda: not is_ready(server), limit_s)
        gate.set()
        assert httpx2.get(f"{server.url}/health").status_code == 200
        for thread in threads:
            thread.join(20)
        heard_s.append(max(client.heard for client in clients) - begin)
        for client in clients:
            assert client.error is not None
            assert client.error["code"] == "engine_unavailable"
            assert words in client.error["message"]
            assert client.status == (200 if client.stream else 503)
        wait_until(lambda: is_ready(server), 20)
        back_s.append(time.monotonic() - begin)
        with httpx2.Client(base_url=server.url) as scraper:
            assert Samples(scraper)("engine_restarts_total") == server.engine.restarts == injection + 1
        assert ask(server, [40, 41, 42]).json()["choices"] == whole_answer
        wait_until(lambda: is_idle(server))
        held.append(Holdings.settled())
    # Shown by `make faults`.
    print(f"{INJECTIONS} times: all had heard after {span(heard_s)}, service was back after {span(back_s)}")  # noqa: T201
    assert max(heard_s) < limit_s
    # The first restart brings the thread in which the dead are waited for, which then stays.
    assert held == [held[0]] * INJECTIONS


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("token", "words"),
    [
        (faults.IS_NOT_FINITE, "not finite"),
        (faults.RAISES, "its step raised ValueError"),
        (faults.CANNOT_BE_ADDED, "could not be added"),
    ],
)
def test_a_fault_in_one_requests_own_data_fails_that_request_alone(
    server: Served, token: int, words: str, stream: bool
) -> None:
    assert isinstance(server.engine, Supervisor)
    expected = ask(server, [40, 41, 42]).json()["choices"]
    wait_until(lambda: is_idle(server))
    before, pid = Holdings.settled(), server.engine.pid
    answers: list[Any] = []
    neighbours = [
        threading.Thread(target=lambda: answers.append(ask(server, [40, 41, 42]).json()["choices"])) for _ in range(3)
    ]
    for thread in neighbours:
        thread.start()
    for _ in range(INJECTIONS):
        response = ask(server, [token, 40], stream=stream)
        error = json.loads(response.text.strip().split("data: ")[-1])["error"]
        assert error["code"] == "request_failed"
        assert words in error["message"]
        assert response.status_code == (200 if stream and token != faults.CANNOT_BE_ADDED else 500)
    for thread in neighbours:
        thread.join()
    assert answers == [expected] * 3
    wait_until(lambda: is_idle(server))
    assert (server.engine.pid, server.engine.restarts) == (pid, 0)
    assert Holdings.settled() == before


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_while_no_engine_serves_requests_are_refused_with_a_time_to_come_back(
    server: Served, gate: threading.Event, stream: bool
) -> None:
    gate.clear()
    give_signal(signal.SIGKILL)(server)
    wait_until(lambda: not is_ready(server))
    for _ in range(3):
        response = ask(server, [40], stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
        assert int(response.headers["retry-after"]) >= 1
    gate.set()
    wait_until(lambda: is_ready(server), 20)
    assert ask(server, [40]).status_code == 200


@pytest.mark.slow
def test_clients_that_never_stop_asking_are_answered_rightly_or_told_to_come_back(server: Served) -> None:
    assert isinstance(server.engine, Supervisor)
    expected = ask(server, [40, 41, 42]).json()["choices"]
    wrong: list[httpx2.Response] = []
    statuses: Counter[int] = Counter()
    ended = threading.Event()

    def ask_on(stream: bool) -> None:
        while not ended.is_set():
            response = ask(server, [40, 41, 42], stream=stream)
            statuses[response.status_code] += 1
            told = "engine_unavailable" in response.text
            complete = "[DONE]" in response.text if stream else response.json().get("choices") == expected
            if told == complete:
                wrong.append(response)

    threads = [threading.Thread(target=ask_on, args=[stream]) for stream in (False, False, True)]
    for thread in threads:
        thread.start()
    for restarts in range(1, INJECTIONS + 1):
        more = statuses[200] + 4
        wait_until(partial(lambda least: statuses[200] >= least, more), 20)
        give_signal(signal.SIGKILL)(server)
        wait_until(partial(lambda times: server.engine.restarts == times, restarts), 20)
    ended.set()
    for thread in threads:
        thread.join(20)
    assert not wrong, wrong[0].text
    assert set(statuses) == {200, 503}
    assert ask(server, [40, 41, 42]).json()["choices"] == expected
    wait_until(lambda: is_idle(server))
