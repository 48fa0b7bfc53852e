"""A step that raises: only the requests that cause it fail, and no other one notices."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion, TokenOutput
from panacea.engine.request import Request
from panacea.engine.runner import Runner
from panacea.engine.sampler import choose
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import RequestFailedError
from tests.engine.asking import requests
from tests.engine.fake_model import VOCABULARY, PagedFakeModel, answer, make_engine
from tests.engine.test_scheduler import ARRIVALS
from tests.golden_files import ADAPTER, BASE

CULPRIT = 60
INNOCENT = [token for token in range(1, VOCABULARY) if CULPRIT not in [token, *answer([token], None, 4)]]
"""Prompts of one token whose answers do not contain the culprit."""
Arrival = tuple[int, list[int], int, Any, int | None]


def until_a_stop(said: list[int], stops: Collection[int]) -> list[int]:
    return next((said[: index + 1] for index, token in enumerate(said) if token in stops), said)


def first_fault(prompt: Sequence[int], said: Sequence[int]) -> int | None:
    """How many tokens of `said` a request gets before it must fail; None if it computes no culprit.

    The last token of an answer is never needed, although a step ahead may compute it.
    """
    if CULPRIT in prompt:
        return 0
    return said.index(CULPRIT) + 1 if CULPRIT in said[:-1] else None


def run(
    engine: Engine, arrivals: Sequence[Arrival], n: int, stops: Collection[int] = ()
) -> tuple[dict[str, list[TokenOutput]], dict[str, str]]:
    """The tokens and the failure of each answer, by its id."""
    outputs: dict[str, list[TokenOutput]] = {}
    failed: dict[str, str] = {}
    pending: list[tuple[int, int, str]] = []
    clock = 0
    for index, (gap, *_, abort_after) in enumerate(arrivals):
        clock += gap
        for choice in range(n):
            pending.append((clock, 0, f"{index}.{choice}"))
            if abort_after is not None:
                pending.append((clock + abort_after, 1, f"{index}.{choice}"))
    pending.sort()
    step = 0
    while pending or engine.has_work:
        while pending and pending[0][0] <= step:
            _, is_abort, request_id = pending.pop(0)
            if is_abort:
                engine.abort(request_id)
                continue
            _, prompt, max_tokens, preference, _ = arrivals[int(request_id.split(".")[0])]
            outputs[request_id] = []
            choice = int(request_id.split(".")[1])
            params = SamplingParams(max_tokens=max_tokens, choice=choice, stop_token_ids=tuple(stops))
            engine.add(request_id, Request(prompt, preference, params))
        for token in engine.step():
            assert token.request_id not in failed
            outputs[token.request_id].append(token)
        for failure in engine.take_failures():
            assert failure.request_id not in failed, "a request fails once"
            failed[failure.request_id] = failure.message
        engine.check_integrity()
        step += 1
        assert step < 5_000, "the engine makes no progress"
    return outputs, failed


@settings(max_examples=60, deadline=None)
@given(
    arrivals=ARRIVALS,
    n=st.sampled_from([1, 1, 3]),
    num_blocks=st.integers(10, 14),
    block_size=st.sampled_from([4, 5]),
    max_batch=st.integers(1, 6),
    spare_step_tokens=st.integers(0, 10),
    steps_ahead=st.sampled_from([0, 1]),
    culprits=st.lists(st.integers(0, 13), max_size=3),
    stops=st.sampled_from([(), (), tuple(range(1, VOCABULARY, 4)), (CULPRIT, 1, 2, 3)]),
    cached=st.booleans(),
)
def test_only_the_requests_that_cause_a_fault_fail(
    arrivals: list[Arrival],
    n: int,
    num_blocks: int,
    block_size: int,
    max_batch: int,
    spare_step_tokens: int,
    steps_ahead: int,
    culprits: list[int],
    stops: tuple[int, ...],
    *,
    cached: bool,
) -> None:
    for index in {each % len(arrivals) for each in culprits}:
        gap, prompt, max_tokens, preference, abort_after = arrivals[index]
        arrivals[index] = (gap, [*prompt[:-1], CULPRIT], max_tokens, preference, abort_after)
    engine, _ = make_engine(
        num_blocks, block_size, max_batch, max_batch + spare_step_tokens, steps_ahead, cached=cached, culprit=CULPRIT
    )
    outputs, failed = run(engine, arrivals, n, stops)
    for index, (_, prompt, max_tokens, preference, abort_after) in enumerate(arrivals):
        expected = until_a_stop(answer(prompt, preference, max_tokens), stops)
        fault = first_fault(prompt, expected)
        for choice in range(n):
            request_id = f"{index}.{choice}"
            got = [token.token_id for token in outputs[request_id]]
            if request_id in failed:
                assert fault is not None
                assert failed[request_id] == "its step raised RuntimeError"
                assert got == expected[:fault]
            elif abort_after is None:
                assert fault is None
                assert got == expected
            else:
                assert got == expected[: len(got)]
    assert (engine.stats.free_blocks, engine.stats.free_slots) == (num_blocks, max_batch)


def engine_with(steps_ahead: int = 0, max_batch: int = 64) -> tuple[Engine, PagedFakeModel]:
    return make_engine(400, 4, max_batch, 1000, steps_ahead, culprit=CULPRIT)


@pytest.mark.parametrize("steps_ahead", [0, 1])
def test_one_culprit_among_many_costs_few_launches(steps_ahead: int) -> None:
    engine, model = engine_with(steps_ahead)
    arrivals: list[Arrival] = [(0, [token], 4, None, None) for token in INNOCENT[:32]]
    arrivals.append((2, [CULPRIT], 4, None, None))
    outputs, failed = run(engine, arrivals, 1)
    assert list(failed) == ["32.0"]
    for index, token in enumerate(INNOCENT[:32]):
        assert [output.token_id for output in outputs[f"{index}.0"]] == answer([token], None, 4)
    assert len(model.steps) <= 4 + 2 * 7, "the step is halved until the culprit is alone"


def test_a_model_that_fails_for_everybody_fails_everybody_and_comes_to_an_end() -> None:
    engine, model = engine_with()
    outputs, failed = run(engine, [(0, [5, CULPRIT, 6], 4, None, None) for _ in range(5)], 2)
    assert len(failed) == 10
    assert not any(outputs.values())
    assert len(model.steps) < 2 * 10


def test_a_fault_after_which_the_device_is_not_usable_is_raised() -> None:
    engine, model = engine_with()
    model.usable = False
    engine.add("neighbour", Request(INNOCENT[:1], None, SamplingParams(max_tokens=4)))
    engine.add("culprit", Request([CULPRIT], None, SamplingParams(max_tokens=4)))
    with pytest.raises(RuntimeError, match="cannot be computed"):
        engine.step()
    assert (len(model.steps), model.probes) == (1, 1)


def test_an_answer_that_ends_beside_a_fault_of_the_step_ahead_is_whole() -> None:
    """The step ahead computes the token that ends the answer. Nobody needs this step any more."""
    engine, model = engine_with(steps_ahead=1)
    ending = next(token for token in range(1, VOCABULARY) if answer([token], None, 1) == [CULPRIT])
    params = SamplingParams(max_tokens=4, stop_token_ids=(CULPRIT,))
    for prompts in ([[ending]], [[ending], INNOCENT[:1]], [[ending]] * 3):
        completions = engine.generate(requests(prompts, [None] * len(prompts), params))
        assert [each.token_ids for each in completions if each.finish_reason == "stop"] == [
            [CULPRIT] for prompt in prompts if prompt == [ending]
        ]
    assert model.probes > 0, "no step raised: this proves nothing"
    assert model.without_slot == 0


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_a_request_to_end_the_process_is_not_contained(
    raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, model = engine_with()

    def interrupted(_work: object) -> None:
        raise raised

    monkeypatch.setattr(model, "launch", interrupted)
    engine.add("x", Request(INNOCENT[:1], None, SamplingParams(max_tokens=4)))
    with pytest.raises(raised):
        engine.step()


class Panic(BaseException):
    """As pyo3's PanicException: not an `Exception`."""


