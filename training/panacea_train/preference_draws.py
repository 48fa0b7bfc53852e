"""Random preferences for training."""

import numpy as np
from numpy.typing import NDArray


def sample_preferences(
    rng: np.random.Generator, count: int, dimensions: int, vertex_probability: float = 0.3, alpha: float = 1.0
) -> NDArray[np.float32]:
    """`count` points of the simplex, (count, dimensions) float32; each row is not negative and sums to 1.

    With `vertex_probability` a row is one of the vertices, all equally likely. Otherwise it comes from a symmetric
    Dirichlet distribution (`alpha` = 1: uniform on the simplex). The paper (arXiv 2402.02030) draws from the Dirichlet
    alone, where vertices have probability 0. But users ask for vertices first, and the dimensions differ most there.

    Raises `ValueError` for a probability outside [0, 1], or an alpha, count or number of dimensions out of range.
    """
    if not 0 <= vertex_probability <= 1:
        raise ValueError(f"vertex_probability is {vertex_probability}, not between 0 and 1")
    if alpha <= 0 or count < 0 or dimensions < 1:
        raise ValueError("alpha and dimensions must be positive, and count not negative")
    # All three are always drawn, so that a row does not depend on the values of earlier rows.
    is_vertex = rng.random(count) < vertex_probability
    vertices = np.eye(dimensions, dtype=np.float32)[rng.integers(dimensions, size=count)]
    interior = rng.dirichlet(np.full(dimensions, alpha), size=count).astype(np.float32)
    return np.where(is_vertex[:, None], vertices, interior)
