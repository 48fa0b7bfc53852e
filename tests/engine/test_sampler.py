import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from panacea.engine.adjustments import Adjustments
from panacea.engine.sampler import Sampled, choose
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.sampling_row import SamplingRow
from panacea_kernels.reference.sampling import _most_likely, gumbel_noise  # pyright: ignore[reportPrivateUsage]

PLAIN = SamplingParams(max_tokens=1)


def sample(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[Sampled]:
    return choose(logits, rows, Adjustments(1, logits.shape[1], logits.device)).result()


def row(position: int = 0, banned: tuple[int, ...] = (), **params: object) -> SamplingRow:
    return SamplingRow(replace(PLAIN, **params), position, banned)  # type: ignore[arg-type]


def counts_of(logits: torch.Tensor, draws: int = 20_000, **params: object) -> Counter[int]:
    rows = [row(position, **params) for position in range(draws)]  # type: ignore[arg-type]
    return Counter(sampled.token_id for sampled in sample(logits.expand(draws, -1), rows))


def assert_distribution(counts: Counter[int], probabilities: list[float]) -> None:
    """Chi-squared with a bound that a right sampler exceeds once in about 1e6 seeds; the seed here is fixed."""
    draws = sum(counts.values())
    possible = [(counts[token], p * draws) for token, p in enumerate(probabilities) if p]
    assert all(counts[token] == 0 for token, p in enumerate(probabilities) if not p)
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in possible)
    freedom = len(possible) - 1
    assert statistic < freedom + 6 * math.sqrt(2 * max(freedom, 1)) + 10


LOGITS = torch.log(torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05]))


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {}, {"top_k": 2, "top_p": 0.5}, {"min_p": 0.5}])
@pytest.mark.parametrize("logprobs", [None, 1])
def test_broken_rows_say_so_and_their_neighbours_are_drawn_as_ever(
    params: dict[str, Any], logprobs: int | None
) -> None:
    broken, overflown = torch.full_like(LOGITS, math.nan), LOGITS.clone()
    overflown[2] = math.inf
    rows = [row(position, logprobs=logprobs, **params) for position in range(4)]
    sampled = sample(torch.stack([LOGITS, broken, LOGITS, overflown]), rows)
    assert [each.finite for each in sampled] == [True, False, True, False]
    assert sampled[::2] == sample(torch.stack([LOGITS, LOGITS]), rows[::2])


def test_log_probabilities_that_are_no_numbers_are_broken_too() -> None:
    overflown = LOGITS.clone()
    overflown[2] = math.inf
    (sampled,) = sample(overflown[None], [row(banned=(2,), logprobs=1)])  # another token, and a share of infinity
    assert sampled.token_id != 2
    assert not sampled.finite


def test_draws_follow_the_softmax() -> None:
    assert_distribution(counts_of(LOGITS), [0.4, 0.3, 0.15, 0.1, 0.05])


def test_draws_follow_the_softmax_at_a_temperature() -> None:
    powers = [p**2 for p in (0.4, 0.3, 0.15, 0.1, 0.05)]
    assert_distribution(counts_of(LOGITS, temperature=0.5), [p / sum(powers) for p in powers])


def test_top_k_keeps_the_k_most_likely() -> None:
    assert_distribution(counts_of(LOGITS, top_k=2), [4 / 7, 3 / 7, 0, 0, 0])


@pytest.mark.slow
def test_top_p_keeps_tokens_until_their_sum_reaches_p() -> None:
    assert_distribution(counts_of(LOGITS, top_p=0.75), [0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85, 0, 0])
    assert_distribution(counts_of(LOGITS, top_p=0.0001), [1, 0, 0, 0, 0])


