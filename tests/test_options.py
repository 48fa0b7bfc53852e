"""Options of all commands: their flags, variables and defaults, and which source of a value wins."""

import functools
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App, Argument

from panacea_commands import bench as bench_commands
from panacea_commands import main as cli
from panacea_commands import serve as serve_command
from panacea_train.training_options import RATES
from tests.command import help_of, run_panacea

KNOWN: dict[str, dict[str, dict[str, Any]]] = json.loads(
    Path(__file__).with_name("command_options.json").read_text("utf-8")
)
"""What scripts rely on: flags, variables and defaults, extracted when the commands still spelled each one by hand.

Since then --no-deterministic was added, and `train` checks by itself that --model, --data and --out are given."""


def commands_of(app: App, name: str = "") -> dict[str, App]:
    """Each command that has options, by its words behind `panacea`."""
    found = {name: app} if name and app.default_command else {}
    for child in app:
        if not child.startswith("-"):
            found |= commands_of(app[child], f"{name} {child}".strip())
    return found


def arguments_of(name: str) -> list[Argument]:
    _, apps, _ = cli.app.parse_commands(name.split())
    with cli.app.app_stack(apps):
        return [
            argument
            for argument in apps[-1].assemble_argument_collection(parse_docstring=True)
            if not argument.children
        ]


def declared(name: str) -> dict[str, dict[str, Any]]:
    """The options of a command as it declares them, in the form of `KNOWN`."""
    options: dict[str, dict[str, Any]] = {}
    for argument in arguments_of(name):
        option: dict[str, Any] = {}
        default = argument.field_info.default
        if not (default is None or default is False or default in ((), argument.field_info.empty)):
            option["default"] = str(default) if isinstance(default, Path) else default
        if name == "serve":
            option["variable"] = f"PANACEA_{argument.name.removeprefix('--').replace('-', '_').upper()}"
        if "tuple" in str(argument.hint):
            option["repeated"] = True
        if argument.required:
            option["required"] = True
        options["/".join(argument.names)] = option
    return options


def test_no_command_came_or_went() -> None:
    assert set(commands_of(cli.app)) == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_flags_variables_and_defaults_are_what_they_were(name: str) -> None:
    assert declared(name) == KNOWN[name]


@pytest.mark.parametrize("name", KNOWN)
def test_help_names_every_option_and_explains_it(name: str) -> None:
    text = help_of(*name.split())
    for names, option in KNOWN[name].items():
        for flag in names.split("/"):
            assert flag in text
        assert option.get("variable", "") in text
    assert all(argument.parameter.help for argument in arguments_of(name))


def test_the_rates_in_the_help_are_those_of_the_runs() -> None:
    text = help_of("train")
    for place in (0, 1):
        sft, dpo = (f"{RATES[objective][place]:.0e}".replace("e-0", "e-") for objective in ("sft", "dpo"))
        assert f"Default: {dpo} for dpo, {sft} for sft" in text


# Where a value comes from.


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `panacea serve` would have been called with."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(serve_command.serve_app, "default_command", _noting(calls))
    return calls


def _noting(calls: list[dict[str, Any]]) -> Callable[..., None]:
    signature = inspect.signature(serve_command.serve)

    @functools.wraps(serve_command.serve)
    def note(**options: Any) -> None:
        bound = signature.bind(**options)
        bound.apply_defaults()
        groups = [options for name, options in bound.arguments.items() if name != "config"]
        calls.append({name: value for options in groups for name, value in vars(options).items()})

    return note


