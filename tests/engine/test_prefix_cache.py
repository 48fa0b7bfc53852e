"""The prefix cache of a whole engine: who shares with whom, what counts as found, and that no answer changes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.preference import Preference
from tests.engine.asking import requests
from tests.engine.fake_model import VOCABULARY, PagedFakeModel, answer, make_engine
from tests.golden_files import ADAPTER, BASE, golden

ONE = SamplingParams(max_tokens=1)
PREFERENCE = (0.5, 0.5)
PROMPT = list(range(1, 14))  # three full blocks of four, and a token
CONFIG = EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32")
TIE = 1e-4


def ask(
    engine: Engine, prompt: Sequence[int], preference: Preference | None = PREFERENCE, salt: str = "", tokens: int = 1
) -> Completion:
    (completion,) = engine.generate([Request(prompt, preference, SamplingParams(max_tokens=tokens), salt)])
    engine.check_integrity()
    assert completion.token_ids == answer(prompt, preference, tokens)
    return completion


def computed(model: PagedFakeModel) -> int:
    """Tokens that the model was given so far."""
    return sum(item.count for step in model.steps for item in step)


@pytest.fixture
def cached() -> tuple[Engine, PagedFakeModel]:
    return make_engine(num_blocks=40, cached=True)


def test_a_prompt_is_computed_once_and_its_last_token_always(cached: tuple[Engine, PagedFakeModel]) -> None:
    engine, model = cached
    assert ask(engine, PROMPT).cached_tokens == 0
    assert computed(model) == 13
    assert ask(engine, PROMPT).cached_tokens == 12
    assert computed(model) == 14
    assert ask(engine, PROMPT[:12]).cached_tokens == 8, "the last block holds the token whose logits are wanted"
    assert ask(engine, [*PROMPT[:7], 50, *PROMPT[8:]]).cached_tokens == 4
    assert ask(engine, [50, *PROMPT[1:]]).cached_tokens == 0
    assert ask(engine, PROMPT[:3]).cached_tokens == 0
    assert (engine.stats.prefix_queries, engine.stats.prefix_hits) == (13 + 13 + 12 + 13 + 13 + 3, 12 + 8 + 4)


def test_answers_are_found_by_the_next_turn(cached: tuple[Engine, PagedFakeModel]) -> None:
    engine, _ = cached
    said = ask(engine, PROMPT, tokens=8).token_ids
    # The answer's last token was never computed, only sampled: 20 of 21 tokens are in the cache.
    assert ask(engine, [*PROMPT, *said, 5, 6]).cached_tokens == 20


@pytest.mark.parametrize("steps_ahead", [0, 1])
def test_what_only_the_device_knows_is_not_found_before_the_host_knows_it(steps_ahead: int) -> None:
    engine, _ = make_engine(num_blocks=40, steps_ahead=steps_ahead, cached=True)
    said = answer(PROMPT, PREFERENCE, 12)
    engine.add("talker", Request(PROMPT, PREFERENCE, SamplingParams(max_tokens=12)))
    for _ in range(40):
        if not engine.has_work:
            break
        engine.step()
        engine.check_integrity()  # compares keys with the tokens that the host knows
    assert ask(engine, [*PROMPT, *said[:8]]).cached_tokens == 20


def test_running_requests_share_blocks(cached: tuple[Engine, PagedFakeModel]) -> None:
    engine, _ = cached
    engine.add("first", Request(PROMPT, PREFERENCE, SamplingParams(max_tokens=30)))
    for _ in range(4):
        engine.step()
    before = engine.stats.free_blocks
    engine.add("second", Request([*PROMPT[:12], 60], PREFERENCE, SamplingParams(max_tokens=30)))
    engine.step()
    assert before - engine.stats.free_blocks <= 2, "three of its four blocks are the first one's"
    engine.check_integrity()
    engine.abort("first")
    engine.check_integrity()
    answers = [token.token_id for _ in range(30) for token in engine.step() if token.request_id == "second"]
    assert answers == answer([*PROMPT[:12], 60], PREFERENCE, 30)[1:]


def test_only_equal_preferences_share(cached: tuple[Engine, PagedFakeModel]) -> None:
    engine, _ = cached
    for preference in ((0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5 + 2**-53), None):
        assert ask(engine, PROMPT, preference).cached_tokens == 0
    assert ask(engine, PROMPT, None).cached_tokens == 12
    assert ask(engine, PROMPT, (1.0, 0.0)).cached_tokens == 12
    assert ask(engine, PROMPT, (1.0, -0.0)).cached_tokens == 12


def test_only_equal_salts_share(cached: tuple[Engine, PagedFakeModel]) -> None:
    engine, _ = cached
    for salt in ("", "a", "b", "adapter", "an adapter"):
        assert ask(engine, PROMPT, salt=salt).cached_tokens == 0
    assert ask(engine, PROMPT, salt="a").cached_tokens == 12


def test_without_the_cache_nothing_is_found_and_nothing_counted() -> None:
    engine, model = make_engine(num_blocks=40)
    for _ in range(2):
        assert ask(engine, PROMPT).cached_tokens == 0
    assert computed(model) == 26
    assert (engine.stats.prefix_queries, engine.stats.prefix_hits) == (0, 0)


def test_an_aborted_request_leaves_what_was_computed_of_it_and_no_more() -> None:
    engine, _ = make_engine(num_blocks=40, max_step_tokens=6, cached=True)
    engine.add("gone", Request([*PROMPT, 20, 21, 22], PREFERENCE, ONE))
    engine.step()  # six tokens: one full block
    engine.abort("gone")
    engine.check_integrity()
    assert ask(engine, PROMPT).cached_tokens == 4
    engine.add("never ran", Request([*PROMPT, *PROMPT], (1.0, 0.0), ONE))
    engine.abort("never ran")
    assert ask(engine, [*PROMPT, *PROMPT], (1.0, 0.0)).cached_tokens == 0


def test_a_preempted_request_finds_its_own_blocks_again() -> None:
    counts: list[int] = []
    for is_cached in (False, True):
        engine, model = make_engine(num_blocks=9, cached=is_cached)
        engine.add("old", Request([1] * 8, (1.0, 0.0), SamplingParams(max_tokens=16)))
        engine.add("young", Request([2] * 8, (0.0, 1.0), SamplingParams(max_tokens=16)))
        said: dict[str, list[int]] = {"old": [], "young": []}
        while engine.has_work:
            for token in engine.step():
                said[token.request_id].append(token.token_id)
                assert token.cached_tokens == 0, "what it computed itself is nobody's saving"
            engine.check_integrity()
        assert said == {"old": answer([1] * 8, (1.0, 0.0), 16), "young": answer([2] * 8, (0.0, 1.0), 16)}
        assert engine.stats.preemptions > 0
        counts.append(computed(model))
    assert counts[1] < counts[0]


def test_cached_blocks_make_room_for_whoever_runs() -> None:
    engine, _ = make_engine(num_blocks=8, cached=True)
    for start in range(1, 60):
        ask(engine, list(range(start, start + 20)), tokens=10)
        assert engine.stats.free_blocks == 8
    assert ask(engine, list(range(59, 79)), tokens=10).cached_tokens == 16
    assert ask(engine, list(range(1, 21)), tokens=10).cached_tokens == 0


PREFERENCES = st.sampled_from([None, (1.0, 0.0), (0.5, 0.5)])
PROMPTS = st.builds(
    lambda stem, length, rest: [*stem[:length], *rest],
    st.sampled_from([[7] * 12, list(range(1, 13)), [*range(1, 9), 7, 7, 7, 7]]),
    st.integers(0, 12),
    st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=6),
)
STORM = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), PROMPTS, PREFERENCES, st.sampled_from(["", "salt"]), st.integers(1, 14)),
        st.tuples(st.just("abort"), st.integers(0, 30)),
        st.tuples(st.just("step"), st.integers(1, 4)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(operations=STORM, num_blocks=st.integers(8, 12), max_batch=st.integers(1, 5), steps_ahead=st.integers(0, 1))
def test_a_storm_of_requests_aborts_and_preemptions_changes_no_token(
    operations: list[tuple[object, ...]], num_blocks: int, max_batch: int, steps_ahead: int
) -> None:
    engine, _ = make_engine(num_blocks, 4, max_batch, max_batch + 5, steps_ahead, cached=True)
    expected: dict[str, list[int]] = {}
    said: dict[str, list[int]] = {}
    gone: set[str] = set()

    def step() -> None:
        for token in engine.step():
            said[token.request_id].append(token.token_id)
        engine.check_integrity()

    for operation in operations:
        match operation:
            case ("ask", list(prompt), preference, str(salt), int(tokens)):
                name = str(len(expected))
                engine.add(name, Request(prompt, preference, SamplingParams(max_tokens=tokens), salt))  # type: ignore[arg-type]
                expected[name], said[name] = answer(prompt, preference, tokens), []  # type: ignore[arg-type]
            case ("abort", int(number)):
                engine.abort(str(number))
                gone.add(str(number))
                engine.check_integrity()
            case (_, int(steps)):
                for _ in range(steps):
                    step()
            case _:
                raise AssertionError(operation)
    for _ in range(2_000):
        if not engine.has_work:
            break
        step()
    assert not engine.has_work
    for name, got in said.items():
        assert got == (expected[name][: len(got)] if name in gone else expected[name])
    assert engine.stats.free_blocks == num_blocks
    assert engine.stats.prefix_hits <= engine.stats.prefix_queries


def _mix(requests: int, seed: int) -> list[list[int]]:
    """Prompts that begin with one of five texts, cut anywhere, and go on by themselves."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, count: int) -> list[int]:
        drawn: list[int] = torch.randint(low, high, (count,), generator=generator).tolist()
        return drawn

    stems = [draw(3, 354, 50) for _ in range(5)]
    return [[*stems[index % 5][: draw(20, 51, 1)[0]], *draw(3, 354, draw(1, 12, 1)[0])] for index in range(requests)]


