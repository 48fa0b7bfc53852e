"""Tenants that always want more get equal numbers of tokens, whatever the number and length of their answers."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.scheduler import Scheduler
from panacea.engine.sequence import Sequence
from tests.engine.fake_model import IDENTITY


@dataclass(frozen=True)
class Habit:
    """What a tenant always has open."""

    answers: int
    prompt: int
    tokens: int


@dataclass
class Run:
    """A scheduler whose model is a clock: each step takes as long as any other."""

    scheduler: Scheduler
    served: Counter[str] = field(default_factory=Counter[str])
    """Tokens of each tenant: of prompts, if they were computed, and of answers."""
    finished: list[Sequence] = field(default_factory=list[Sequence])
    numbers: Iterator[int] = field(default_factory=count)

    def ask(self, tenant: str, prompt: int, tokens: int) -> Sequence:
        number = next(self.numbers)
        prompt_ids = [number, *range(1, prompt)]
        sequence = Sequence(str(number), Request(prompt_ids, None, SamplingParams(max_tokens=tokens), tenant=tenant))
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> None:
        work = self.scheduler.schedule()
        sampling = [item.sequence for item in work if item.samples]
        self.scheduler.advance(work)
        for item in work:
            prompt = len(item.sequence.request.prompt_ids)
            self.served[item.sequence.request.tenant] += max(0, min(item.start + item.count, prompt) - item.start)
        for sequence in sampling:
            self.served[sequence.request.tenant] += 1
            self.scheduler.append_token(sequence, 7)
            if sequence.is_complete:
                self.scheduler.remove(sequence)
                self.finished.append(sequence)

    def finish(self) -> None:
        """Steps until nothing is left to do."""
        for _ in range(5000):
            if not self.scheduler.has_work:
                return
            self.step()
        raise AssertionError("some sequences never finish")

    def keep(self, habits: dict[str, Habit], steps: int) -> None:
        """So many steps in which each tenant has always as many answers open as is its habit."""
        for _ in range(steps):
            present = Counter(each.request.tenant for each in (*self.scheduler.running, *self.scheduler.waiting))
            for tenant, habit in habits.items():
                for _ in range(habit.answers - present[tenant]):
                    self.ask(tenant, habit.prompt, habit.tokens)
            self.step()
        self.scheduler.check_integrity()


def new_run(max_batch: int = 8, num_blocks: int = 4000, *, cached: bool = False) -> Run:
    return Run(Scheduler(num_blocks, 4, max_batch, 256, 4000, IDENTITY if cached else None))


@pytest.mark.parametrize(
    ("greedy", "modest"),
    [
        pytest.param(Habit(16 * 8, 3, 200), Habit(8, 3, 10), id="n=16 of long answers and single short ones"),
        pytest.param(Habit(64, 3, 100), Habit(8, 3, 100), id="many answers and few"),
        pytest.param(Habit(16, 200, 2), Habit(16, 3, 20), id="long prompts and long answers"),
    ],
)
def test_nobody_gets_more_by_asking_for_more(greedy: Habit, modest: Habit) -> None:
    run = new_run()
    run.keep({"a": greedy, "b": modest}, 3000)
    assert 0.85 < run.served["a"] / run.served["b"] < 1.18, run.served


def test_a_modest_tenants_single_requests_wait_for_one_answer_to_end_and_not_for_the_backlog() -> None:
    run = new_run()
    run.keep({"a": Habit(128, 3, 200)}, 150)
    alone = Habit(1, 3, 20)
    run.keep({"a": Habit(128, 3, 200), "b": alone}, 3000)
    # Each of its answers waits for one of the eight to end: they end every 200 steps at the same time, at worst.
    assert run.served["b"] > 3000 / (200 + 23) * 22, run.served


HABITS = st.builds(Habit, st.integers(8, 20), st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=25, deadline=None)
@given(st.lists(HABITS, min_size=2, max_size=4))
def test_shares_differ_by_what_a_batch_holds_and_never_by_more(habits: list[Habit]) -> None:
    run = new_run()
    tenants = {str(number): habit for number, habit in enumerate(habits)}
    run.keep(tenants, 400)
    longest = max(habit.prompt + habit.tokens for habit in habits)
    assert max(run.served.values()) - min(run.served.values()) <= 2 * 8 * longest


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 30), st.integers(1, 30), st.integers(0, 3)),
        min_size=1,
        max_size=40,
    )
)
def test_everybody_is_served_in_their_tenants_order_with_preemption_too(
    asked: list[tuple[str, int, int, int]],
) -> None:
    run = new_run(num_blocks=24)
    order: dict[str, list[Sequence]] = {}
    for tenant, prompt, tokens, steps in asked:
        order.setdefault(tenant, []).append(run.ask(tenant, prompt, tokens))
        for _ in range(steps):
            run.step()
    run.finish()
    run.scheduler.check_integrity()
    assert len(run.finished) == len(asked)
    for sequences in order.values():
        starts = [sequence.started_at or 0.0 for sequence in sequences]
        assert starts == sorted(starts)


def test_a_tenant_that_was_away_saved_up_nothing() -> None:
    run = new_run()
    habit = Habit(32, 3, 50)
    run.keep({"a": habit, "b": habit}, 300)
    run.keep({"a": habit}, 1000)
    before = Counter(run.served)
    run.keep({"a": habit, "b": habit}, 1000)
    gained = {tenant: run.served[tenant] - before[tenant] for tenant in "ab"}
    assert 0.8 < gained["a"] / gained["b"] < 1.25, gained


def test_a_stream_of_new_tenants_does_not_keep_an_old_one_waiting() -> None:
    run = new_run(max_batch=2)
    for number in range(20):
        run.ask(f"early {number}", 3, 20)
    waits = run.ask("waits", 3, 5)
    # Two places, and twenty answers of twenty steps before it; what came later comes later.
    for number in range(20 * 21 // 2 + 20):
        run.ask(f"late {number}", 1, 1)
        run.step()
    assert waits in run.finished


def test_what_the_prefix_cache_has_costs_nothing() -> None:
    run = new_run(max_batch=1, cached=True)
    queue = run.scheduler.waiting
    for prompt_ids in ([1] * 40, [1] * 40, [2] * 40):
        sequence = Sequence(str(prompt_ids), Request(prompt_ids, None, SamplingParams(max_tokens=1), tenant="a"))
        other = Sequence("other", Request([3] * 30, None, SamplingParams(max_tokens=1), tenant="b"))
        run.scheduler.add(sequence)
        run.scheduler.add(other)
        run.finished.clear()
        before = Counter(run.served)
        run.finish()
        assert sequence.cached_tokens + run.served["a"] - before["a"] == 40 + 1
    assert sequence.cached_tokens == 0
    assert not len(queue)


def test_an_idle_engine_remembers_no_tenant() -> None:
    run = new_run()
    for number in range(100):
        run.ask(f"tenant {number}", 3, 2)
        run.finish()
    assert not run.scheduler.waiting._served  # pyright: ignore[reportPrivateUsage]
