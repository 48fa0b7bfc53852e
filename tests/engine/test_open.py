"""Handles of running answers, in the engine's own process."""

import pytest

from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import EngineError, RequestError, RequestFailedError
from tests.engine.fake_model import VOCABULARY, answer, make_engine

PROMPT = [3, 1, 4, 1, 5]


def ask(preference: tuple[float, float] | None = None, max_tokens: int = 6) -> Request:
    return Request(PROMPT, preference, SamplingParams(max_tokens=max_tokens))


@pytest.fixture(params=[0, 1], ids=["in step", "a step ahead"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return make_engine(num_blocks=40, max_step_tokens=40, steps_ahead=request.param)[0]


def test_a_stream_gives_the_tokens_of_its_request(engine: Engine) -> None:
    tokens = list(engine.open(ask((1.0, 0.0))))
    assert [token.token_id for token in tokens] == answer(PROMPT, (1.0, 0.0), 6)
    assert [token.finish_reason for token in tokens] == [None] * 5 + ["length"]


def test_streams_of_several_preferences_share_steps_and_keep_their_tokens_apart(engine: Engine) -> None:
    preferences = [(1.0, 0.0), (0.0, 1.0), None]
    streams = [engine.open(ask(preference)) for preference in preferences]
    first = [next(stream).token_id for stream in streams]
    rest = [[token.token_id for token in stream] for stream in reversed(streams)]
    for preference, token, others in zip(preferences, first, reversed(rest), strict=True):
        assert [token, *others] == answer(PROMPT, preference, 6)
    assert engine.stats.max_step_preferences == 3
    assert engine.stats.steps < 2 * 6


def test_a_closed_stream_ends_its_request_alone_and_frees_what_it_held(engine: Engine) -> None:
    closed, other = engine.open(ask(max_tokens=100)), engine.open(ask((0.0, 1.0)))
    next(closed)
    closed.close()
    closed.close()
    assert list(closed) == []
    assert [token.token_id for token in other] == answer(PROMPT, (0.0, 1.0), 6)
    while engine.has_work:
        engine.step()
    assert (engine.stats.free_blocks, engine.stats.free_slots) == (40, 4)


def test_generate_leaves_open_streams_their_tokens(engine: Engine) -> None:
    stream = engine.open(ask(max_tokens=12))
    completions = engine.generate([ask((1.0, 0.0)), ask((0.0, 1.0))])
    assert [each.token_ids for each in completions] == [answer(PROMPT, own, 6) for own in ((1.0, 0.0), (0.0, 1.0))]
    assert [token.token_id for token in stream] == answer(PROMPT, None, 12)


def test_generate_reports_each_answer_once_as_soon_as_it_is_complete(engine: Engine) -> None:
    heard: list[tuple[int, Completion]] = []
    lengths = [5, 2, 9, 1]
    completions = engine.generate([ask(max_tokens=count) for count in lengths], lambda *each: heard.append(each))
    assert [index for index, _ in heard] == [3, 1, 0, 2]
    assert all(completions[index] is completion for index, completion in heard)


def test_the_token_that_ends_an_answer_is_not_part_of_its_text(engine: Engine) -> None:
    ids = answer(PROMPT, None, 4)
    stops = Request(PROMPT, None, SamplingParams(max_tokens=9, stop_token_ids=(ids[-1],)))
    stopped, cut_off = engine.generate([stops, ask(max_tokens=4)])
    assert (stopped.token_ids, stopped.text_ids) == (ids, ids[:-1])
    assert (cut_off.token_ids, cut_off.text_ids) == (ids, ids)


def test_a_request_that_can_never_be_served_is_refused_and_its_neighbours_are_ended(engine: Engine) -> None:
    with pytest.raises(RequestError):
        engine.open(Request([VOCABULARY], None, SamplingParams(max_tokens=1)))
    with pytest.raises(RequestError):
        engine.generate([ask(), Request([], None, SamplingParams(max_tokens=1))])
    assert not engine.has_work


def test_a_request_that_fails_is_named_by_its_index_and_others_are_ended(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_finish_reason", lambda sequence: _fail(engine, sequence.request.preference))
    with pytest.raises(RequestFailedError, match="made up") as caught:
        engine.generate([ask(), ask((1.0, 0.0))])
    assert caught.value.index == 1
    while engine.has_work:
        engine.step()
    assert (engine.stats.free_blocks, engine.stats.free_slots) == (40, 4)
    monkeypatch.undo()
    assert engine.generate([ask()])[0].token_ids == answer(PROMPT, None, 6)


def _fail(engine: Engine, preference: object) -> None:
    if preference is not None:
        (sequence,) = [
            each
            for each in engine._sequences.values()  # pyright: ignore[reportPrivateUsage]
            if each.request.preference is not None
        ]
        engine._fail(sequence, "made up")  # pyright: ignore[reportPrivateUsage]


def test_requests_that_were_queued_with_add_keep_the_engine_to_themselves(engine: Engine) -> None:
    engine.add("mine", ask())
    with pytest.raises(EngineError, match="queued with add"):
        engine.open(ask())
