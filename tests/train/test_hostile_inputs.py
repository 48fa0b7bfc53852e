"""Pipes, sockets, devices, endless names and absurd numbers: each command says one line and leaves nothing behind."""

import json
import math
import os
import resource
import shutil
import signal
import socket
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest
import torch

from panacea_train.step_loss import LossParts, StepLoss
from tests.command import Finished, run_panacea
from tests.golden_files import ADAPTER, BASE
from tests.train.tiny import PEFT_WARNING

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

LONG = "n" * 100_000
NAMES = ("helpful", "harmless", "concise")
RULES = [word for name in NAMES for word in ("--reward", f"{name}=rule:concise:4")]


def pair(**better: str) -> str:
    return json.dumps({"prompt": "May I go?", "a": "Oh yes!", "b": "No.", "better": better}) + "\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hostile inputs."""
    folder = tmp_path_factory.mktemp("hostile")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        before = Path.cwd()
        os.chdir(folder)  # a socket's name is at most 108 bytes
        bound.bind("socket")
        os.chdir(before)
    (folder / "pairs.jsonl").write_text(pair(warm="a", brief="b") * 4, "utf-8")
    (folder / "prompts.jsonl").write_text('{"prompt": "Hi"}\n', "utf-8")
    (folder / "many.jsonl").write_text(pair(**{f"d{index}": "a" for index in range(100_000)}), "utf-8")
    (folder / "long.jsonl").write_text(pair(**{LONG: "a"}), "utf-8")
    (folder / "deep.jsonl").write_text('{"prompt": ' + "[" * 100_000, "utf-8")
    for name in ("template", "piped"):
        shutil.copytree(BASE, folder / name)
    (folder / "template" / "chat_template.jinja").write_text("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "utf-8")
    (folder / "piped" / "config.json").unlink()
    os.mkfifo(folder / "piped" / "config.json")
    return folder


def commands(name: str) -> dict[str, list[str]]:
    """Every way to name an input; `name` is it."""
    train = ["train", "--steps", "1", "--device", "cpu", "--out", "out"]
    evaluate = ["eval", "--out", "out", "--max-tokens", "1", "--prompts"]
    return {
        "train --data": [*train, "--model", str(BASE), "--data", name],
        "train --model": [*train, "--data", "pairs.jsonl", "--model", name],
        "train check": ["train", "check", name],
        "eval --prompts": [*evaluate, name, "--adapter", str(ADAPTER), *RULES],
        "eval --preferences": [*evaluate, "prompts.jsonl", "--adapter", str(ADAPTER), *RULES, "--preferences", name],
        "eval --adapter": [*evaluate, "prompts.jsonl", *RULES, "--adapter", name],
        "eval --reward": [*evaluate, "prompts.jsonl", "--adapter", str(ADAPTER), *RULES[2:], "--reward",
                          f"helpful=python:{name}:f"],
        "eval compare": ["eval", "compare", f"a={name}", f"b={name}", "--out", "out"],
        "convert soup": ["convert", "soup", "--adapter", f"a={name}", "--adapter", f"b={name}", "--out", "out"],
        "convert third-party": ["convert", "third-party", name, "--dimension", "a", "--out", "out"],
        "export --adapter": ["export", "--as", "lora", "--out", "out", "--adapter", name],
        "export --model": ["export", "--as", "lora", "--out", "out", "--adapter", str(ADAPTER), "--model", name],
        "inspect": ["inspect", name],
    }  # fmt: skip


def one_line(done: Finished, code: int | None = None) -> str:
    """The line of an error; nothing else is said that could not be read on a screen."""
    assert done.code == code if code is not None else done.code in (1, 2), done
    lines = [line for line in done.err.splitlines() if "panacea: error: " in line]
    assert len(lines) == 1, done.err[:2000]
    assert "Traceback" not in done.err
    assert len(done.err) < 4000
    return lines[0]


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The folder as the current one. Whatever hangs is ended."""
    monkeypatch.chdir(place)
    before = {path.name for path in place.iterdir()}
    stuck = threading.Timer(60, os.kill, (os.getpid(), signal.SIGINT))
    stuck.start()
    yield place
    stuck.cancel()
    assert {path.name for path in place.iterdir()} - {"__pycache__"} == before


@pytest.mark.parametrize("command", list(commands("")))
def test_an_input_that_is_no_file_or_folder_is_one_line(here: Path, command: str) -> None:
    for name in ("pipe", "socket", "/dev/null", "/dev/zero", "missing", "pairs.jsonl/inside", LONG, "n/" * 5000):
        if command == "train check" and name == "/dev/null":
            one_line(run_panacea("train", "check", name), 2)
        else:
            one_line(run_panacea(*commands(name)[command]))


@pytest.mark.parametrize(
    ("command", "name", "words"),
    [
        ("train --data", "many.jsonl", "names 100,000 dimensions, and an adapter has at most 256: choose fewer"),
        ("train check", "many.jsonl", "names 100,000 dimensions, and an adapter has at most 256: choose fewer"),
        ("train check", "long.jsonl", "long.jsonl has 1 problem; correct the file"),
        ("train check", "deep.jsonl", "deep.jsonl has 1 problem; correct the file"),
        ("eval --prompts", "deep.jsonl", "line 1: is JSON that cannot be read"),
        ("train --model", "template", "the chat template does not compile"),
        ("train --model", "piped", "piped holds config.json, which is not a regular file: remove it"),
        ("inspect", "piped", "piped holds config.json, which is not a regular file: remove it"),
    ],
)
def test_what_a_file_holds_is_one_line(here: Path, command: str, name: str, words: str) -> None:
    assert words in one_line(run_panacea(*commands(name)[command]), 2)


HUGE = str(10**30)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dimension", LONG], "is not a name: use up to 64 letters"),
        (["--target", LONG], "the model has no such module; it has q_proj"),
        (["--default", ",".join(["1"] * 100_000)], "--default has 100000 numbers for 2 dimensions"),
        (["--columns-per-dimension", HUGE], "--columns-per-dimension is"),
        (["--shared-columns", HUGE], "--shared-columns is"),
        (["--seed", HUGE], "--seed is"),
        (["--steps", HUGE], "--steps is"),
        (["--epochs", "1e300"], "--epochs is"),
        (["--learning-rate", "1e300"], "--learning-rate is"),
        (["--beta", "inf"], "--beta is"),
        (["--dimension", "warm"] * 10_000, "20,0"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_options_of_a_run_without_bounds_are_one_line(here: Path, options: list[str], words: str) -> None:
    assert words in one_line(run_panacea(*commands("pairs.jsonl")["train --data"], *options), 2)
    shutil.rmtree("out.training", ignore_errors=True)


def test_numbers_that_are_not_finite_are_one_line_and_no_checkpoint(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a checkpoint is due before a line of the log."""
    nothing = LossParts(torch.tensor(math.nan))
    monkeypatch.setattr(StepLoss, "backward", lambda *_: nothing)
    options = ["--steps", "80", "--save-steps", "1", "--health-steps", "80"]
    done = run_panacea(*commands("pairs.jsonl")["train --data"], *options)
    assert "loss is nan at step 1: divide both learning rates by 3 to 10" in one_line(done, 2)


@pytest.mark.parametrize("size_bytes", [100, 5000, 40_000])
def test_a_disk_that_is_full_is_one_line_and_no_half_of_a_result(here: Path, size_bytes: int) -> None:
    """A limit of a file's size stands for the disk's: it strikes in the same calls of the operating system."""
    train = [*commands("pairs.jsonl")["train --data"], "--save-steps", "1"]
    export = commands(str(ADAPTER))["export --adapter"]
    for arguments in (
        train,
        export,
        [*export[:1], "--as", "merged", *export[3:]],
        ["inspect", str(ADAPTER), "--json", "out"],
    ):
        done = limited(arguments, size_bytes)
        if done.code:
            assert "cannot be written" in one_line(done, 1)
            assert not Path("out").exists()
        elif Path("out").is_dir():
            shutil.rmtree("out")
        else:
            assert json.loads(Path("out").read_text("utf-8"))
            Path("out").unlink()
        shutil.rmtree("out.training", ignore_errors=True)


def limited(arguments: Sequence[str], size_bytes: int) -> Finished:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limit[1]))
    try:
        return run_panacea(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_ctrl_c_is_one_line_and_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("panacea_train.convert.adapter_export.write_lora", pressed)
    assert one_line(run_panacea(*commands(str(ADAPTER))["export --adapter"]), 130) == "panacea: error: interrupted"
