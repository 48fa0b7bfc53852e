"""What every bench's result must be."""

import math
import re
from collections.abc import Iterator
from typing import Any


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and string of a result, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def assert_times_are_finite_and_positive(result: dict[str, Any]) -> None:
    """All microseconds, seconds, rates and shares; differences may have any sign."""
    seen = 0
    for path, value in leaves(result):
        keys = re.split(r"[.\[\]]", path)
        if not isinstance(value, int | float) or "over_" in path:
            continue
        assert math.isfinite(value), path
        assert value >= 0, path
        if any(key == "us" or key.endswith(("_us", "seconds", "per_s")) for key in keys):
            assert value > 0, path
            seen += 1
    assert seen > 5


def assert_says_where_it_ran(result: dict[str, Any]) -> None:
    machine = result["machine"]
    assert all(machine[name] for name in ("device", "name", "clock", "torch", "transformers", "python", "date"))
    if machine["device"] == "cpu":
        assert "shows that it runs" in machine["clock"]