def test_top_p_counts_what_top_k_left() -> None:
    # Of the two left, 4/7 is below 0.6, so the second is needed; and it suffices.
    assert_distribution(counts_of(LOGITS, top_k=3, top_p=0.6), [4 / 7, 3 / 7, 0, 0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [5, 7, 10**9])
def test_a_top_k_beyond_the_vocabulary_keeps_all(top_k: int) -> None:
    assert_distribution(counts_of(LOGITS, top_k=top_k), [0.4, 0.3, 0.15, 0.1, 0.05])


def test_choices_and_seeds_differ_and_are_independent_of_the_batch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(50, 400)
    rows = [row(position, seed=seed, choice=choice) for position in range(5) for seed in (1, 2) for choice in range(5)]
    together = [sampled.token_id for sampled in sample(logits, rows)]
    alone = [sample(logits[i : i + 1], [rows[i]])[0].token_id for i in range(50)]
    assert together == alone
    same_logits = sample(logits[:1].expand(50, -1), rows)
    assert len({sampled.token_id for sampled in same_logits}) > 20
    backwards = sample(logits.flip(0), rows[::-1])
    assert [sampled.token_id for sampled in backwards] == together[::-1]


def test_noise_is_gumbel_and_never_infinite() -> None:
    keys = torch.tensor([0, 1, -(2**63), -1])
    noise = gumbel_noise(keys[:, None], torch.arange(50_000))
    assert torch.isfinite(noise).all()
    for line in noise:
        assert abs(line.mean() - 0.5772) < 0.03
        assert abs(line.var() - math.pi**2 / 6) < 0.06
    correlation = torch.corrcoef(noise)
    assert (correlation - torch.eye(4)).abs().max() < 0.03


def test_greedy_rows_take_the_first_of_equal_logits_and_share_a_batch_with_others() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0]]).expand(2, -1)
    greedy, _ = sample(logits, [row(temperature=0), row(temperature=1.0, seed=5)])
    assert greedy.token_id == 1


@pytest.mark.parametrize("temperature", [1e-8, 1e-3])
def test_a_temperature_near_zero_is_greedy_and_finite(temperature: float) -> None:
    logits = torch.tensor([[1.0, 80.0, 79.0, -80.0]])
    assert {sample(logits, [row(i, temperature=temperature)])[0].token_id for i in range(20)} == {1}


def test_banned_tokens_never_come_and_logprobs_do_not_know_of_the_ban() -> None:
    for temperature in (0.0, 1.0):
        tokens = [sample(LOGITS[None], [row(i, (0, 1), temperature=temperature, logprobs=1)])[0] for i in range(50)]
        assert {token.token_id for token in tokens} <= {2, 3, 4}
        token_id, logprob = tokens[0].top_logprobs[0]
        assert token_id == 0
        assert logprob == pytest.approx(math.log(0.4), abs=1e-5)


def test_logprobs_are_the_models_own_whatever_the_temperature() -> None:
    logits = torch.stack([LOGITS, LOGITS, LOGITS])
    rows = [row(temperature=0, logprobs=2), row(temperature=0.1, logprobs=0), row(temperature=0)]
    first, second, third = sample(logits * 1.0, rows)
    assert first.logprob == pytest.approx(math.log(0.4), abs=1e-5)
    assert [token for token, _ in first.top_logprobs] == [0, 1]
    assert second.logprob == pytest.approx(math.log([0.4, 0.3, 0.15, 0.1, 0.05][second.token_id]), abs=1e-5)
    assert second.top_logprobs == ()
    assert (third.logprob, third.top_logprobs) == (None, ())


def written_out(logits: torch.Tensor, top_k: int, top_p: float) -> set[int]:
    """The tokens that top-k and top-p keep, by sorting everything."""
    order = sorted(range(len(logits)), key=lambda token: -float(logits[token]))[: top_k or len(logits)]
    weights = [math.exp(float(logits[token])) for token in order]
    kept: set[int] = set()
    reached = 0.0
    for token, weight in zip(order, weights, strict=True):
        if kept and reached >= top_p * sum(weights):
            break
        kept.add(token)
        reached += weight
    return kept


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.5), (0, 0.99), (30, 1.0), (30, 0.6), (2000, 0.9), (1500, 1.0)])
@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0])
def test_large_vocabularies_keep_the_same_tokens_as_a_full_sort(top_k: int, top_p: float, spread: float) -> None:
    """Flat distributions need more tokens than are looked at first; peaked ones fewer."""
    logits = torch.randn(3000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * spread
    kept, token_ids = _most_likely(
        logits.expand(2, -1), torch.ones(2), torch.tensor([top_k, 3]), torch.tensor([top_p, 1.0], dtype=torch.float64)
    )
    first = {int(token) for token, value in zip(token_ids[0], kept[0], strict=True) if value > -math.inf}
    assert first == written_out(logits, top_k, top_p)
    second = {int(token) for token, value in zip(token_ids[1], kept[1], strict=True) if value > -math.inf}
    assert second == written_out(logits, 3, 1.0)
