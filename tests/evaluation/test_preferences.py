"""Which preferences are asked: grids and files, in the words of the adapter's own space."""

import json
from itertools import product
from pathlib import Path

import pytest

from panacea.errors import ConfigError
from panacea.preference import Dimension, PreferenceSpace
from panacea_train.evaluation.preference_lists import MOST_POINTS, grid_of, read_preferences
from panacea_train.pareto import simplex_grid

SPACE = PreferenceSpace((Dimension("helpful"), Dimension("concise")), (0.5, 0.5), {"brief": (1, 3)})


def space_of(dimensions: int) -> PreferenceSpace:
    return PreferenceSpace(tuple(Dimension(f"d{i}") for i in range(dimensions)), (1.0,) * dimensions)


@pytest.mark.parametrize(("dimensions", "divisions"), list(product(range(1, 6), range(1, 6))))
def test_a_grid_is_every_point_in_descending_order(dimensions: int, divisions: int) -> None:
    counts = [counts for counts in product(range(divisions, -1, -1), repeat=dimensions) if sum(counts) == divisions]
    assert simplex_grid(dimensions, divisions) == [tuple(c / divisions for c in row) for row in counts]


def test_grids_of_absurd_size_are_refused_at_once() -> None:
    assert len(grid_of(space_of(20), 2)) == 210
    with pytest.raises(ConfigError, match=r"--grid 1000000 is 500,001,500,001 points in 3 dimensions.*--preferences"):
        grid_of(space_of(3), 1_000_000)


@pytest.mark.parametrize(
    "content",
    [
        '[{"helpful": 2, "concise": 2}, [0, 1], "brief"]',
        '{"helpful": 2, "concise": 2}\n\n[0, 1]\n"brief"\n',
        '\ufeff[\n  [0.5, 0.5],\n  {"concise": 7},\n  {"helpful": 1, "concise": 3}\n]',
    ],
    ids=["list", "lines", "pretty list"],
)
def test_points_have_names_or_an_order_or_are_presets(tmp_path: Path, content: str) -> None:
    path = tmp_path / "points.json"
    path.write_text(content, "utf-8")
    assert read_preferences(path, SPACE) == [(0.5, 0.5), (0.0, 1.0), (0.25, 0.75)]


def test_a_single_point_is_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    for content in ("[1, 3]", '{"helpful": 1, "concise": 3}', '"brief"'):
        path.write_text(content, "utf-8")
        assert read_preferences(path, SPACE) == [(0.25, 0.75)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no preference"),
        ("[]", "has no preference"),
        ("[[0.5, 0.5], [1, 1]]", "point 2 is the same preference as point 1"),
        ('[1, 3]\n{"helpful": 1', r"line 2: is not valid JSON: .* at column"),
        ("[[0.5, 0.5], [1]]", "point 2: preference has 1 weights instead of 2"),
        ('[{"kind": 1}]', "point 1: .*unknown dimension 'kind'.*helpful, concise"),
        ('["bref"]', "point 1: .*presets: brief"),
        ("[[-1, 2]]", r"point 1: preference\.helpful must be between 0"),
        ("[[NaN, 2]]", r"point 1: preference\.helpful must be between 0"),
        ("[[0, 0]]", "point 1: preference has no weight above 0"),
        ("[null]", "point 1: preference must be an object or an array"),
        (json.dumps([[i, 1] for i in range(MOST_POINTS + 1)]), "has 1,001 points, but at most 1,000"),
    ],
)
def test_what_is_no_preference_is_told_by_its_place(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "points.json"
    path.write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=message) as raised:
        read_preferences(path, SPACE)
    assert str(raised.value).startswith(f"--preferences {path}")


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: no such file"):
        read_preferences(tmp_path / "nowhere.json", SPACE)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_preferences(tmp_path / "binary", SPACE)