class PanickingGrammar:
    """A grammar whose library panics at the second token."""

    has_ended = False
    failure = None

    def __init__(self) -> None:
        self._accepted = 0

    def accept(self, _token_id: int) -> None:
        self._accepted += 1
        if self._accepted == 2:
            raise Panic


@pytest.mark.parametrize("steps_ahead", [0, 1])
def test_a_panic_in_one_requests_grammar_fails_that_request(steps_ahead: int) -> None:
    engine, _ = engine_with(steps_ahead)
    for name in ("neighbour", "culprit", "other"):
        engine.add(name, Request(INNOCENT[:1], None, SamplingParams(max_tokens=4)))
    next(each for each in engine._scheduler.waiting if each.request_id == "culprit").grammar = cast(  # pyright: ignore[reportPrivateUsage]
        Any, PanickingGrammar()
    )
    said: dict[str, list[int]] = {"neighbour": [], "culprit": [], "other": []}
    while engine.has_work:
        for token in engine.step():
            said[token.request_id].append(token.token_id)
    assert [(failure.request_id, failure.message) for failure in engine.take_failures()] == [
        ("culprit", "its step raised Panic")
    ]
    assert said == {
        "neighbour": answer(INNOCENT[:1], None, 4),
        "culprit": answer(INNOCENT[:1], None, 1),
        "other": answer(INNOCENT[:1], None, 4),
    }
    engine.check_integrity()


