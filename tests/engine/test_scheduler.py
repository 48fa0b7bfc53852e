"""The scheduler and the block pool under random load, with a model of a few lines."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panacea.config import EngineConfig
from panacea.engine.outputs import TokenOutput
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.slot_pool import SlotPool
from panacea.errors import ConfigError, EngineError, RequestError
from panacea.preference import Preference
from tests.engine.asking import requests
from tests.engine.fake_model import VOCABULARY, answer, make_engine

PREFERENCES = st.one_of(st.none(), st.sampled_from([(1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (0.25, 0.75)]))
STEMS = ([7] * 12, list(range(1, 13)), [*range(1, 9), 7, 7, 7, 7])
TOKENS = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=8)
PROMPTS = st.one_of(
    st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=20),
    st.builds(lambda stem, length, rest: [*stem[:length], *rest], st.sampled_from(STEMS), st.integers(1, 12), TOKENS),
)
ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 12),  # steps after the arrival before
        PROMPTS,
        st.integers(1, 12),  # max_tokens
        PREFERENCES,
        st.one_of(st.none(), st.integers(0, 15)),  # aborted so many steps after its arrival
    ),
    min_size=1,
    max_size=14,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    arrivals=ARRIVALS,
    num_blocks=st.integers(8, 14),
    block_size=st.sampled_from([1, 4, 5]),
    max_batch=st.integers(1, 6),
    spare_step_tokens=st.integers(0, 10),
    steps_ahead=st.sampled_from([0, 1]),
    cached=st.booleans(),
)
def test_nothing_is_lost_whatever_comes(
    arrivals: list[tuple[int, list[int], int, Preference | None, int | None]],
    num_blocks: int,
    block_size: int,
    max_batch: int,
    spare_step_tokens: int,
    steps_ahead: int,
    *,
    cached: bool,
) -> None:
    spare = max_batch + spare_step_tokens
    engine, model = make_engine(num_blocks, block_size, max_batch, spare, steps_ahead, cached=cached)
    outputs: dict[str, list[TokenOutput]] = {}
    refused: set[str] = set()
    aborted: set[str] = set()
    pending: list[tuple[int, int, str]] = []  # (step, kind, id)
    clock = 0
    for index, (gap, *_, abort_after) in enumerate(arrivals):
        clock += gap
        pending.append((clock, 0, str(index)))
        if abort_after is not None:
            pending.append((clock + abort_after, 1, str(index)))
    pending.sort()
    step = 0
    while pending or engine.has_work:
        while pending and pending[0][0] <= step:
            _, is_abort, request_id = pending.pop(0)
            _, prompt, max_tokens, preference, _ = arrivals[int(request_id)]
            if is_abort:
                engine.abort(request_id)
                aborted.add(request_id)
                continue
            outputs[request_id] = []
            try:
                engine.add(request_id, Request(prompt, preference, SamplingParams(max_tokens=max_tokens)))
            except RequestError:
                refused.add(request_id)
                assert len(prompt) + max_tokens > num_blocks * block_size
        for token in engine.step():
            assert token.request_id not in aborted
            outputs[token.request_id].append(token)
        engine.check_integrity()
        step += 1
        assert step < 5_000, "the engine makes no progress"
    for index, (_, prompt, max_tokens, preference, abort_after) in enumerate(arrivals):
        got = [token.token_id for token in outputs[str(index)]]
        expected = answer(prompt, preference, max_tokens)
        if str(index) in refused:
            assert got == []
        elif abort_after is None:
            assert got == expected
            assert [token.finish_reason for token in outputs[str(index)]] == [None] * (max_tokens - 1) + ["length"]
        else:
            assert got == expected[: len(got)]
    assert engine.stats.free_blocks == num_blocks
    assert engine.stats.free_slots == max_batch
    assert all(sum(item.count for item in step_work) <= max_batch + spare_step_tokens for step_work in model.steps)


def test_the_youngest_is_preempted_and_finishes_later() -> None:
    engine, model = make_engine(num_blocks=6, block_size=4)
    engine.add("old", Request([1] * 8, (1.0, 0.0), SamplingParams(max_tokens=12)))
    engine.add("young", Request([2] * 8, (0.0, 1.0), SamplingParams(max_tokens=12)))
    finished: dict[str, list[int]] = {"old": [], "young": []}
    order: list[str] = []
    while engine.has_work:
        for token in engine.step():
            finished[token.request_id].append(token.token_id)
            if token.finish_reason:
                order.append(token.request_id)
    assert engine.stats.preemptions > 0
    assert order == ["old", "young"]
    assert finished == {"old": answer([1] * 8, (1.0, 0.0), 12), "young": answer([2] * 8, (0.0, 1.0), 12)}
    starts = [item.start for step in model.steps for item in step if item.sequence.request_id == "young"]
    assert starts.count(0) == 2, "the young one was prefilled, preempted and prefilled again"


def test_a_step_ahead_costs_one_step_when_an_answer_ends_unforeseen_and_none_at_max_tokens() -> None:
    engine, model = make_engine(num_blocks=40, steps_ahead=1)
    stops = answer([5], None, 3)[-1]
    params = SamplingParams(max_tokens=9, stop_token_ids=(stops,))
    (completion,) = engine.generate([Request([5], None, params)])
    assert (completion.token_ids, completion.finish_reason) == (answer([5], None, 3), "stop")
    assert len(model.steps) == 4
    (completion,) = engine.generate([Request([5], None, SamplingParams(max_tokens=3))])
    assert (completion.token_ids, completion.finish_reason) == (answer([5], None, 3), "length")
    assert len(model.steps) == 4 + 3


def test_the_host_prepares_a_step_while_the_one_before_runs() -> None:
    engine, model = make_engine(num_blocks=40, steps_ahead=1)
    engine.add("x", Request([1], None, SamplingParams(max_tokens=3)))
    assert engine.step() == [], "the first step runs and nobody waits for it"
    assert [token.token_id for token in engine.step()] == answer([1], None, 1)
    assert len(model.steps) == 2
    assert model.steps[1][0].sequence.num_pending == 1


def test_everyone_gets_a_token_while_a_long_prompt_is_prefilled_in_chunks() -> None:
    engine, model = make_engine(num_blocks=40, max_step_tokens=6)
    engine.add("talker", Request([1, 2], None, SamplingParams(max_tokens=20)))
    engine.step()
    engine.add("reader", Request(list(range(1, 31)), (1.0, 0.0), SamplingParams(max_tokens=2)))
    for _ in range(6):
        assert next(token.request_id for token in engine.step()) == "talker"
    counts = [[item.count for item in step] for step in model.steps[1:7]]
    assert counts == [[1, 5]] * 6


def test_a_request_joins_and_leaves_at_any_step() -> None:
    engine, model = make_engine(num_blocks=40)
    engine.add("a", Request([1], None, SamplingParams(max_tokens=6)))
    engine.step()
    engine.add("b", Request([2], (1.0, 0.0), SamplingParams(max_tokens=2)))
    while engine.has_work:
        engine.step()
    assert [sorted(item.sequence.request_id for item in step) for step in model.steps] == [
        ["a"], ["a", "b"], ["a", "b"], ["a"], ["a"], ["a"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "param"),
    [([1] * 40, 1, "prompt"), ([1] * 20, 13, "max_tokens"), ([], 1, "prompt"), ([VOCABULARY], 1, "prompt"),
     ([-1], 1, "prompt")],
)  # fmt: skip
def test_what_can_never_fit_is_refused_at_once(prompt: list[int], max_tokens: int, param: str) -> None:
    engine, _ = make_engine(num_blocks=8, block_size=4)
    with pytest.raises(RequestError) as caught:
        engine.add("x", Request(prompt, None, SamplingParams(max_tokens=max_tokens)))
    assert caught.value.param == param
    assert not engine.has_work


def test_a_request_that_just_fits_is_served() -> None:
    engine, _ = make_engine(num_blocks=8, block_size=4)
    (completion,) = engine.generate([Request([1] * 20, None, SamplingParams(max_tokens=12))])
    assert completion.token_ids == answer([1] * 20, None, 12)


def test_a_preference_of_the_wrong_length_and_a_used_id_are_refused() -> None:
    engine, _ = make_engine()
    with pytest.raises(RequestError, match="dimensions"):
        engine.add("x", Request([1], (1.0,), SamplingParams(max_tokens=1)))
    engine.add("x", Request([1], None, SamplingParams(max_tokens=1)))
    with pytest.raises(RequestError, match="in use"):
        engine.add("x", Request([1], None, SamplingParams(max_tokens=1)))


def test_generate_leaves_nothing_behind_when_one_request_is_bad() -> None:
    engine, _ = make_engine()
    with pytest.raises(RequestError):
        engine.generate(requests([[1], [VOCABULARY]], [None, None], SamplingParams(max_tokens=1)))
    assert not engine.has_work
    engine.check_integrity()


def test_the_pool_notices_what_is_given_back_twice_or_lost() -> None:
    pool = SlotPool(range(1, 4))
    number = pool.allocate()
    with pytest.raises(ValueError, match="lost or owned twice"):
        pool.check_integrity([])
    pool.check_integrity([number])
    pool.release([number])
    with pytest.raises(ValueError, match="no sequence holds it"):
        pool.release([number])
    with pytest.raises(ValueError, match="no sequence holds it"):
        pool.release([0])
    with pytest.raises(ValueError, match="lost or owned twice"):
        pool.check_integrity([number])


def test_generate_wants_the_engine_for_itself() -> None:
    engine, _ = make_engine()
    engine.add("0", Request([1], None, SamplingParams(max_tokens=2)))
    with pytest.raises(EngineError, match="cannot run beside requests that were queued with add"):
        engine.generate([Request([1], None, SamplingParams(max_tokens=1))])
    assert [token.request_id for token in engine.step()] == ["0"]


@pytest.mark.parametrize("weights", [(math.nan, 1.0), (-0.5, 1.5), (math.inf, 0.0)])
def test_a_preference_that_is_none_is_refused(weights: Preference) -> None:
    engine, _ = make_engine()
    with pytest.raises(RequestError) as caught:
        engine.add("x", Request([1], weights, SamplingParams(max_tokens=1)))
    assert caught.value.param == "preference"


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_tokens", 0), ("temperature", -1.0), ("temperature", math.nan), ("temperature", math.inf), ("top_p", 0.0),
     ("top_p", 1.1), ("top_p", math.nan), ("top_k", -1), ("seed", 2**64), ("choice", -1), ("min_tokens", -1),
     ("min_tokens", 6), ("logprobs", -1), ("logprobs", 21)],
)  # fmt: skip
def test_sampling_that_means_nothing_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(RequestError) as caught:
        replace(SamplingParams(max_tokens=5), **{field: value})  # type: ignore[arg-type]
    assert caught.value.param == field


@pytest.mark.parametrize(
    "numbers",
    [{"max_batch": 0}, {"max_step_tokens": 63}, {"block_size": 0}, {"num_blocks": 0}, {"kv_cache_gib": 0},
     {"max_context": 1}, {"threads": 0}, {"gpu_memory_share": 0}, {"gpu_memory_share": math.nan}],
)  # fmt: skip
def test_an_engine_that_could_not_run_is_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(numbers))):
        replace(EngineConfig(model=Path()), **numbers)  # type: ignore[arg-type]