def _preferences(count: int) -> list[Preference | None]:
    """The base, the vertices, and others."""
    draws = torch.rand(count - 4, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    others: list[list[float]] = (draws / draws.sum(dim=1, keepdim=True)).tolist()
    return [None, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), *map(tuple, others)]


def _equal_but_for_ties(first: Sequence[Completion], second: Sequence[Completion]) -> int:
    """Asserts equal tokens, up to where the two best logits are too close to tell; says how often that was."""
    ties = 0
    for mine, other in zip(first, second, strict=True):
        for position, (token, top) in enumerate(zip(mine.token_ids, mine.top_logprobs, strict=True)):
            if top[0][1] - top[1][1] < TIE:
                ties += 1
                break
            assert other.token_ids[position] == token
    return ties


@pytest.mark.slow
def test_two_hundred_prompts_under_twenty_preferences_with_and_without() -> None:
    prompts, preferences = _mix(200, seed=1), _preferences(20)
    assert len(set(preferences)) == 20
    params = SamplingParams(max_tokens=3, temperature=0, logprobs=2, ignore_eos=True)
    everything = [(prompt, preference) for prompt in prompts for preference in preferences]
    answers: list[list[Completion]] = []
    for prefix_cache in (False, True):
        engine = Engine.load(replace(CONFIG, prefix_cache=prefix_cache))
        answers.append(engine.generate(requests([p for p, _ in everything], [w for _, w in everything], params)))
        engine.check_integrity()
        stats = engine.stats
        assert (stats.prefix_hits > 0) == prefix_cache
    assert stats.prefix_queries == sum(map(len, prompts)) * 20
    assert stats.prefix_hits == sum(completion.cached_tokens for completion in answers[1])
    assert stats.prefix_hits > stats.prefix_queries // 2
    ties = _equal_but_for_ties(*answers)
    assert ties < len(everything) // 100, f"{ties} of {len(everything)} answers came too close to a tie"


