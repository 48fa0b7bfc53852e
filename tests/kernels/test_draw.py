"""Drawing tokens: both paths against a definition that sorts and counts in float64."""

import math
from itertools import product

import pytest
import torch

import panacea_kernels as pk
from panacea_kernels import Backend
from tests.full_products import cases
from tests.kernels.devices import DEVICE, poisoned_memory

# Triton 3.6's interpreter takes a loop's bounds from arrays of one element, of which numpy warns.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")

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


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "shape"),
    cases(
        [
            (torch.float32, (1, 7)),
            (torch.float32, (17, 97)),
            (torch.float16, (17, 97)),
            (torch.bfloat16, (33, 2049)),
            (torch.float32, (5, 5000)),
        ],
        product([torch.float32, torch.float16, torch.bfloat16], [(1, 7), (17, 97), (33, 2049), (5, 5000)]),
    ),
)
def test_rows_of_all_kinds_draw_what_the_definition_draws(
    backend: Backend, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    """Wherever the best score is clear of the second: the kernels' logarithms are float32's."""
    rows, size = shape
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


CUTS = [(0, 1.0), (2, 1.0), (0, 0.6), (3, 0.5)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "cut"),
    cases(
        [*product(["torch"], CUTS), ("triton", (0, 1.0)), ("triton", (3, 0.5))],
        product(BACKENDS, CUTS),
    ),
)
def test_draws_follow_the_cut_softmax(backend: Backend, cut: tuple[int, float]) -> None:
    top_k, top_p = cut
    probabilities = [0.4, 0.3, 0.15, 0.1, 0.05]
    logits = torch.tensor(probabilities).log()
    interpreted, searching = backend == "triton" and pk.interpreting(), bool(top_k) or top_p < 1
    count = (100 if searching else 500) if interpreted else 3000  # interpreted, a row takes 5 ms, and 30 to search
    keys = torch.randint(-(2**62), 2**62, (count,), generator=torch.Generator().manual_seed(3)).tolist()
    drawn = draw(backend, logits.expand(count, -1), [1.0] * count, [top_k] * count, [top_p] * count, keys)
    kept = kept_tokens(logits.tolist(), 1.0, top_k, top_p)
    total = sum(probabilities[token] for token in kept)
    distance = sum(
        abs(drawn.count(token) / count - (probabilities[token] / total if token in kept else 0)) for token in range(5)
    )
    assert distance / 2 < 1.8 / math.sqrt(count), "a right sampler stays below half of this on average"
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


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_logits_at_the_border_are_all_kept(backend: Backend) -> None:
    rows = 32
    logits = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0]).expand(rows, -1)
    keys = torch.randint(-(2**62), 2**62, (rows,), generator=torch.Generator().manual_seed(3)).tolist()
    assert set(draw(backend, logits, [1.0] * rows, [2] * rows, [1.0] * rows, keys)) == {0, 1, 2, 3}
    assert set(draw(backend, logits, [1.0] * rows, [0] * rows, [0.6] * rows, keys)) == {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_of_the_kth_have_their_share_of_the_probability_however_many_they_are(backend: Backend) -> None:
    """Ten likely tokens reach half of the probability of any twenty, but not with all the equals of the twentieth."""
    rows = 8
    logits = torch.zeros(rows, 9000)
    logits[:, :10] = 5
    assert 10 * math.exp(5) < 0.5 * (10 * math.exp(5) + 8990)
    assert any(token >= 10 for token in draw(backend, logits, [1.0] * rows, [20] * rows, [0.5] * rows, [*range(rows)]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("top_p", [1e-3, 1e-30, 1e-50])
def test_the_most_likely_token_stays_however_small_top_p_is(backend: Backend, top_p: float) -> None:
    """1e-50 is above 0, as the API asks for, and is 0 in float32."""
    logits = torch.linspace(0, 1, 60).roll(20).expand(5, -1)
    assert draw(backend, logits, [1.5] * 5, [0, 0, 0, 9, 9], [top_p] * 5, [*range(5)]) == [19] * 5


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_of_every_size_and_sign_are_told_apart(backend: Backend, dtype: torch.dtype) -> None:
    """Neighbours in the dtype, subnormals and both zeros among them: noise alone decides among so small numbers."""
    info = torch.finfo(dtype)
    # The interpreter of Triton 3.9 takes subnormal bfloat16 for zero; a GPU does not.
    least = info.smallest_normal * (1 if dtype == torch.bfloat16 and pk.interpreting() else info.eps)
    values = [-1e-3 * (1 + info.eps), -1e-3, -least, -0.0, 0.0, least, 2 * least, 1e-3, 1e-3 * (1 + info.eps)]
    logits = torch.tensor(values, dtype=dtype)[torch.randperm(9, generator=torch.Generator().manual_seed(5))]
    exact = logits.tolist()
    top_k = [1, 2, 3, 4, 5, 6, 7, 8] * 6
    rows = len(top_k)
    keys = torch.randint(-(2**62), 2**62, (rows,), generator=torch.Generator().manual_seed(4)).tolist()
    drawn = draw(backend, logits.expand(rows, -1), [1.0] * rows, top_k, [1.0] * rows, keys)
    for token, k, key in zip(drawn, top_k, keys, strict=True):
        scores = scores_of(exact, 1.0, k, 1.0, key)
        assert token == max(scores, key=lambda token: scores[token])
    assert len({*drawn}) >= 7


@pytest.mark.slow
def test_noise_of_the_old_formula_in_float64_draws_the_same_from_a_whole_vocabulary() -> None:
    """Seeds keep their meaning: argmax(logits / temperature - log(-log(u))) as the first sampler computed it."""
    rows, size, gamma, mix_1, mix_2 = 16, 151_936, -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, size, generator=generator) * 3
    keys = torch.randint(-(2**62), 2**62, (rows,), generator=generator)
    temperature = torch.linspace(0.3, 2, rows)

    def shifted(state: torch.Tensor, by: int) -> torch.Tensor:
        return (state >> by) & ((1 << (64 - by)) - 1)

    state = keys[:, None] + torch.arange(1, size + 1) * gamma
    state = (state ^ shifted(state, 30)) * mix_1
    state = (state ^ shifted(state, 27)) * mix_2
    uniform = (shifted(state ^ shifted(state, 31), 11).double() + 0.5) * 2.0**-53
    scores = logits.double() / temperature.double()[:, None] - torch.log(-torch.log(uniform))
    best = scores.topk(2, dim=-1)
    clear = best.values[:, 0] - best.values[:, 1] > 1e-5
    assert int(clear.sum()) >= rows - 1
    for backend in BACKENDS:
        few = 4 if backend == "triton" and pk.interpreting() else rows
        drawn = draw(backend, logits[:few], temperature[:few].tolist(), [0] * few, [1.0] * few, keys[:few].tolist())
        assert torch.equal(torch.tensor(drawn)[clear[:few]], best.indices[:few, 0][clear[:few]])


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
