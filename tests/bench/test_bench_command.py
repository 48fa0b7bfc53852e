"""The commands around the benches, and what they need to be installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from panacea.errors import ConfigError
from panacea_commands import main as cli
from panacea_lab.bench.measurement import Budget, Samples, copy_rate, table
from panacea_lab.bench.random_model import make_network, names, read_config
from tests.command import run_panacea

# Everything that a server needs and a bench must not.
FOREIGN = ("cyclopts", "pydantic", "fastapi", "starlette", "uvicorn", "msgspec", "zmq", "jinja2", "peft", "rich")


@pytest.mark.slow
def test_benches_import_torch_triton_transformers_and_little_else() -> None:
    modules = (
        "projection_kernels", "tile_sweep", "compile_ahead", "decode", "throughput", "benchmark_suite",
        "benchmarks_page", "generic_lora", "prefix_cache_bench",
    )  # fmt: skip
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({FOREIGN!r}))\n"
        f"for name in {modules!r}: __import__('panacea_lab.bench.' + name)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_configs_that_ship_have_the_shapes_that_they_are_named_after() -> None:
    assert names() == ["llama-3.1-8b", "qwen2.5-0.5b", "tiny"]
    counts: dict[str, int] = {}
    for name in names():
        with torch.device("meta"):
            network = make_network(read_config(name), torch.device("meta"), torch.bfloat16)
        counts[name] = sum(parameter.numel() for parameter in network.parameters())
    assert counts["llama-3.1-8b"] == 8_030_261_248
    assert counts["qwen2.5-0.5b"] == 494_032_768


def test_a_config_json_of_ones_own_and_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 32}', "utf-8")
    assert read_config(str(tmp_path)).hidden_size == 32
    for content in ("[]", "{}", "not json", '{"model_type": "no such"}'):
        (tmp_path / "config.json").write_text(content, "utf-8")
        with pytest.raises(ConfigError, match=r"is not a model's config.json"):
            read_config(str(tmp_path / "config.json"))


@pytest.mark.slow
def test_each_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    for arguments, said in (
        (["kernels", "--rows", "1", "--ranks", "3", "--rounds", "1", "--device", "cpu"], "gate+up"),
        (
            ["decode", "--batches", "1", "--context", "9", "--ranks", "3", "--rounds", "1", "--no-compile"],
            "rank 3, one",
        ),
        (
            ["throughput", "--requests", "2", "--prompt", "2,9", "--answer", "2,4", "--rounds", "1"],
            "continuous batching",
        ),
        (["prefix", "--system", "40", "--rounds", "1"], "cold / warm"),
    ):
        file = tmp_path / "numbers.json"
        result = run_panacea("bench", *arguments, "--model", "tiny", "--json", str(file))
        assert result.code == 0, result.err
        assert said in result.out
        assert json.loads(file.read_text("utf-8"))["bench"] == arguments[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kernels", "--rows", "1,x"], "--rows '1,x': write whole numbers with commas between"),
        (["kernels", "--model", "missing"], "missing is not a config.json"),
        (["decode", "--model", "tiny", "--context", "511"], "context must leave room"),
        (["decode", "--json", "/no/such/folder/x.json"], "its folder does not exist"),
        (["throughput", "--prompt", "5"], "--prompt '5': write 2 numbers"),
    ],
)
def test_a_wrong_value_is_one_clear_line_and_exit_code_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["panacea", "bench", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    (line,) = capfd.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert line.startswith("panacea: error: ")
    assert message in line


def test_samples_budget_rate_and_table() -> None:
    assert Samples.of([5, 1, 3, 2, 4, 9, 6, 7, 8, 10]) == Samples(median=5.5, low=2, high=9)
    assert Samples.of([7.0]) == Samples(7, 7, 7)
    assert not Budget().spent
    assert Budget(0).spent
    assert copy_rate(torch.device("cpu"), 1 << 20) > 1e6
    assert table(["name", "us"], [["a", "1"], ["longer", "100"]]) == "name     us\na         1\nlonger  100"
