"""A training run from file to adapter: the engine serves it, it resumes exactly, and nothing is lost or half there."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Phi3Config, Phi3ForCausalLM, TrainerCallback

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import ConfigError, OutputError
from panacea.model.adapter_config import AdapterConfig
from panacea.text import ChatMessage, load_model_text
from panacea_train.data import TrainingFile, read_training_file
from panacea_train.run_output import prepared_output
from panacea_train.run_settings import RunSettings
from panacea_train.step_loss import StepLoss
from panacea_train.training_run import linear_targets, train_adapter
from tests.command import PANACEA
from tests.golden_files import BASE
from tests.train.tiny import PEFT_WARNING, tiny_llama

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

WARM, BRIEF = "Oh yes!", "No."


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pairs that want one answer for one dimension and another for the other, whatever the question."""
    return write(
        tmp_path / "data.jsonl",
        *(
            {
                "prompt": f"May I {what}?",
                "a": a,
                "b": b,
                "better": {"warm": "ab"[a == BRIEF], "brief": "ba"[a == BRIEF]},
            }
            for what in ("go", "stay", "eat", "sleep", "sing")
            for a, b in ((WARM, BRIEF), (BRIEF, WARM))
        ),
    )


@pytest.fixture
def settings() -> RunSettings:
    return RunSettings(model=str(BASE), steps=6, batch_size=4, device="cpu", save_steps=2, health_steps=3, held_out=2)


def run(settings: RunSettings, data: Path, out: Path, *, resume: bool = False, **options: Any) -> list[dict[str, Any]]:
    """Trains as the command does; the log of the finished run."""
    file = read_training_file(data)
    overwrite, say = options.pop("overwrite", False), options.get("report", print)
    with prepared_output(settings, file, out, overwrite=overwrite, resume=resume, say=say) as folders:
        train_adapter(settings, file, folders, progress=False, **options)
    log: list[dict[str, Any]] = json.loads((out / "training.json").read_text("utf-8"))["log"]
    return log


def likelier(adapter: Path, preference: tuple[float, ...]) -> str:
    """Which of the two answers the served model gives to a question that it was not trained on."""
    engine = Engine.load(EngineConfig(model=BASE, adapter=adapter))
    text = load_model_text(BASE)
    prompt = text.prompt_ids([ChatMessage("user", "May I leave?")])
    (completion,) = engine.generate([Request(prompt, preference, SamplingParams(max_tokens=24, temperature=0))])
    return text.tokenizer.decode(completion.token_ids)