def test_generate_names_the_request_that_failed_and_leaves_nothing_behind() -> None:
    engine, _ = engine_with()
    params = SamplingParams(max_tokens=4)
    with pytest.raises(RequestFailedError, match="its step raised RuntimeError") as caught:
        engine.generate([Request(INNOCENT[:1], None, params), Request([CULPRIT], None, params)])
    assert caught.value.index == 1
    done: list[Completion] = engine.generate([Request(INNOCENT[:1], None, params)])
    assert done[0].token_ids == answer(INNOCENT[:1], None, 4)
    assert VOCABULARY not in done[0].token_ids
    engine.check_integrity()


def test_penalties_biases_and_scores_are_the_same_if_every_larger_step_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the memory sufficed for one request alone. The tokens are drawn and counted when the step raises."""
    config = EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32", device="cpu", max_batch=6, max_step_tokens=16)
    plain = SamplingParams(max_tokens=12, seed=3, temperature=1.5, ignore_eos=True, prompt_logprobs=2, logprobs=1)
    params = [
        plain,
        replace(plain, frequency_penalty=2.0, presence_penalty=1.0),
        replace(plain, repetition_penalty=2.0, logit_bias=((7, 4.0), (9, -100.0)), temperature=0),
        replace(plain, max_tokens=0),
        replace(plain, seed=4, top_k=5),
    ]
    asked = requests([list(range(5, 5 + 9 * (i + 1))) for i in range(5)], [None, (0.7, 0.2, 0.1)] * 2 + [None], params)
    engine = Engine.load(config)
    expected = [engine.generate([each])[0] for each in asked]

    def cramped(logits: torch.Tensor, *rest: Any) -> Any:
        result = choose(logits, *rest)
        if len(logits) > 1:
            raise torch.OutOfMemoryError
        return result

    monkeypatch.setattr("panacea.engine.runner.choose", cramped)
    answers = engine.generate(asked)
    engine.check_integrity()
    for answered, right in zip(answers, expected, strict=True):
        assert answered.token_ids == right.token_ids
        assert answered.logprobs == pytest.approx(right.logprobs, abs=1e-4)
        assert answered.prompt_logprobs is not None
        assert right.prompt_logprobs is not None
        assert [score.logprob for score in answered.prompt_logprobs] == pytest.approx(
            [score.logprob for score in right.prompt_logprobs], abs=1e-4
        )


def test_a_model_that_computes_nothing_any_more_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.load(EngineConfig(model=BASE, dtype="float32", device="cpu"))
    runner = cast(Runner, engine._runner)  # pyright: ignore[reportPrivateUsage]
    assert runner.is_usable_after(torch.OutOfMemoryError())
    assert not runner.is_usable_after(torch.AcceleratorError())

    def broken(_states: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(runner.model.decoder, "logits", broken)
    engine.add("x", Request([5], None, SamplingParams(max_tokens=1)))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.step()
