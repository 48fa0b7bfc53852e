"""Preferences spread evenly over a space."""

from collections.abc import Iterator, Sequence


def preference_grid(
    dimensions: Sequence[str], steps: int = 5, between: tuple[str, str] | None = None
) -> list[dict[str, float]]:
    """The preferences that a sweep asks for, each with sum 1, in the order of its answers.

    `steps` is the number of points on an edge, both ends included: two dimensions give `steps` preferences, three give
    `steps * (steps + 1) / 2`, which is 15 for 5. They begin at the first dimension's vertex and end at the last one's.
    `between` names two of the dimensions and gives the edge between them alone.

    >>> preference_grid(["helpful", "concise"], steps=3)
    [{'helpful': 1.0, 'concise': 0.0}, {'helpful': 0.5, 'concise': 0.5}, {'helpful': 0.0, 'concise': 1.0}]

    Raises `ValueError` for fewer than two steps, without dimensions, and if `between` is no pair of them.
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}; an edge has at least its 2 ends")
    if not dimensions:
        raise ValueError("the server has a base model without adapter: it has no preferences to sweep over")
    if between is not None and (len(set(between)) != 2 or not set(between) <= set(dimensions)):
        raise ValueError(f"between must name two different ones of the dimensions: {', '.join(dimensions)}")
    swept = dimensions if between is None else between
    zeros = dict.fromkeys(dimensions, 0.0)
    return [
        zeros | {name: part / (steps - 1) for name, part in zip(swept, parts, strict=True)}
        for parts in _compositions(steps - 1, len(swept))
    ]


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as a sum of `parts` ordered numbers, the first ones large first."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)