@pytest.mark.slow
def test_eviction_and_preemption_change_no_token() -> None:
    prompts, preferences = sorted(_mix(20, seed=2)), _preferences(5)
    params = SamplingParams(max_tokens=12, temperature=0, logprobs=2, ignore_eos=True)
    # What is alike comes together: with room for three requests nothing stays for long.
    everything = [(prompt, preference) for preference in preferences for prompt in prompts]
    answers: list[list[Completion]] = []
    for prefix_cache in (False, True):
        config = replace(
            CONFIG, prefix_cache=prefix_cache, num_blocks=40, block_size=4, max_batch=6, max_step_tokens=40
        )
        engine = Engine.load(config)
        answers.append(engine.generate(requests([p for p, _ in everything], [w for _, w in everything], params)))
        engine.check_integrity()
        stats = engine.stats
        assert stats.preemptions > 0
        assert stats.free_blocks == 40
    assert stats.prefix_hits > 0
    assert _equal_but_for_ties(*answers) < 10


def test_golden_answers_go_on_from_cached_blocks_of_prompt_and_answer() -> None:
    engine = Engine.load(replace(CONFIG, block_size=4))
    params = SamplingParams(max_tokens=24, temperature=0)
    everything = [*golden("panacea"), *golden("base")]
    engine.generate(
        requests([entry.prompt_ids for entry in everything], [entry.preference for entry in everything], params)
    )
    hits = engine.stats.prefix_hits
    for entry in everything:
        known = [*entry.prompt_ids, *entry.greedy_ids[:-4]]
        (rest,) = engine.generate([Request(known, entry.preference, replace(params, max_tokens=4))])
        assert rest.token_ids == entry.greedy_ids[-4:]
        assert rest.cached_tokens == (len(known) - 1) // 4 * 4
    assert engine.stats.prefix_hits > hits
