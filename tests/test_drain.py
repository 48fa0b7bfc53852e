"""SIGTERM to a real server: what it had admitted is answered as if nothing had happened, and nothing else is."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.serving import wait_until
from tests.command import serving
from tests.engine.test_process import gone_within
from tests.golden_files import ADAPTER, BASE
from tests.test_cli import children_of, engine_of

SLOW_ENGINE = [sys.executable, "-m", "tests.faults.panacea_with_faults"]

QUESTION = "How do I sharpen a knife?"
PATH = "/v1/chat/completions"
LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": QUESTION}],
    "max_tokens": 400,
    "ignore_eos": True,
    "seed": 7,
    "temperature": 1.2,
    "stream": True,
}


class Stream(threading.Thread):
    """Somebody who is being answered."""

    def __init__(self, url: httpx2.URL, **fields: Any) -> None:
        super().__init__()
        self.url = url
        self.fields = fields
        self.events: list[str] = []
        self.is_cut_off = False

    def run(self) -> None:
        with httpx2.Client(base_url=self.url, timeout=60) as client, suppress(httpx2.TransportError):
            self.is_cut_off = True
            with client.stream("POST", PATH, json=LONG | self.fields) as response:
                for line in response.iter_lines():
                    self.events += [line] if line else []
            self.is_cut_off = False

    @property
    def text(self) -> str:
        assert self.events[-1] == "data: [DONE]", self.events[-1]
        chunks = [json.loads(event.removeprefix("data: ")) for event in self.events[:-1]]
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def streams(client: httpx2.Client) -> list[Stream]:
    return [Stream(client.base_url, preference=weights) for weights in ([1, 0, 0], [0, 1, 0], [1, 1, 1])]


def begin(several: list[Stream]) -> None:
    for stream in several:
        stream.start()
    wait_until(lambda: all(len(stream.events) > 3 for stream in several), 30)


def status(client: httpx2.Client, path: str) -> int | None:
    try:
        return client.get(path).status_code
    except httpx2.TransportError:
        return None


def when_told(process: "subprocess.Popen[str]", client: httpx2.Client) -> None:
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: status(client, "/ready") == 503)


@pytest.mark.slow
def test_what_was_admitted_is_answered_token_for_token_and_nothing_else_is() -> None:
    with serving("--adapter", str(ADAPTER), "--threads", "1") as (process, client):
        undisturbed = streams(client)
        begin(undisturbed)
        for stream in undisturbed:
            stream.join()
        several = streams(client)
        begin(several)
        engine = engine_of(process)
        when_told(process, client)
        for stream in several:
            stream.join()
        assert [stream.text for stream in several] == [stream.text for stream in undisturbed]
        assert process.wait(20) == 0
        assert gone_within(engine, 2)


@pytest.mark.slow
def test_what_takes_longer_than_the_limit_ends_with_a_clear_error() -> None:
    with serving("--model", str(BASE), "--drain-timeout-s", "0.3", command=SLOW_ENGINE) as (process, client):
        stream = Stream(client.base_url, n=16)  # in turns, on an engine that has room for eight
        begin([stream])
        answers: list[httpx2.Response] = []
        with httpx2.Client(base_url=client.base_url, timeout=60) as other:
            whole = threading.Thread(
                target=lambda: answers.append(other.post(PATH, json={**LONG, "n": 16, "stream": False}))
            )
            whole.start()
            wait_until(lambda: "panacea:num_requests_waiting" in client.get("/metrics").text)
            wait_until(lambda: waiting(client) > 16)
            process.send_signal(signal.SIGTERM)
            whole.join()
        stream.join()
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "shutting_down")
        name, data = stream.events[-2:]
        assert name == "event: error"
        assert json.loads(data.removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert process.wait(20) == 0


@pytest.mark.slow
def test_whoever_comes_late_is_told_and_probes_know() -> None:
    with serving("--model", str(BASE), command=SLOW_ENGINE) as (process, client):
        stream = Stream(client.base_url, n=16)
        begin([stream])
        when_told(process, client)
        assert client.get("/ready").json()["error"]["code"] == "shutting_down"
        assert client.get("/health").status_code == client.get("/metrics").status_code == 200
        for refused in (client.post(PATH, json={**LONG, "stream": False, "max_tokens": 1}), client.get("/v1/models")):
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert refused.headers["connection"] == "close"
            assert refused.headers["retry-after"]
        stream.join()
        assert stream.text
        assert process.wait(20) == 0


def waiting(client: httpx2.Client) -> float:
    """Requests that wait in the engine, as it said last."""
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith("panacea:num_requests_wai")]
    return float(line.split()[-1])


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once() -> None:
    with serving("--model", str(BASE), command=SLOW_ENGINE) as (process, client):
        stream = Stream(client.base_url, n=16)
        begin([stream])
        engine = engine_of(process)
        when_told(process, client)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM, "answers were cut off"
        stream.join()
        assert stream.is_cut_off
        assert gone_within(engine, 2)


@pytest.mark.slow
def test_a_server_that_nobody_uses_ends_at_once_though_clients_are_connected() -> None:
    with serving("--model", str(BASE), command=SLOW_ENGINE) as (process, client):
        assert client.get("/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.slow
def test_a_template_that_never_ends_stops_neither_others_nor_sigterm(tmp_path: Path) -> None:
    base = shutil.copytree(BASE, tmp_path / "base")
    template = (base / "chat_template.jinja").read_text("utf-8")
    loop = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    on_loop = f"{{% if messages[0].content == 'loop' %}}{loop}{{% endif %}}"
    (base / "chat_template.jinja").write_text(on_loop + template, "utf-8")
    with serving("--model", str(base)) as (process, client):
        looping = [threading.Thread(target=_ask_for_loop, args=[client.base_url]) for _ in range(2)]
        for thread in looping:
            thread.start()
        wait_until(lambda: "panacea:text_jobs_total{" in client.get("/metrics").text, 30)
        workers = children_of(process, "panacea.text.worker")
        assert client.get("/health").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for thread in looping:
            thread.join()
        assert len(workers) == 1
        assert gone_within(workers[0], 5)


def _ask_for_loop(url: httpx2.URL) -> None:
    loop = {"messages": [{"role": "user", "content": "loop"}]}
    with suppress(httpx2.TransportError), httpx2.Client(base_url=url, timeout=60) as client:
        client.post(PATH, json=loop)
