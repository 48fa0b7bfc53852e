"""Preferences drawn for training."""

import numpy as np
import pytest

from panacea_train.preference_draws import sample_preferences


def test_rows_lie_on_the_simplex() -> None:
    drawn = sample_preferences(np.random.default_rng(0), 5000, 3)
    assert drawn.shape == (5000, 3)
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0
    np.testing.assert_allclose(drawn.sum(axis=1), 1, atol=1e-6)


def test_vertices_come_up_as_often_as_asked_and_equally() -> None:
    drawn = sample_preferences(np.random.default_rng(0), 20_000, 3, vertex_probability=0.3)
    vertices = drawn[drawn.max(axis=1) == 1]
    # Five standard deviations of a binomial share.
    assert len(vertices) / len(drawn) == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / 20_000) ** 0.5)
    np.testing.assert_allclose(vertices.mean(axis=0), 1 / 3, atol=5 * (2 / 9 / len(vertices)) ** 0.5)


@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_the_interior_has_the_dirichlet_distributions_moments(alpha: float) -> None:
    drawn = sample_preferences(np.random.default_rng(0), 50_000, 4, vertex_probability=0, alpha=alpha)
    np.testing.assert_allclose(drawn.mean(axis=0), 1 / 4, atol=0.01)
    # Var = a (S - a) / (S^2 (S + 1)) with S = 4 a.
    np.testing.assert_allclose(drawn.var(axis=0), 3 / 16 / (4 * alpha + 1), rtol=0.05)


def test_vertices_only_and_a_single_dimension() -> None:
    assert sample_preferences(np.random.default_rng(0), 50, 3, vertex_probability=1).max(axis=1).min() == 1
    assert (sample_preferences(np.random.default_rng(0), 5, 1) == 1).all()


def test_the_generator_decides() -> None:
    first, again, other = (sample_preferences(np.random.default_rng(seed), 16, 3) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    "wrong", [{"vertex_probability": -0.1}, {"vertex_probability": 1.1}, {"alpha": 0}, {"dimensions": 0}, {"count": -1}]
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    arguments = {"count": 2, "dimensions": 3} | wrong
    with pytest.raises(ValueError, match=r"is|must be"):
        sample_preferences(np.random.default_rng(0), **arguments)  # type: ignore[arg-type]
