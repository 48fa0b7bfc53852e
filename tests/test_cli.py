"""The command as a user runs it: real processes, real sockets."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from panacea_commands import main as cli
from tests.command import PANACEA, help_of, run_panacea, serving
from tests.engine.test_process import alive, gone_within
from tests.fake_hub import fake_hub
from tests.golden_files import ADAPTER, BASE, golden

QUESTION = "How do I sharpen a knife?"


def chat(client: httpx2.Client, **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 24, **fields}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def engines_of(process: "subprocess.Popen[Any]") -> list[int]:
    """The engine's processes. A server has another child, for the text workers."""
    text = children_of(process, "panacea.text.worker")
    return [child for child in children_of(process) if child not in text]


def children_of(process: "subprocess.Popen[Any]", module: str = "") -> list[int]:
    """A process' children that run this module."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
    return [int(child) for child in children if module in Path(f"/proc/{child}/cmdline").read_text("utf-8")]


def engine_of(process: "subprocess.Popen[str]") -> int:
    (engine,) = engines_of(process)
    return engine


@pytest.mark.slow
def test_a_preference_over_http_gives_the_golden_answer_and_sigterm_ends_all(tmp_path: Path) -> None:
    (tmp_path / "panacea.toml").write_text('preset = ["file=1,0,0"]\nmax_batch = 3\nmax_context = 100\n', "utf-8")
    expected = json.loads((BASE.parent / "expected.json").read_text("utf-8"))["panacea"]
    with serving(
        "--adapter", str(ADAPTER), "--config", str(tmp_path / "panacea.toml"), "--max-context", "200",
        environment={"PANACEA_MAX_CONTEXT": "150", "PANACEA_SERVED_MODEL_NAME": "from-environment"},
    ) as (process, client):  # fmt: skip
        assert client.get("/ready").status_code == 200
        for entry in expected:
            answer = chat(client, preference=entry["preference"])
            text = next(output["greedy_text"] for output in entry["outputs"] if output["prompt"] == QUESTION)
            assert answer["choices"][0]["message"]["content"] == text
        # The file's preset is there; the environment's name; and of three context lengths the flag's.
        models = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert models == ["from-environment", "from-environment:base", "from-environment:file"]
        assert chat(client, model="from-environment:file")["preference"] == {"helpful": 1, "harmless": 0, "concise": 0}
        refused = client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 195}
        )
        assert refused.status_code == 400
        assert "200" in refused.json()["error"]["message"]
        engine = engine_of(process)
        assert alive(engine)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert gone_within(engine, 2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_orphan_is_left_however_the_server_ends(number: signal.Signals) -> None:
    with serving("--adapter", str(ADAPTER)) as (process, client):
        engine = engine_of(process)
        with client.stream(
            "POST",
            "/v1/chat/completions",
            json={
                "messages": [{"role": "user", "content": QUESTION}],
                "stream": True,
                "ignore_eos": True,
                "max_tokens": 450,
            },
        ) as response:
            next(response.iter_lines())
            os.killpg(process.pid, number)  # what Ctrl-C in a terminal does with SIGINT: the whole group gets it
            assert gone_within(process.pid, 5) or number == signal.SIGKILL
            assert gone_within(engine, 2)


@pytest.mark.slow
def test_a_bare_base_model_is_served_without_preferences() -> None:
    with serving("--model", str(BASE)) as (_, client):
        assert chat(client)["preference"] is None
        refused = client.post(
            "/v1/chat/completions",
            json={"messages": [{"role": "user", "content": QUESTION}], "preference": {"helpful": 1}},
        )
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "preference"
        base = next(entry for entry in golden("base") if len(entry.prompt_ids) == 10)
        assert chat(client)["usage"]["completion_tokens"] == len(base.greedy_ids)


@pytest.mark.slow
def test_hub_ids_are_downloaded_with_a_progress_bar_and_served(tmp_path: Path) -> None:
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    config = json.loads((ADAPTER / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = "somebody/base"
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config), "utf-8")
    with fake_hub({"somebody/adapter": tmp_path / "adapter", "somebody/base": BASE}) as endpoint:
        environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        log: list[str] = []
        with serving("--adapter", "somebody/adapter", environment=environment, log=log) as (_, client):
            assert chat(client, preference=[1, 0, 0])["preference"] == {"helpful": 1, "harmless": 0, "concise": 0}
        assert "100%" in "".join(log)
        wrong = subprocess.run(
            [*PANACEA, "serve", "--adapter", "somebody/else"],
            capture_output=True, text=True, check=False, env={**os.environ, **environment},
        )  # fmt: skip
        assert wrong.returncode == 2
        assert "the hub has no such repository" in wrong.stderr.splitlines()[-1]


def loading() -> tuple["subprocess.Popen[bytes]", int]:
    """A server that has just started its engine, and that engine's process."""
    process = subprocess.Popen(
        [*PANACEA, "serve", "--adapter", str(ADAPTER), "--port", "0"], stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 20
    while not engines_of(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    (engine,) = engines_of(process)
    time.sleep(0.2)
    return process, engine


def test_ctrl_c_while_the_model_loads_leaves_nothing() -> None:
    process, engine = loading()
    os.killpg(process.pid, signal.SIGINT)
    _, output = process.communicate(timeout=10)
    assert b"Traceback" not in output
    assert process.returncode in (0, 130)
    assert gone_within(engine, 2)


@pytest.mark.slow
def test_an_engine_that_dies_while_it_loads_ends_the_server_with_a_clear_line() -> None:
    process, engine = loading()
    os.kill(engine, signal.SIGKILL)
    _, output = process.communicate(timeout=10)
    assert process.returncode == 1
    assert output.decode().splitlines()[-1].startswith("panacea: error: the engine's process was ended by SIGKILL")
    assert b"Traceback" not in output


@pytest.mark.slow
def test_sigterm_while_another_engine_loads_ends_both_in_good_order(tmp_path: Path) -> None:
    with serving("--adapter", str(ADAPTER), environment={"TMPDIR": str(tmp_path)}) as (process, client):
        first = engine_of(process)
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while engines_of(process) in ([], [first]) and time.monotonic() < deadline:
            time.sleep(0.02)
        second = engine_of(process)
        assert client.get("/ready").status_code == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert gone_within(second, 2)
        assert not list(tmp_path.glob("panacea-*"))


@pytest.mark.slow
def test_an_engine_that_is_killed_is_started_again_and_answers_as_before() -> None:
    with serving("--adapter", str(ADAPTER)) as (process, client):
        before = chat(client)["choices"]
        engine = engine_of(process)
        os.kill(engine, signal.SIGKILL)
        deadline = time.monotonic() + 2
        while (ready := client.get("/ready")).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ready.status_code == 503
        assert client.get("/health").status_code == 200
        deadline = time.monotonic() + 60
        while client.get("/ready").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert chat(client)["choices"] == before
        assert engine_of(process) != engine


WRONG = {
    "port": (["serve", "--port", "x"], "--port"),
    "port_range": (["serve", "--port", "70000"], "--port"),
    "dtype": (["serve", "--dtype", "int8"], "--dtype"),
    "unknown_option": (["serve", "--nope"], "--nope"),
    "unknown_command": (["srve"], "srve"),
    "model": (["serve", "--model", "/no/such/folder"], "neither a folder nor a hub id"),
    "model_no_folder": (["serve", "--model", "pyproject.toml"], "is a file: give the model's folder"),
    "hub_unreachable": (["serve", "--model", "nobody/nothing"], "the hub cannot be reached"),
    "adapter_no_adapter": (["serve", "--adapter", str(BASE)], "is not an adapter folder"),
    "base_no_model": (["serve", "--model", str(ADAPTER)], ""),
    "preset": (["serve", "--adapter", str(ADAPTER), "--preset", "x=1"], "1 weights instead of 3"),
    "preset_without_adapter": (["serve", "--model", str(BASE), "--preset", "x=1"], "needs an adapter"),
    "keys": (["serve", "--adapter", str(ADAPTER), "--api-key-file", "/no/such/file"], "--api-key-file"),
    "config": (["serve", "--config", "/no/such/file"], "--config"),
    "batch": (["serve", "--max-batch", "0"], "--max-batch"),
    "step": (
        ["serve", "--max-batch", "9", "--max-step-tokens", "8"],
        "--max-step-tokens is 8, but must be at least",
    ),
    "cache": (["serve", "--kv-cache-gib", "inf"], "--kv-cache-gib is inf, but must be a finite number"),
    "share": (["serve", "--gpu-memory-share", "nan"], "--gpu-memory-share"),
    "log_level": (["serve", "--log-level", "loud"], "--log-level"),
    "cors": (["serve", "--adapter", str(ADAPTER), "--cors-origin", "app.example"], "--cors-origin app.example: write"),
    "watchdog": (["serve", "--watchdog-s", "0.5"], "--watchdog-s"),
    "step_limit": (["serve", "--step-limit-s", "inf"], "--step-limit-s is inf, but must be a finite number"),
    "timeout": (["serve", "--drain-timeout-s", "nan"], "--drain-timeout-s is nan, but must be a finite number"),
    "queue": (["serve", "--queue-timeout-s", "0"], "--queue-timeout-s is 0.0, but must be above 0"),
    "body": (["serve", "--max-body-mib", "inf"], "--max-body-mib is inf, but must be a finite number"),
    "host": (["serve", "--adapter", str(ADAPTER), "--host", "no such host"], "cannot listen on"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_one_clear_line_and_exit_code_2(
    case: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, message = WRONG[case]
    monkeypatch.setattr(sys, "argv", ["panacea", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    lines = capfd.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("panacea: error: ")
    assert message in lines[0]


def test_a_port_in_use_shows_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # as a server does that still loads its model
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["panacea", "serve", "--adapter", str(ADAPTER), "--port", str(port)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert caught.value.code == 2
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in capfd.readouterr().err


@pytest.mark.slow
def test_a_damaged_adapter_is_one_clear_line_too(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes((ADAPTER / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not safetensors at all")
    result = subprocess.run(
        [*PANACEA, "serve", "--adapter", str(tmp_path), "--model", str(BASE), "--port", "0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "adapter_model.safetensors is damaged" in result.stderr.splitlines()[-1]


def test_help_teaches_and_version_prints() -> None:
    assert "panacea serve" in help_of()
    text = help_of("serve")
    for option in ("--adapter", "--preset", "--api-key-file", "PANACEA_MAX_BATCH", "flag wins over the environment"):
        assert option in text
    assert re.fullmatch(r"panacea \d+\.\d+\.\d+\n", run_panacea("--version").out)


def test_bench_steering_prints_a_table_and_json_in_the_last_line() -> None:
    result = run_panacea(
        "bench", "steering", "--adapter", str(ADAPTER), "--requests", "4", "--tokens", "5", "--rounds", "1"
    )
    assert result.code == 0, result.err
    numbers = json.loads(result.out.splitlines()[-1])
    assert numbers["most_preferences_in_one_step"] == numbers["different_preferences"] == 4
    for name in ("engine_mixed_tps", "sequential_merged_tps", "engine_single_tps"):
        assert numbers[name] > 0
        assert f"{numbers[name]:.0f}" in result.out
