"""Drawing tokens: both paths against a definition that sorts and counts in float64."""

import math

import pytest
import torch

import panacea_kernels as pk
from panacea_kernels import Backend
from tests.kernels.devices import DEVICE, poisoned_memory

BACKENDS: tuple[Backend, ...] = ("torch", "triton")
MASK = (1 << 64) - 1


def noise(key: int, token: int) -> float:
    """Gumbel noise by SplitMix64 in Python's integers and float64."""
    state = (key + (token + 1) * 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    state ^= state >> 31
    return -math.log(-math.log(((state >> 11) + 0.5) * 2.0**-53))


def kept_tokens(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[int]:
    """By sorting: at least the k-th largest, then the fewest that reach top_p; equals of the last one stay."""
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    if top_k:
        least = logits[order[min(top_k, len(order)) - 1]]
        order = [token for token in order if logits[token] >= least]
    if top_p < 1:
        weights = [math.exp((logits[token] - logits[order[0]]) / temperature) for token in order]
        reached, last = 0.0, order[-1]
        for token, weight in zip(order, weights, strict=True):
            reached += weight / sum(weights)
            if reached >= top_p:
                last = token
                break
        order = [token for token in order if logits[token] >= logits[last]]
    return order


def scores_of(logits: list[float], temperature: float, top_k: int, top_p: float, key: int) -> dict[int, float]:
    if temperature == 0:
        return dict(enumerate(logits))
    kept = kept_tokens(logits, temperature, top_k, top_p)
    return {token: logits[token] + temperature * noise(key, token) for token in kept}


def draw(
    backend: Backend,
    logits: torch.Tensor,
    temperature: list[float],
    top_k: list[int],
    top_p: list[float],
    keys: list[int],
) -> list[int]:
    with pk.use_backend(backend), poisoned_memory():
        drawn: list[int] = pk.draw(
            logits.to(DEVICE),
            torch.tensor(temperature, device=DEVICE),
            torch.tensor(top_k, dtype=torch.int32, device=DEVICE),
            torch.tensor(top_p, device=DEVICE),
            torch.tensor(keys, device=DEVICE),
        ).tolist()
    return drawn


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("rows", "size"), [(1, 7), (17, 97), (33, 2049), (5, 5000)])
def test_rows_of_all_kinds_draw_what_the_definition_draws(
    backend: Backend, dtype: torch.dtype, rows: int, size: int
) -> None:
    """Wherever the best score is clear of the second: the kernels' logarithms are float32's."""
    generator = torch.Generator().manual_seed(size)
    logits = (torch.randn(rows, size, generator=generator) * 3).to(dtype)
    temperature = torch.rand(rows, generator=generator).mul(1.5).tolist()
    top_k = torch.randint(0, 30, (rows,), generator=generator).tolist()
    top_p = torch.rand(rows, generator=generator).clamp_min(0.01).tolist()
    keys = torch.randint(-(2**62), 2**62, (rows,), generator=generator).tolist()
    for line in range(rows):
        temperature[line] = 0.0 if line % 5 == 4 else temperature[line]
        top_k[line] = [0, top_k[line], size + 3, 1][line % 4]
        top_p[line] = 1.0 if line % 3 == 0 else top_p[line]
    drawn = draw(backend, logits, temperature, top_k, top_p, keys)
    clear = 0
    for line in range(rows):
        scores = scores_of(logits[line].tolist(), temperature[line], top_k[line], top_p[line], keys[line])
        best = max(scores.values())
        near = [token for token, score in scores.items() if score > best - 1e-5]
        if temperature[line] == 0:
            near = [min(near)] if len({scores[token] for token in near}) == 1 else near
        assert drawn[line] in near
        clear += len(near) == 1
    assert clear >= 0.9 * rows, "nearly all rows have a clear winner, or this proves nothing"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (2, 1.0), (0, 0.6), (3, 0.5)])
def test_draws_follow_the_cut_softmax(backend: Backend, top_k: int, top_p: float) -> None:
    probabilities = [0.4, 0.3, 0.15, 0.1, 0.05]
    logits = torch.tensor(probabilities).log()
    interpreted_search = backend == "triton" and (top_k or top_p < 1) and pk.interpreting()
    count = 150 if interpreted_search else 3000  # the interpreter takes 35 ms a row to search
    keys = torch.randint(-(2**62), 2**62, (count,), generator=torch.Generator().manual_seed(3)).tolist()
    drawn = draw(backend, logits.expand(count, -1), [1.0] * count, [top_k] * count, [top_p] * count, keys)
    kept = kept_tokens(logits.tolist(), 1.0, top_k, top_p)
    total = sum(probabilities[token] for token in kept)
    distance = sum(
        abs(drawn.count(token) / count - (probabilities[token] / total if token in kept else 0)) for token in range(5)
    )
    assert distance / 2 < (0.12 if interpreted_search else 0.03)
    assert set(drawn) == set(kept)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_draws_the_same_alone_and_in_any_company(backend: Backend) -> None:
    logits = torch.randn(9, 3000, generator=torch.Generator().manual_seed(0))
    temperature, top_k, top_p = [0.9] * 9, [0, 40, 0] * 3, [1.0, 1.0, 0.8] * 3
    keys = list(range(9))
    together = draw(backend, logits, temperature, top_k, top_p, keys)
    for line in range(9):
        one = slice(line, line + 1)
        assert draw(backend, logits[one], temperature[one], top_k[one], top_p[one], keys[one]) == [together[line]]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy, in the interpreter
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 0.9)])
def test_what_is_banned_never_comes_and_broken_rows_disturb_no_other(
    backend: Backend, temperature: float, top_k: int, top_p: float
) -> None:
    logits = torch.zeros(4, 100)
    logits[0, :99] = -torch.inf
    logits[1] = torch.nan
    logits[2, 5] = torch.nan
    logits[3, 50] = 60
    drawn = draw(backend, logits, [temperature] * 4, [top_k] * 4, [top_p] * 4, [1, 2, 3, 4])
    assert drawn[0] == 99
    assert drawn[3] == 50
    assert all(0 <= token < 100 for token in drawn)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_logits_at_the_border_are_all_kept(backend: Backend) -> None:
    rows = 60
    logits = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0]).expand(rows, -1)
    keys = torch.randint(-(2**62), 2**62, (rows,), generator=torch.Generator().manual_seed(3)).tolist()
    assert set(draw(backend, logits, [1.0] * rows, [2] * rows, [1.0] * rows, keys)) == {0, 1, 2, 3}
    assert set(draw(backend, logits, [1.0] * rows, [0] * rows, [0.6] * rows, keys)) == {0, 1, 2, 3}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_of_equal_scores_wins_across_the_whole_vocabulary(backend: Backend) -> None:
    logits = torch.zeros(2, 6000)
    logits[:, [4100, 4099, 5999]] = 3.0
    assert draw(backend, logits, [0.0] * 2, [0, 1], [1.0, 0.5], [1, 2]) == [4099, 4099]


def test_it_is_always_the_same_three_launches() -> None:
    """So that a step's launches do not depend on what its requests ask for."""
    for top_k, top_p, temperature in ((0, 1.0, 0.0), (5, 0.5, 1.0)):
        with pk.record_launches() as names:
            draw("triton", torch.zeros(2, 50), [temperature] * 2, [top_k] * 2, [top_p] * 2, [1, 2])
        assert names == ["_threshold_kernel", "_score_kernel", "_pick_kernel"]
