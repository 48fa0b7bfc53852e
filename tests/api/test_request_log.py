"""A line for every request, with its id, and never a prompt, an answer or a key."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from panacea.errors import EngineError, RequestError
from tests.api.chatting import CHAT, COMPLETIONS, body
from tests.api.fake_engine import FakeEngine
from tests.api.serving import NAME, TEXT, Served, serving, wait_until
from tests.command import PANACEA
from tests.command import serving as serving_command
from tests.golden_files import ADAPTER, BASE
from tests.log_lines import log_lines, requests

CANARY = "Canary7"
KEY = f"sk-{CANARY}"
AUTHORIZATION = {"authorization": f"Bearer {KEY}"}


@pytest.fixture
def keyed(engine: FakeEngine) -> Generator[Served]:
    async def make_engine() -> FakeEngine:
        return engine

    with serving(make_engine, api_keys=(KEY,)) as served:
        yield served


@pytest.fixture
def keyed_client(keyed: Served) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=keyed.url, timeout=30, headers=AUTHORIZATION) as client:
        yield client


def test_a_request_is_a_line(own_client: httpx2.Client) -> None:
    with log_lines() as lines:
        own_client.post(CHAT, json=body(n=2, max_tokens=5, ignore_eos=True), headers={"x-request-id": "mine"})
        own_client.post(COMPLETIONS, json=body(COMPLETIONS, max_tokens=3, stream=True, ignore_eos=True))
        own_client.get(f"/v1/models/{NAME}")
        own_client.get("/nothing")
        wait_until(lambda: len(requests(lines)) == 4)
    chat, completion, model, nothing = requests(lines)
    prompt_tokens = own_client.post(CHAT, json=body(n=2, max_tokens=5)).json()["usage"]["prompt_tokens"]
    assert (chat["method"], chat["route"], chat["status"], chat["request_id"]) == ("POST", CHAT, 200, "mine")
    assert (chat["prompt_tokens"], chat["completion_tokens"]) == (prompt_tokens, 10)
    assert chat["finished"] == {"length": 2}
    assert (completion["status"], completion["completion_tokens"]) == (200, 3)
    assert completion["request_id"] not in ("", "mine")
    assert 0 < chat["duration_s"] < 10
    assert {"prompt_tokens", "completion_tokens", "finished", "complete", "path"}.isdisjoint(model)
    assert model["route"] == "/v1/models/{model}"
    assert (nothing["path"], nothing["status"]) == ("/nothing", 404)


def test_its_tokens_are_those_of_its_usage(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.script = TEXT.encode(["Scoop out the water."])[0]
    wanted: list[dict[str, Any]] = [
        {"prompt": ["Why?", "How come?"], "n": 2, "max_tokens": 2},
        {"prompt": "Why?", "echo": True, "logprobs": 1, "max_tokens": 0},
        {"prompt": "Why?", "stop": "the wa", "max_tokens": 100},
        {"prompt": "Why?", "max_tokens": 100},
    ]
    with log_lines() as lines:
        usages = [own_client.post(COMPLETIONS, json=body(COMPLETIONS, **fields)).json()["usage"] for fields in wanted]
        wait_until(lambda: len(requests(lines)) == len(wanted))
    for line, usage in zip(requests(lines), usages, strict=True):
        assert (line["prompt_tokens"], line["completion_tokens"]) == (
            usage["prompt_tokens"],
            usage["completion_tokens"],
        )
    assert [line["finished"] for line in requests(lines)] == [{"length": 4}, {"length": 1}, {"stop": 1}, {"stop": 1}]


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/metrics", "/page/main.js"])
def test_probes_and_files_are_details(own_client: httpx2.Client, path: str) -> None:
    with log_lines() as lines:
        own_client.get(path)
        wait_until(lambda: any('"message": "request"' in line for line in lines))
    assert not requests(lines)


def test_a_client_that_left_is_no_success(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.step_s = 0.05
    fields: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True}
    with log_lines() as lines:
        with own_client.stream("POST", CHAT, json=body(stream=True, **fields)) as response:
            next(response.iter_lines())
        with pytest.raises(httpx2.ReadTimeout):
            own_client.post(CHAT, json=body(**fields), timeout=0.3)
        wait_until(lambda: len(requests(lines)) == 2)
    streamed, whole = requests(lines)
    assert (streamed["status"], streamed["complete"]) == (200, False)
    assert (whole["status"], whole["complete"]) == (499, False)
    assert 0 < streamed["completion_tokens"] < 400
    assert streamed["finished"] == whole["finished"] == {"abort": 1}


HOSTILE = "/v1/x%0a12:00:00%20info%20forged%20status=200%1b[31m%22%2c%22level%22:%22error%e2%80%a8%c2%85"


@pytest.mark.parametrize("kind", ["text", "json"])
def test_nothing_of_a_client_writes_a_line_or_a_field_of_its_own(own_server: Served, kind: Any) -> None:
    head = " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: mine\tlevel=error\r\n\r\n"
    with log_lines(kind) as lines:
        for method in ("GET", "status=200"):
            with socket.create_connection(("127.0.0.1", own_server.port), timeout=5) as connection:
                connection.sendall(f"{method} {HOSTILE}?api_key={CANARY}{head}".encode())
                while connection.recv(1000):
                    pass
        wait_until(lambda: any("404" in line for line in lines))
    lines = [line for line in lines if "404" in line]
    for line in lines:
        assert line.isprintable()
        assert line.isascii()
        assert CANARY not in line
        assert "mine" not in line
        if kind == "json":
            fields = json.loads(line)
            assert (fields["level"], fields["status"]) == ("info", 404)
            assert fields["path"].startswith("/v1/x\\x0a12:00:00 info forged status=200")
        else:
            assert len(re.findall(r"(?<= )\w+=", re.sub(r'"[^"]*"', "", line.replace('\\"', "")))) == 5


FAILURES = [RequestError(f"about {CANARY}"), EngineError(CANARY), ValueError(CANARY), UnicodeError(CANARY)]
BODIES: list[dict[str, Any]] = [
    {},
    {"stream": True},
    {"n": 3, "logprobs": True, "top_logprobs": 2},
    {"preference": {CANARY: 1}},
    {"preference": [1, 2]},
    {"model": CANARY},
    {CANARY: 1},
    {"stop": [CANARY], "user": CANARY},
    {"temperature": CANARY},
    {"messages": CANARY},
    {"messages": [{"role": CANARY, "content": CANARY}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": CANARY}]}]},
    {"messages": [{"role": "user", "content": CANARY + "\ud800"}]},
    {"messages": [{"role": "assistant", "content": CANARY}] * 3},
    {"max_tokens": 10**9},
    {"tools": [{"type": "function", "function": {"name": CANARY}}]},
]


@pytest.mark.parametrize("kind", ["text", "json"])
def test_no_line_holds_a_prompt_an_answer_or_a_key(
    keyed: Served, keyed_client: httpx2.Client, engine: FakeEngine, kind: Any
) -> None:
    engine.script = TEXT.encode([f"The answer is {CANARY}."])[0]
    messages = [{"role": "user", "content": f"My password is {CANARY}."}]
    statuses: list[int] = []

    def post(path: str, content: dict[str, Any], **options: Any) -> None:
        text = json.dumps(content)
        headers = {"content-type": "application/json"} | options.pop("headers", {})
        statuses.append(keyed_client.post(path, content=text, headers=headers, **options).status_code)

    with log_lines(kind) as lines:
        for fields in BODIES:
            post(CHAT, body(messages=messages) | fields)
            post(COMPLETIONS, body(COMPLETIONS, prompt=CANARY) | {k: v for k, v in fields.items() if k != "messages"})
        for failure in FAILURES:
            for failure_at in (0, 2):
                engine.failure, engine.failure_at = failure, failure_at
                for stream in (False, True):
                    post(CHAT, body(messages=messages, stream=stream))
        engine.failure = None
        for authorization in (f"Bearer {CANARY}", f"Basic {CANARY}", CANARY, f"Bearer {KEY}{CANARY}"):
            post(CHAT, body(messages=messages), headers={"authorization": authorization})
        post(CHAT, body(messages=messages), headers={"host": CANARY})
        post(CHAT, body(messages=messages), headers={"content-type": CANARY})
        post(CHAT, body(messages=messages), headers={"content-type": "application/json", "cookie": CANARY})
        post(CHAT, body(messages=messages, max_tokens=1), params={"api_key": CANARY})
        for content in (f'{{"messages": "{CANARY}"', f'"{CANARY}"', "\0" + CANARY, CANARY * 10**6):
            statuses.append(
                keyed_client.post(CHAT, content=content, headers={"content-type": "application/json"}).status_code
            )
        for raw in (f"{CANARY}\r\n\r\n", f"GET / HTTP/1.1\r\nHost: localhost\r\n{CANARY}\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", keyed.port), timeout=5) as connection:
                connection.sendall(raw.encode())
                connection.recv(100)
        wait_until(lambda: sum("status" in line for line in lines) >= len(statuses))
    assert {200, 400, 401, 404, 413, 415, 421, 500, 503} <= set(statuses)
    assert not [line for line in lines if CANARY in line]


@pytest.mark.slow
def test_a_process_of_the_command_writes_json_alone_and_no_secret() -> None:
    arguments = ("--adapter", str(ADAPTER), "--log-format", "json", "--log-level", "debug")
    log: list[str] = []
    with serving_command(*arguments, log=log) as (process, client):
        answer = client.post(CHAT, json=body(messages=[{"role": "user", "content": CANARY}], max_tokens=3))
        assert answer.status_code == 200
        assert client.post(CHAT, json=body(messages=CANARY)).status_code == 400
        assert client.get("/health").status_code == 200
        process.terminate()
        assert process.stderr is not None
        log += process.stderr
    lines = [json.loads(line) for line in log]
    assert not [line for line in log if CANARY in line]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in lines))
    messages = [line["message"] for line in lines]
    assert "the model is loaded" in messages
    assert any(message.startswith("Panacea serves") for message in messages)
    served = {(line["route"], line["status"], line["level"]) for line in lines if line["message"] == "request"}
    assert served == {(CHAT, 200, "info"), (CHAT, 400, "info"), ("/health", 200, "debug")}


@pytest.mark.slow
def test_what_ends_the_command_is_json_too(tmp_path: Path) -> None:
    """Before anything is loaded, and while the engine loads."""
    broken = tmp_path / "adapter"
    shutil.copytree(ADAPTER, broken)
    (broken / "adapter_model.safetensors").write_bytes(b"not safetensors at all")
    for arguments in (["--model", "/no/such/folder"], ["--adapter", str(broken), "--model", str(BASE)]):
        ended = subprocess.run(
            [*PANACEA, "serve", "--port", "0", "--log-format", "json", *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 2
        lines = [json.loads(line) for line in ended.stderr.splitlines()]
        assert lines[-1]["level"] == "critical"
        assert "/no/such/folder" in lines[-1]["message"] or "is damaged" in lines[-1]["message"]
