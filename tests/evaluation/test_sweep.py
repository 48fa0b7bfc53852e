"""The sweep through the engine, against golden answers that independent code computed with merged weights."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.errors import CheckpointError, ConfigError, RequestFailedError
from panacea.preference import Preference
from panacea.text.chat_template import ChatMessage
from panacea_train.evaluation.sweep import GeneratedAnswer, SweepSettings, sweep
from panacea_train.prompts import Prompt
from tests.golden_files import ADAPTER, BASE, GOLDEN

CONFIG = EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32")
END = 1
"""The golden base's token that ends an answer; the golden files have it among an answer's."""
GRID: list[Preference] = [(1.0, 0.0, 0.0), (0.2, 0.5, 0.3), (0.0, 0.0, 1.0)]


def asked(*texts: str) -> list[Prompt]:
    return [Prompt((ChatMessage("user", text),), {}, line) for line, text in enumerate(texts, 1)]


def texts(said: Sequence[GeneratedAnswer], **chosen: Any) -> list[str]:
    return [answer.text for answer in said if all(getattr(answer, name) == value for name, value in chosen.items())]


def test_greedy_answers_are_those_of_merged_weights() -> None:
    entries = json.loads((GOLDEN / "expected.json").read_text("utf-8"))["panacea"]
    questions = [output["prompt"] for output in entries[0]["outputs"]]
    points = [tuple(float(w) for w in entry["preference"]) for entry in entries]
    said = sweep(CONFIG, asked(*questions), points, SweepSettings((0.0,), samples=3, max_tokens=24))
    assert [(answer.point, answer.prompt, answer.sample) for answer in said] == [
        (point, prompt, 0) for point in range(6) for prompt in range(3)
    ]
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    ended = 0
    for answer in said:
        output = entries[answer.point]["outputs"][answer.prompt]
        assert output["prompt"] == questions[answer.prompt]
        ids: list[int] = output["greedy_ids"]
        assert answer.cut_off == (ids[-1] != END)
        ids = ids[: len(ids) - (ids[-1] == END)]
        assert answer.tokens == len(ids)
        assert answer.text == tokenizer.decode(ids, skip_special_tokens=True)
        ended += not answer.cut_off
    assert 0 < ended < len(said)


def test_noise_is_shared_by_points_and_by_nothing_else() -> None:
    settings = SweepSettings((0.9, 0.0), samples=3, max_tokens=12, seed=5)
    twice = sweep(CONFIG, asked("Plant the bulbs", "Plant the bulbs"), [GRID[0], GRID[1]], settings)
    assert len(twice) == 2 * 2 * 3 + 2 * 2
    sampled = [texts(twice, temperature=0.9, point=point, prompt=prompt) for point in (0, 1) for prompt in (0, 1)]
    for own in sampled:
        assert len(set(own)) == 3, "samples differ"
    assert set(sampled[0]).isdisjoint(sampled[1]), "so do equal prompts, each of which has noise of its own"
    # A point alone, and among others, gives the same: it brings no noise of its own, and hears nothing of neighbours.
    alone = sweep(CONFIG, asked("Plant the bulbs"), [GRID[1]], SweepSettings((0.9,), samples=3, max_tokens=12, seed=5))
    assert [answer.text for answer in alone] == sampled[2]
    # The same weights twice: the same noise gives the same answers.
    same = sweep(CONFIG, asked("Plant the bulbs"), [GRID[0], (1.0, 0.0, 0.0)], settings)
    assert texts(same, point=0) == texts(same, point=1)
    other_seed = sweep(CONFIG, asked("Plant the bulbs"), [GRID[0]], SweepSettings((0.9,), max_tokens=12, seed=50))
    assert other_seed[0].text not in sampled[0]


def test_a_prompt_is_what_the_chat_template_makes_of_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Request] = []

    def listening(
        _engine: Engine, requests: Sequence[Request], completed: Callable[[int, Completion], None]
    ) -> list[Completion]:
        seen.extend(requests)
        answers = [Completion([], "stop", [], []) for _ in requests]
        for index, answer in enumerate(answers):
            completed(index, answer)
        return answers

    monkeypatch.setattr(Engine, "generate", listening)
    conversation = Prompt(
        (
            ChatMessage("system", "Be brief."),
            ChatMessage("user", "A"),
            ChatMessage("assistant", "B"),
            ChatMessage("user", "C"),
        )
    )
    sweep(CONFIG, [conversation], [GRID[0]], SweepSettings(max_tokens=4))
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    assert tokenizer.decode(list(seen[0].prompt_ids), skip_special_tokens=False) == (
        "<|system|>Be brief.<|end|><|user|>A<|end|><|assistant|>B<|end|><|user|>C<|end|><|assistant|>"
    )


def test_a_base_without_a_template_takes_single_texts_as_they_are(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    (base / "chat_template.jinja").unlink()
    config = EngineConfig(model=base, adapter=ADAPTER, dtype="float32")
    said = sweep(config, asked("Plant the bulbs"), [GRID[0]], SweepSettings((0.0,), max_tokens=4))
    assert len(said) == 1
    conversation = Prompt((ChatMessage("system", "Be brief."), ChatMessage("user", "C")), {}, 8)
    with pytest.raises(ConfigError, match="the prompt on line 8 cannot be used: the model has no chat template"):
        sweep(config, [conversation], [GRID[0]], SweepSettings())


def test_prompts_that_leave_no_room_are_named_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> list[Completion]:
        raise AssertionError("it was asked")

    monkeypatch.setattr(Engine, "generate", never)
    prompts = asked("Plant the bulbs", "knife " * 600, "Why?", "knife " * 700)
    with pytest.raises(
        ConfigError, match=r"the prompt on line 2 has [\d,]+ tokens, .* context of 512 \(so do 1 more\)"
    ):
        sweep(CONFIG, prompts, GRID, SweepSettings(max_tokens=24))
    with pytest.raises(ConfigError, match=r"the prompt on line 1 has .* --max-tokens 512 exceed"):
        sweep(CONFIG, asked("Plant the bulbs"), GRID, SweepSettings(max_tokens=512))


def test_an_answer_that_cannot_be_computed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_engine: Engine, requests: Sequence[Request], *_: object) -> list[Completion]:
        raise RequestFailedError("its logits are not finite numbers", len(requests) - 1)

    monkeypatch.setattr(Engine, "generate", failing)
    expected = "the answer to the prompt on line 2 at preference 0, 0, 1 failed: its logits are not finite numbers"
    with pytest.raises(RequestFailedError, match=expected):
        sweep(CONFIG, asked("Plant the bulbs", "Why?"), GRID, SweepSettings())


def test_a_model_that_overflows_names_the_request(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(ADAPTER, adapter)
    content = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    content |= {"scaling": 1e38, "base_model_name_or_path": str(BASE)}
    (adapter / "adapter_config.json").write_text(json.dumps(content), "utf-8")
    config = EngineConfig(model=BASE, adapter=adapter, dtype="float32")
    with pytest.raises(RequestFailedError, match=r"the answer to the prompt on line 1 at preference .* failed"):
        sweep(config, asked("Plant the bulbs"), GRID, SweepSettings(max_tokens=4))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).unlink()
    with pytest.raises(CheckpointError, match="no tokenizer can be read"):
        sweep(EngineConfig(model=base, adapter=ADAPTER), asked("Why?"), GRID, SweepSettings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperatures": ()}, "--temperature is missing"),
        ({"temperatures": (0.7, 0.7)}, r"--temperature 0\.7 is there twice"),
        ({"temperatures": (-1.0,)}, "--temperature must be between 0 and 2"),
        ({"temperatures": (float("nan"),)}, "--temperature must be between 0 and 2"),
        ({"samples": 0}, "at least 1"),
        ({"max_tokens": 0}, "at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SweepSettings(**settings)
