"""`bench throughput` on a tiny model: the same prompts and the same numbers of tokens for everyone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from panacea.errors import ConfigError
from panacea_lab.bench import throughput
from panacea_lab.bench.continuous_batching import ContinuousBatching
from panacea_lab.bench.measurement import BenchError
from panacea_lab.bench.throughput import WAYS, Mix, ThroughputBench
from tests.bench.numbers import assert_says_where_it_ran, assert_times_are_finite_and_positive

TINY = ThroughputBench("tiny", requests=6, prompt=(3, 40), answer=(2, 12), rounds=2)


@pytest.mark.slow
def test_everyone_answers_the_same_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[list[list[int]]]] = {}
    answer = ContinuousBatching.answer

    def note(self: ContinuousBatching, mix: Any) -> list[int]:
        seen.setdefault("transformers", []).append(mix.prompts)
        return answer(self, mix)

    own_answer = throughput.answers_by

    def note_own(engine: Any, wanted: Sequence[Any]) -> Any:
        inner = own_answer(engine, wanted)

        def answer_and_note(mix: Mix) -> Sequence[int]:
            seen.setdefault("base" if wanted[0] is None else "steered", []).append(mix.prompts)
            return inner(mix)

        return answer_and_note

    monkeypatch.setattr(ContinuousBatching, "answer", note)
    monkeypatch.setattr(throughput, "answers_by", note_own)
    result = TINY.run()
    assert_times_are_finite_and_positive(result)
    assert_says_where_it_ran(result)
    assert result["reasons"] == {}
    assert tuple(result["ways"]) == WAYS
    assert all(way["rounds"] == 2 for way in result["ways"].values())
    assert seen["transformers"] == seen["base"] == seen["steered"][::2] == seen["steered"][1::2]
    assert seen["base"][1] != seen["base"][2], "new prompts in every round: no cache of prefixes helps anyone"
    assert [len(prompt) for prompt in seen["base"][1]] == [len(prompt) for prompt in seen["base"][2]]
    assert result["most_preferences_in_one_step"] == result["requests"] == 6
    speeds = {way: result["generated_tokens"] / each["seconds"]["median"] for way, each in result["ways"].items()}
    assert result["different_over_transformers"] == pytest.approx(speeds["different"] / speeds["transformers"], rel=0.2)
    text = throughput.report(result)
    assert "every request its own preference" in text
    assert "transformers chose" in text


def test_a_mix_spreads_lengths_evenly_between_its_bounds() -> None:
    mix = Mix.random(9, (4, 20), (2, 10), 256, seed=1)
    assert sorted(len(prompt) for prompt in mix.prompts) == [4, 6, 8, 10, 12, 14, 16, 18, 20]
    assert sorted(mix.answers) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert all(0 <= token < 256 for prompt in mix.prompts for token in prompt)


@pytest.mark.slow
def test_who_generates_fewer_tokens_than_asked_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ContinuousBatching, "answer", lambda _self, mix: [count - 1 for count in mix.answers])
    result = TINY.run()
    assert "transformers" not in result["ways"]
    assert result["different_over_transformers"] is None
    assert "6 of 6" not in result["reasons"]["transformers"]  # the short round is checked too
    assert "have not the number of tokens asked for" in result["reasons"]["transformers"]
    assert "transformers was not measured" in throughput.report(result)

    monkeypatch.setattr(throughput, "answers_by", lambda _engine, _wanted: lambda mix: [1] * len(mix.prompts))
    with pytest.raises(BenchError, match="have not the number of tokens"):
        TINY.run()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": (9, 3)}, "least and most, not 9 and 3"),
        ({"prompt": (3, 500), "answer": (2, 100)}, "exceed 512 positions"),
        ({"requests": 0}, "requests must be"),
    ],
)
def test_wrong_sizes_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **values)
