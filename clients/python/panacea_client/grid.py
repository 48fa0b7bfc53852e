"""A regular grid of preferences."""

from collections.abc import Iterator, Sequence


def preference_grid(
    dimensions: Sequence[str], steps: int = 5, between: tuple[str, str] | None = None
) -> list[dict[str, float]]:
    """The preferences of a sweep, each with sum 1, in the order of its answers.

    `steps` is the number of points on an edge, including both ends. Two dimensions give `steps` preferences. Three give
    `steps * (steps + 1) / 2`, which is 15 for 5. The first one is the first dimension's vertex, and the last one is the
    last dimension's. `between` names two dimensions, and limits the grid to the edge between them.

    >>> preference_grid(["helpful", "concise"], steps=3)
    [{'helpful': 1.0, 'concise': 0.0}, {'helpful': 0.5, 'concise': 0.5}, {'helpful': 0.0, 'concise': 1.0}]

    Raises `ValueError` for fewer than two steps, for no dimensions, and if `between` is not a pair of dimensions.
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}, but it must be at least 2: the ends of an edge")
    if not dimensions:
        raise ValueError("the server has a base model without adapter, so it has no preferences to sweep over")
    if between is not None and (len(set(between)) != 2 or not set(between) <= set(dimensions)):
        raise ValueError(f"between must name two different dimensions of: {', '.join(dimensions)}")
    swept = dimensions if between is None else between
    zeros = dict.fromkeys(dimensions, 0.0)
    return [
        zeros | {name: part / (steps - 1) for name, part in zip(swept, parts, strict=True)}
        for parts in _compositions(steps - 1, len(swept))
    ]


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as a sum of `parts` numbers, in descending lexicographic order."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)
