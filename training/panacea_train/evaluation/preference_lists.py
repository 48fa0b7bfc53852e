"""Which preferences are evaluated: a grid over the simplex, or a list from a file."""

import json
from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any

from panacea.errors import ConfigError, PreferenceError
from panacea.preference import Preference, PreferenceSpace
from panacea_train.input_file import check_regular
from panacea_train.pareto import simplex_grid

MOST_POINTS = 1000
"""A larger number is probably a mistake: 1000 points and 100 prompts are 100,000 answers."""


def grid_of(space: PreferenceSpace, divisions: int) -> list[Preference]:
    """Every preference whose weights are multiples of 1 / `divisions`. Raises `ConfigError` where that is too many."""
    dimensions = len(space.dimensions)
    count = comb(divisions + dimensions - 1, dimensions - 1)
    if count > MOST_POINTS:
        raise ConfigError(
            f"--grid {divisions} is {count:,} points in {dimensions} dimensions, but at most {MOST_POINTS:,} are "
            "evaluated: choose a coarser grid, or list the points with --preferences"
        )
    return simplex_grid(dimensions, divisions)


def read_preferences(path: Path, space: PreferenceSpace) -> list[Preference]:
    """The preferences in a file: a JSON list of points, or a point on each line.

    A point is an object of weights by name, a list of weights, or the name of one of the adapter's presets.
    Raises `ConfigError` naming the point at fault.
    """
    check_regular(path)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"--preferences {path} is not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"--preferences {path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    chosen: dict[Preference, str] = {}
    for place, value in _points(path, text):
        try:
            preference = space.presets[value] if value in _preset_names(space, value) else space.resolve(value)
        except PreferenceError as error:
            presets = f"; presets: {', '.join(space.presets)}" if isinstance(value, str) and space.presets else ""
            raise ConfigError(f"--preferences {path}, {place}: {error}{presets}") from None
        if preference in chosen:
            raise ConfigError(f"--preferences {path}, {place} is the same preference as {chosen[preference]}")
        chosen[preference] = place
    if not chosen:
        raise ConfigError(f"--preferences {path} has no preference: write at least one point")
    if len(chosen) > MOST_POINTS:
        raise ConfigError(
            f"--preferences {path} has {len(chosen):,} points, but at most {MOST_POINTS:,} are evaluated: shorten it"
        )
    return list(chosen)


def _preset_names(space: PreferenceSpace, value: object) -> Sequence[str]:
    return tuple(space.presets) if isinstance(value, str) else ()


def _points(path: Path, text: str) -> list[tuple[str, Any]]:
    """Each point and its place in the file."""
    try:
        whole: Any = json.loads(text)
    except (ValueError, RecursionError):
        return [
            (f"line {number}", _parsed(path, number, line))
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip()
        ]
    # A list of numbers is a file of one line, and so is any other value that is not a list.
    if not isinstance(whole, list) or any(isinstance(entry, int | float) for entry in whole):
        return [("line 1", whole)]
    return [(f"point {number}", entry) for number, entry in enumerate(whole, 1)]


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        reason = f"is not valid JSON: {error.msg.lower()} at column {error.colno}"
    except (RecursionError, ValueError):
        reason = "is JSON that cannot be read"
    raise ConfigError(f"--preferences {path}, line {number}: {reason}") from None