@pytest.mark.slow
def test_the_command_trains_an_adapter_that_the_engine_serves(tmp_path: Path, data: Path) -> None:
    options = [
        "--model",
        str(BASE),
        "--data",
        str(data),
        "--objective",
        "sft",
        "--aggregation",
        "reward",
        "--steps",
        "60",
    ]
    command = [*PANACEA, "train", *options, "--device", "cpu", "--held-out", "2", "--default", "1,3"]
    done = subprocess.run([*command, "--out", tmp_path / "mine"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "10 lines (10 pairs)" in done.stderr
    assert "60/60" in done.stderr
    assert "loss of warm at its vertex: " in done.stderr
    assert "gap between matched and mismatched preference: " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "mine"]
    assert AdapterConfig.read(tmp_path / "mine").space.as_dict((0.25, 0.75)) == {"warm": 0.25, "brief": 0.75}
    assert AdapterConfig.read(tmp_path / "mine").space.default == (0.25, 0.75)
    assert Path(AdapterConfig.read(tmp_path / "mine").base_of(tmp_path / "mine")).resolve() == BASE.resolve()
    assert likelier(tmp_path / "mine", (1.0, 0.0)) == WARM
    assert likelier(tmp_path / "mine", (0.0, 1.0)) == BRIEF


class DieAfterStep(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "dpo", "accumulation": 2, "gradient_checkpointing": True},
        {"objective": "sft", "aggregation": "tchebycheff", "ideal": (0.1, 0.2)},
    ],
    ids=["dpo", "sft"],
)
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(
    tmp_path: Path, data: Path, settings: RunSettings, changes: dict[str, Any]
) -> None:
    settings = replace(settings, **changes)
    whole = run(settings, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(settings, data, tmp_path / "resumed", callbacks=[DieAfterStep(5)])
    assert not (tmp_path / "resumed").exists()
    resumed = run(settings, data, tmp_path / "resumed", resume=True)

    assert resumed == whole
    assert [entry["loss"] for entry in whole if "loss" in entry] != []
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_checkpoint_that_was_not_written_to_its_end_is_not_used(
    tmp_path: Path, data: Path, settings: RunSettings
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(settings, data, tmp_path / "out", callbacks=[DieAfterStep(3)])
    (tmp_path / "out.training" / "checkpoints" / "checkpoint-4").mkdir()
    lines: list[str] = []
    run(settings, data, tmp_path / "out", resume=True, report=lines.append)
    assert "going on after step 2" in lines


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_by_its_own_settings_only(
    tmp_path: Path, data: Path, settings: RunSettings
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(settings, data, out, callbacks=[DieAfterStep(2)])
    with pytest.raises(ConfigError, match=r"holds an interrupted run: --resume goes on with it, --overwrite begins"):
        run(settings, data, out)
    with pytest.raises(ConfigError, match=r"the interrupted run had beta 0\.3, and not 0\.5"):
        run(replace(settings, beta=0.5), data, out, resume=True)
    write(data, *[json.loads(line) for line in data.read_text("utf-8").splitlines()[1:]])
    with pytest.raises(ConfigError, match="the training file is not the one"):
        run(settings, data, out, resume=True)
    with pytest.raises(ConfigError, match="there is no interrupted run"):
        run(settings, data, tmp_path / "other", resume=True)
    run(settings, data, out, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "out"]


@pytest.mark.slow
def test_a_folder_is_replaced_only_on_request_and_only_when_the_new_adapter_is_complete(
    tmp_path: Path, data: Path, settings: RunSettings
) -> None:
    out = tmp_path / "out"
    run(settings, data, out)
    before = (out / "adapter_model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="exists already; --overwrite replaces it"):
        run(settings, data, out)
    other = replace(settings, seed=1)
    with pytest.raises(KeyboardInterrupt):
        run(other, data, out, overwrite=True, callbacks=[DieAfterStep(4)])
    assert (out / "adapter_model.safetensors").read_bytes() == before
    run(other, data, out, resume=True)
    assert (out / "adapter_model.safetensors").read_bytes() != before
    with pytest.raises(ConfigError, match="choose one"):
        run(other, data, out, overwrite=True, resume=True)
    with pytest.raises(ConfigError, match="is not an adapter, so it is not replaced"):
        run(settings, data, tmp_path, overwrite=True)


def test_too_little_memory_is_said_with_what_helps(
    tmp_path: Path, data: Path, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")

    monkeypatch.setattr(StepLoss, "backward", full)
    with pytest.raises(
        ConfigError,
        match=r"try --accumulation 2, --gradient-checkpointing, a smaller --max-tokens \(CUDA out of memory",
    ):
        run(settings, data, tmp_path / "out")


def test_examples_that_are_too_long_are_left_out_and_counted(tmp_path: Path, data: Path, settings: RunSettings) -> None:
    long = {"prompt": "May I go?", "a": "Oh " * 200, "b": BRIEF, "better": {"warm": "a", "brief": "b"}}
    lines = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    said: list[str] = []
    run(replace(settings, max_tokens=60, held_out=0), write(data, long, *lines), tmp_path / "out", report=said.append)
    assert "examples of more than 60 tokens, left out: 1" in said
    with pytest.raises(ConfigError, match="no example is left to train on"):
        run(replace(settings, max_tokens=4), data, tmp_path / "other")


def test_a_model_that_cannot_be_loaded_is_said(tmp_path: Path, data: Path, settings: RunSettings) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty cannot be loaded"):
        run(replace(settings, model=str(tmp_path / "empty")), data, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aggregation": "reward", "objective": "dpo"}, "--aggregation reward .* needs --objective sft"),
        ({"ideal": (0.0, 0.0)}, "--ideal .* needs --aggregation tchebycheff"),
        ({"ideal": (0.0,), "aggregation": "tchebycheff"}, r"--ideal has 1 numbers for 2 dimensions \(warm, brief\)"),
        ({"default_preference": (1.0,)}, "--default has 1 numbers for 2 dimensions"),
        ({"label_temperature": 0.1, "objective": "sft"}, "--label-temperature .* needs --objective dpo"),
        ({"accumulation": 3}, "--batch-size 4 is not a multiple of --accumulation 3"),
        ({"shared_columns": 0}, "--shared-columns 0 needs --scaling"),
    ],
)
def test_settings_that_contradict_are_refused(settings: RunSettings, changes: dict[str, Any], message: str) -> None:
    settings.check(("warm", "brief"))
    with pytest.raises(ConfigError, match=message):
        replace(settings, **changes).check(("warm", "brief"))


def test_lines_without_a_dimension_teach_no_steering(settings: RunSettings, tmp_path: Path) -> None:
    file: TrainingFile = read_training_file(write(tmp_path / "data.jsonl", {"prompt": "Hello", "answer": "Hi"}))
    with pytest.raises(ConfigError, match="no line names a dimension"):
        settings.check(file.dimensions)


def test_every_linear_layer_but_head_and_routers_is_a_target() -> None:
    paper = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert linear_targets(tiny_llama()) == paper
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "pad_token_id": 0}
    phi = Phi3ForCausalLM(Phi3Config(**sizes, num_attention_heads=2, num_key_value_heads=2))  # type: ignore[arg-type]
    assert linear_targets(phi) == ("o_proj", "down_proj", "gate_up_proj", "qkv_proj")
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ConfigError, match="has no linear layers"):
        linear_targets(gpt2)


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*PANACEA, "train", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_a_file_with_errors_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    line = {"prompt": "Hello", "a": "Hi", "b": "Go", "better": {"warm": "c"}}
    data = write(tmp_path / "data.jsonl", *[line] * 12)
    for arguments in (["check", data], ["--model", "no/such-model", "--data", data, "--out", tmp_path / "out"]):
        done = command(*arguments)
        assert done.returncode == 2
        *shown, last = done.stderr.splitlines()
        assert all(text.startswith(f"line {n}: better.warm: input should be") for n, text in enumerate(shown, 1))
        assert len(shown) == 10
        assert last.endswith(
            "data.jsonl has 12 problems (the first 10 are shown); correct the file. No model is loaded"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_check_prints_the_counts(data: Path) -> None:
    done = command("check", data)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{data}: 10 lines (10 pairs)\n")
    assert [line.split() for line in done.stdout.splitlines()[2:4]] == [
        ["warm", "10", "10", "0", "10"],
        ["brief", "10", "10", "0", "10"],
    ]


def test_what_is_missing_is_said(data: Path) -> None:
    done = command("--data", data, "--out", "x")
    assert (done.returncode, done.stderr) == (
        2,
        "panacea: error: --model is missing; panacea train --help shows all options\n",
    )


def test_a_run_whose_place_a_stranger_fills_is_kept_and_finished_later(
    tmp_path: Path, data: Path, settings: RunSettings
) -> None:
    """Also a run that is too short for a checkpoint of its own."""
    out = tmp_path / "out"
    settings = replace(settings, steps=1, save_steps=100)

    class Fill(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            out.mkdir()
            (out / "thesis.tex").write_text("a stranger's", "utf-8")

    with pytest.raises(OutputError, match=r"out\.training keeps the run: --resume finishes it"):
        run(settings, data, out, callbacks=[Fill()])
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    out.rename(tmp_path / "moved")
    run(settings, data, out, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "moved", "out"]


def test_a_run_that_failed_before_its_first_checkpoint_leaves_nothing(
    tmp_path: Path, data: Path, settings: RunSettings
) -> None:
    with pytest.raises(ConfigError, match="the model has no such module; it has q_proj"):
        run(replace(settings, targets=("q_proy",)), data, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_a_finished_run_that_was_killed_before_it_cleaned_up_is_resumed(
    tmp_path: Path, data: Path, settings: RunSettings
) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept"

    class Keep(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            shutil.copytree(tmp_path / "out.training", kept)

    first = run(replace(settings, steps=2), data, out, callbacks=[Keep()])
    kept.rename(tmp_path / "out.training")
    assert run(replace(settings, steps=2), data, out, resume=True) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "out"]