def test_a_flag_wins_over_the_environment_that_over_the_file_and_that_over_the_default(
    served: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "panacea.toml"
    file.write_text(
        'max-batch = 3\nmax_step_tokens = 99\nport = 1\nprefix_cache = false\npreset = ["f=1,0"]\n', "utf-8"
    )
    monkeypatch.setenv("PANACEA_CONFIG", str(file))
    monkeypatch.setenv("PANACEA_MAX_BATCH", "4")
    monkeypatch.setenv("PANACEA_PORT", "2")
    monkeypatch.setenv("PANACEA_LOG_LEVEL", "debug")
    assert run_panacea("serve", "--port", "3").code == 0
    (options,) = served
    assert (options["port"], options["max_batch"], options["max_step_tokens"]) == (3, 4, 99)
    assert (options["prefix_cache"], options["preset"], options["level"]) == (False, ("f=1,0",), "debug")
    assert options["host"] == "127.0.0.1"


def test_a_list_is_repeated_flags_or_words_in_a_variable(
    served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANACEA_PRESET", "brief=0,0,1 kind=1,1,0")
    run_panacea("serve")
    run_panacea("serve", "--preset", "a=1,0,0", "--preset", "b=0,1,0")
    assert [options["preset"] for options in served] == [("brief=0,0,1", "kind=1,1,0"), ("a=1,0,0", "b=0,1,0")]


def test_the_last_of_several_flags_wins(served: list[dict[str, Any]]) -> None:
    run_panacea("serve", "--port", "1", "--no-prefix-cache", "--port", "2", "--prefix-cache")
    assert (served[0]["port"], served[0]["prefix_cache"]) == (2, True)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("yes", True), ("On", True), ("0", False), ("false", False), ("no", False),
     ("off", False), ("", True)],
)  # fmt: skip
def test_switches_are_words_in_a_variable_and_an_empty_variable_is_none(
    text: str, value: bool, served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANACEA_PREFIX_CACHE", text)
    monkeypatch.setenv("PANACEA_MAX_CONTEXT", "")
    assert run_panacea("serve").code == 0
    assert served[0]["prefix_cache"] is value
    assert served[0]["max_context"] is None


@pytest.mark.parametrize(
    ("file", "environment", "arguments", "message"),
    [
        ("max_bach = 3", {}, [], "unknown option 'max_bach'; known are adapter, adapter_revision, allowed_host"),
        ("max_batch = 0", {}, [], "--max-batch is 0, but must be at least 1"),
        ('max_batch = "many"', {}, [], "max_batch from"),
        ("", {"PANACEA_MAX_BATCH": "many"}, [], "PANACEA_MAX_BATCH from the environment"),
        ("", {"PANACEA_LOG_LEVEL": "loud"}, [], "PANACEA_LOG_LEVEL"),
        ("", {}, ["--max-batc", "3"], "Did you mean --max-batch?"),
        ("", {}, ["--max-batch"], "--max-batch needs a value; panacea serve --help shows all options"),
        ("", {}, ["--port", "70000"], "--port is 70000, but must be at least 0 and at most 65535"),
        ("", {}, ["somewhere"], "unknown argument 'somewhere'; panacea serve --help shows all options"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_source(
    file: str,
    environment: dict[str, str],
    arguments: list[str],
    message: str,
    served: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "panacea.toml").write_text(file, "utf-8")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    finished = run_panacea("serve", "--config", str(tmp_path / "panacea.toml"), *arguments)
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert line.startswith("panacea: error: ")
    assert message in line
    assert not served


@pytest.mark.parametrize("arguments", [[], ["train"], ["bench"], ["convert"]])
def test_a_command_alone_that_does_nothing_shows_its_help(arguments: list[str]) -> None:
    finished = run_panacea(*arguments)
    assert (finished.code, finished.err) == (2, "")
    assert "Usage: panacea" in finished.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "x", "--out", "y"], "--data is missing; panacea train --help shows all options"),
        (["train", "chek", "data.jsonl"], "unknown argument 'chek'; panacea train --help shows all options"),
        (["eval", "compare"], "NAME=DIR is missing; panacea eval compare --help"),
        (["export", "--adapter", "x", "--out", "y", "--as", "z"], 'Choose from: "lora", "merged"'),
        (["bench", "steering", "--rounds", "0"], "--rounds is 0, but must be at least 1"),
    ],
)
def test_other_commands_complain_in_one_line_too(arguments: list[str], message: str) -> None:
    finished = run_panacea(*arguments)
    assert finished.code == 2
    assert message in finished.err
    assert len(finished.err.splitlines()) == 1


def test_benches_have_the_defaults_that_their_commands_show() -> None:
    from panacea_lab.bench.decode import DecodeBench
    from panacea_lab.bench.prefix_cache_bench import PrefixBench
    from panacea_lab.bench.projection_kernels import KernelsBench
    from panacea_lab.bench.soak.soak_bench import SoakBench
    from panacea_lab.bench.steering import SteeringBench
    from panacea_lab.bench.throughput import ThroughputBench

    for options, bench in (
        (bench_commands.SteeringOptions(), SteeringBench),
        (bench_commands.KernelsOptions(), KernelsBench),
        (bench_commands.DecodeOptions(), DecodeBench),
        (bench_commands.ThroughputOptions(), ThroughputBench),
        (bench_commands.PrefixOptions(), PrefixBench),
        (bench_commands.SoakOptions(), SoakBench),
    ):
        shown = vars(options)
        for field in fields(bench):
            if field.name in shown and field.default is not MISSING and shown[field.name] is not None:
                default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
                assert shown[field.name] == default, (bench.__name__, field.name)


def test_help_imports_no_library_of_models_or_servers() -> None:
    code = (
        "import sys\n"
        "from panacea_commands.main import run\n"
        "run(['serve', '--help']); run(['train', '--help']); run(['eval', '--help'])\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "pydantic", "fastapi", "starlette", "uvicorn", "numpy", "msgspec", "zmq", "peft"}
    assert not heavy & set(ran.stderr.split())
