"""What is kept of an evaluation that does not come to its end."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.errors import ConfigError
from panacea.preference import Preference
from panacea.text.chat_template import ChatMessage
from panacea_train.evaluation.kept_replies import KeptReplies, KeptReply, kept_replies
from panacea_train.evaluation.sweep import GeneratedAnswer, SweepSettings, sweep
from panacea_train.prompts import Prompt
from tests.golden_files import ADAPTER, BASE

PROMPTS = [Prompt((ChatMessage("user", text),)) for text in ("Plant the bulbs", "Clean a knife")]
GRID: list[Preference] = [(1.0, 0.0, 0.0), (0.0, 0.5, 0.5)]
SETTINGS = SweepSettings((0.9, 0.0), samples=2, max_tokens=12)
ANSWERS = 2 * 2 * (2 + 1)


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    return EngineConfig(model=BASE, adapter=tmp_path / "adapter", dtype="float32")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers each sweep asks the engine for."""
    counts: list[int] = []

    generate = Engine.generate

    def listening(
        engine: Engine, requests: Sequence[Request], completed: Callable[[int, Completion], None]
    ) -> list[Completion]:
        counts.append(len(requests))
        return generate(engine, requests, completed)

    monkeypatch.setattr(Engine, "generate", listening)
    return counts


class Interrupted(KeptReplies):
    """As if somebody pressed Ctrl-C after so many answers."""

    def __init__(self, file: Path, answers: int) -> None:
        super().__init__(file)
        self._left = answers

    def keep(self, key: str, reply: KeptReply) -> None:
        super().keep(key, reply)
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


def interrupt(config: EngineConfig, file: Path, answers: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweep(config, PROMPTS, GRID, SETTINGS, Interrupted(file, answers))


def run(config: EngineConfig, file: Path | None = None, settings: SweepSettings = SETTINGS) -> list[GeneratedAnswer]:
    return sweep(config, PROMPTS, GRID, settings, KeptReplies(file))


def test_the_rest_is_asked_for_and_the_whole_is_what_it_would_have_been(
    config: EngineConfig, tmp_path: Path, asked: list[int]
) -> None:
    file = tmp_path / "kept.jsonl"
    interrupt(config, file, 5)
    interrupted = run(config, file)
    again = run(config, file)
    assert asked == [ANSWERS, ANSWERS - 5, 0]
    assert interrupted == again == run(config)
    assert len({said.text for said in again}) > ANSWERS / 2


def test_a_line_that_was_cut_off_is_asked_for_again(config: EngineConfig, tmp_path: Path, asked: list[int]) -> None:
    file = tmp_path / "kept.jsonl"
    interrupt(config, file, 5)
    file.write_bytes(file.read_bytes()[:-9])
    whole = run(config, file)
    assert len(KeptReplies(file)) == ANSWERS
    assert run(config, file) == whole == run(config)
    assert asked[:3] == [ANSWERS, ANSWERS - 4, 0]


def test_another_model_prompt_or_way_of_asking_is_asked_for(
    config: EngineConfig, tmp_path: Path, asked: list[int]
) -> None:
    file = tmp_path / "kept.jsonl"
    run(config, file)
    run(config, file, replace(SETTINGS, max_tokens=11))
    run(config, file, replace(SETTINGS, seed=100))
    run(replace(config, dtype="bfloat16"), file)
    sweep(config, PROMPTS[::-1], GRID[:1], SweepSettings((0.0,), max_tokens=12), KeptReplies(file))
    assert asked == [ANSWERS] * 4 + [2], "equal prompts in other places have other seeds"
    assert config.adapter is not None
    weights = config.adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, weights)
    run(config, file)
    assert asked[-1] == ANSWERS, "an adapter that was trained on is another one, at the same place"


def test_the_file_goes_when_the_evaluation_is_complete_and_stays_until_then(tmp_path: Path) -> None:
    file, said = tmp_path / "out-unfinished.jsonl", list[str]()

    def fail_after(replies: dict[str, KeptReply]) -> None:
        with kept_replies(file, said.append) as kept:
            for key, reply in replies.items():
                kept.keep(key, reply)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after({})
    assert not said, "nothing was answered yet"
    with pytest.raises(ZeroDivisionError):
        fail_after({"a": KeptReply([1, 2], cut_off=True)})
    assert said == [f"{file} keeps 1 answers: the same command generates only the others"]
    with kept_replies(file, said.append) as kept:
        assert kept["a"] == KeptReply([1, 2], cut_off=True)
        assert file.exists()
    assert said[1:] == [f"{file} has 1 answers of an interrupted run: they are not generated again"]
    assert not file.exists()


def test_a_file_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        KeptReplies(tmp_path)
    with pytest.raises(ConfigError, match="cannot be written: No such file or directory"):
        KeptReplies(tmp_path / "none" / "kept.jsonl").keep("a", KeptReply([], cut_off=False))
