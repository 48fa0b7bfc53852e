"""What is drawn is what was measured: every picture is read back by its own axes, corners and legends."""

import math
from itertools import combinations, pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from scipy.stats import pearsonr

from panacea.evaluation import EvaluationPoint
from panacea_train.charts.number_text import number
from panacea_train.evaluation import load_evaluation
from panacea_train.pareto import simplex_grid
from panacea_train.report import render_report
from tests.report.made_up import DEMO, Named, made_up
from tests.report.reading import Element, dots, numbers, plain, read, scales

VERTICES = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]


def charts(page: Element) -> dict[str, Element]:
    """Of the first temperature."""
    return {each.one("figcaption").text: each for each in page.all("section")[0].all("figure", "chart")}


def check_front(chart: Element, points: list[EvaluationPoint], first: int, second: int) -> None:
    across, up = scales(chart)
    for (x, y), point in zip(dots(chart), points, strict=True):
        assert x == pytest.approx(point.rewards[first], abs=across.unit)
        assert y == pytest.approx(point.rewards[second], abs=up.unit)


@pytest.mark.parametrize(("unit", "least"), [(1.0, 0.2), (1e7, 0.2), (1.0, -3.0), (1.0, 1000.0), (40.0, -0.4)])
def test_dots_are_where_their_rewards_say(unit: float, least: float) -> None:
    run = made_up(unit=unit, least=least, reference=least)
    found = charts(read(render_report([run])))
    points = list(run.evaluation.sweeps[0].points)
    names = run.evaluation.dimensions
    assert list(found) == [f"{names[j]} over {names[i]}" for i, j in combinations(range(3), 2)]
    for first, second in combinations(range(3), 2):
        check_front(found[f"{names[second]} over {names[first]}"], points, first, second)


def test_bars_are_one_standard_error_to_each_side() -> None:
    run = made_up()
    chart = charts(read(render_report([run])))["harmless over helpful"]
    across, up = scales(chart)
    (bars,) = [chart.all("path", "bars")]
    for bar, point in zip(bars, run.evaluation.sweeps[0].points, strict=True):
        left, _, right, _, bottom, top = numbers(bar.attributes["d"])
        assert across.value(right) - across.value(left) == pytest.approx(2 * point.standard_errors[0], abs=across.unit)
        assert up.value(top) - up.value(bottom) == pytest.approx(2 * point.standard_errors[1], abs=up.unit)


def test_what_is_dominated_is_hollow() -> None:
    run = made_up(preferences=[(1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (0.2, 0.2)], dimensions=("a", "b"))
    chart = charts(read(render_report([run])))["b over a"]
    is_best = [point.non_dominated for point in run.evaluation.sweeps[0].points]
    assert is_best == [True, True, True, False]
    assert ["best" in dot.classes for dot in chart.all("path", "dot")] == is_best
    assert ["beaten" in dot.classes for dot in chart.all("path", "dot")] == [not each for each in is_best]


@pytest.mark.parametrize("divisions", [1, 4, 9])
@pytest.mark.parametrize("reference", [0.0, 0.1, -0.3])
def test_the_shaded_region_of_two_dimensions_has_the_hypervolume_as_its_area(divisions: int, reference: float) -> None:
    run = made_up(dimensions=("a", "b"), preferences=simplex_grid(2, divisions), reference=reference)
    chart = charts(read(render_report([run])))["b over a"]
    across, up = scales(chart)
    flat = numbers(chart.one("path", "region").attributes["d"])
    corners = [(across.value(x), up.value(y)) for x, y in zip(flat[::2], flat[1::2], strict=True)]
    following = corners[1:] + corners[:1]
    area = abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(corners, following, strict=True))) / 2
    assert area == pytest.approx(run.evaluation.sweeps[0].hypervolume, abs=1e-3)


@pytest.mark.parametrize("run", [made_up(), Named("demo", load_evaluation(DEMO))], ids=["made up", "demo"])
def test_the_edge_of_a_front_is_as_high_as_the_best_that_was_measured_further_right(run: Named) -> None:
    chart = charts(read(render_report([run])))["concise over harmless"]
    across, up = scales(chart)
    flat = numbers(chart.one("path", "steps").attributes["d"])
    corners = [(across.value(x), up.value(y)) for x, y in zip(flat[::2], flat[1::2], strict=True)]
    treads = [(a[0], b[0], a[1]) for a, b in pairwise(corners) if a[1] == b[1] and a[0] < b[0]]
    pairs = [(point.rewards[1], point.rewards[2]) for point in run.evaluation.sweeps[0].points]
    rightmost = max(x for x, _ in pairs)
    for index in range(200):
        x = across.values[0] + (rightmost - across.values[0]) * (index + 0.37) / 200
        (height,) = [y for start, end, y in treads if start <= x < end]
        assert height == pytest.approx(max(y for right, y in pairs if right >= x), abs=up.unit)


def test_vertices_have_labels() -> None:
    for chart in charts(read(render_report([made_up()]))).values():
        assert sorted(label.text for label in chart.all("text", "label")) == ["concise", "harmless", "helpful"]


def test_every_dot_tells_its_numbers() -> None:
    run = made_up()
    chart = charts(read(render_report([run])))["harmless over helpful"]
    first = chart.all("path", "dot")[1].one("title").text
    rewards = run.evaluation.sweeps[0].points[1].rewards
    assert first.startswith("asked for helpful 75%, harmless 25%. Rewards: helpful ")
    assert all(f"{value:.3f}" in first for value in rewards)


# Triangles.


def triangles(page: Element) -> dict[str, list[Element]]:
    """By the name of what is drawn, and of the model in a comparison."""
    found: dict[str, list[Element]] = {}
    for figure in page.all("figure"):
        if figure.all("svg", "ternary"):
            found.setdefault(figure.one("figcaption").text, []).append(figure)
    return found


def cells(triangle: Element) -> list[tuple[tuple[float, ...], str, str]]:
    """Preference, colour and text of each cell; preferences from the frame's corners."""
    flat = numbers(triangle.one("path", "frame").attributes["d"])
    (ax, ay), (bx, by), (cx, cy) = zip(flat[::2], flat[1::2], strict=True)
    found: list[tuple[tuple[float, ...], str, str]] = []
    for cell in triangle.all("g", "cell"):
        path = cell.one("path")
        outline = numbers(path.attributes["d"])
        x, y = sum(outline[::2]) / 6, sum(outline[1::2]) / 6
        whole = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
        first = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / whole
        second = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / whole
        text = cell.all("text")
        found.append(((first, second, 1 - first - second), path.attributes["fill"], text[0].text if text else ""))
    return found


def check_triangle(figure: Element, values: dict[tuple[float, ...], float], low: float, high: float) -> None:
    viridis = matplotlib.colormaps["viridis"]
    found = cells(figure)
    assert len(found) == len(values)
    for (place, colour, text), (preference, value) in zip(found, values.items(), strict=True):
        assert place == pytest.approx(preference, abs=1e-3)
        expected = viridis((value - low) / (high - low))[:3]
        assert max(abs(a - b) for a, b in zip(to_rgb(colour), expected, strict=True)) < 8 / 255
        if text:
            assert plain(text) == pytest.approx(value, rel=0.01)


def test_cells_are_where_their_preferences_are_and_have_their_rewards_colours() -> None:
    run = made_up()
    page = read(render_report([run]))
    found = triangles(page)
    rewards = [f"reward: {name}" for name in run.evaluation.dimensions]
    assert list(found) == [*rewards, "words per answer", "share of faithful sentences"]
    for index, name in enumerate(run.evaluation.dimensions):
        (figure,) = found[f"reward: {name}"]
        values = {point.preference: point.rewards[index] for point in run.evaluation.sweeps[0].points}
        low, high = min(values.values()), max(values.values())
        check_triangle(figure, values, low, high)
        assert [number(each, 3) for each in (low, high)] == [
            each for each in figure.one("p", "scale").words.split() if each[0].isdigit()
        ]


def test_models_share_their_maps_colours() -> None:
    strong, weak = made_up("strong", strength=0.7), made_up("weak", strength=0.2)
    found = triangles(read(render_report([weak, strong])))
    every = [point.rewards[0] for run in (strong, weak) for point in run.evaluation.sweeps[0].points]
    for run in (strong, weak):
        values = {point.preference: point.rewards[0] for point in run.evaluation.sweeps[0].points}
        check_triangle(found[run.name][0], values, min(every), max(every))


@pytest.mark.parametrize("preferences", [VERTICES, simplex_grid(3, 10), [*VERTICES, (0.31, 0.33, 0.36)], VERTICES[:1]])
def test_no_two_cells_overlap_and_nothing_is_drawn_elsewhere(preferences: list[tuple[float, ...]]) -> None:
    page = read(render_report([made_up(preferences=preferences)]))
    (figure,) = triangles(page)["reward: helpful"]
    outlines = [numbers(cell.one("path").attributes["d"]) for cell in figure.all("g", "cell")]
    centres = [(sum(each[::2]) / 6, sum(each[1::2]) / 6) for each in outlines]
    inner = [math.dist(each[:2], centre) * math.sqrt(3) / 2 for each, centre in zip(outlines, centres, strict=True)]
    assert len(centres) == len(preferences)
    for (one, a), (other, b) in combinations(zip(centres, inner, strict=True), 2):
        assert math.dist(one, other) >= a + b - 0.05
    assert len(figure.one("svg", "ternary").all("path")) == len(preferences) + 1, "the frame and the cells"


def test_faithfulness_that_nobody_told_is_not_drawn() -> None:
    page = read(render_report([made_up(is_told=False)]))
    assert "share of faithful sentences" not in page.text
    assert len(page.all("svg", "ternary")) == 3 + 1 + 1, "rewards, words and the colours' key"


def test_equal_values_have_one_colour_and_say_so() -> None:
    page = read(render_report([made_up(strength=0)]))
    (figure,) = triangles(page)["reward: helpful"]
    assert len({colour for _, colour, _ in cells(figure)}) == 1
    assert figure.one("p", "scale").words.endswith("0.200 everywhere")
    check_front(charts(page)["harmless over helpful"], list(made_up(strength=0).evaluation.sweeps[0].points), 0, 1)


# Other numbers of dimensions.


def test_one_dimension_has_no_front() -> None:
    page = read(render_report([made_up(dimensions=("only",))]))
    assert not charts(page)
    assert "With one dimension there is no trade-off to draw." in page.text


def test_two_dimensions_are_drawn_over_their_weights() -> None:
    run = made_up(dimensions=("warm", "brief"))
    found = charts(read(render_report([run])))
    assert next(iter(found)) == "brief over warm"
    assert len(found) == 1 + 2 + 2
    drawn = dots(found["reward: brief over weight: brief"])
    for (x, y), point in zip(drawn, run.evaluation.sweeps[0].points, strict=True):
        assert x == pytest.approx(point.preference[1], abs=1e-3)
        assert y == pytest.approx(point.rewards[1], abs=1e-3)


def test_five_dimensions_are_a_table_of_colours_and_the_six_pairs_that_conflict_most() -> None:
    run = made_up(dimensions=("a", "b", "c", "d", "e"))
    page = read(render_report([run]))
    assert len(charts(page)) == 6
    assert "5 dimensions make 10 pairs. Drawn are the 6" in page.text
    table = page.one("table", "heat")
    rows = table.all("tr")[1:]
    viridis = matplotlib.colormaps["viridis"]
    columns = list(zip(*(point.rewards for point in run.evaluation.sweeps[0].points), strict=True))
    for row, point in zip(rows, run.evaluation.sweeps[0].points, strict=True):
        shown = [plain(each.text) for each in row.all("td")]
        assert shown[:5] == pytest.approx(point.rewards, rel=0.01)
        for cell, value, column in zip(row.all("td"), point.rewards, columns, strict=False):
            expected = viridis((value - min(column)) / (max(column) - min(column)))[:3]
            drawn = to_rgb(cell.attributes["style"].removeprefix("background:")[:7])
            assert max(abs(a - b) for a, b in zip(drawn, expected, strict=True)) < 8 / 255


def test_the_pairs_that_are_drawn_have_the_lowest_correlations() -> None:
    draws = np.random.default_rng(0).dirichlet([0.4] * 5, size=20)
    run = made_up(dimensions=("a", "b", "c", "d", "e"), preferences=[tuple(each) for each in draws.tolist()])
    rewards = np.asarray([point.rewards for point in run.evaluation.sweeps[0].points])
    by_correlation = sorted(combinations(range(5), 2), key=lambda pair: pearsonr(*rewards[:, pair].T).statistic)
    expected = {f"{'abcde'[j]} over {'abcde'[i]}" for i, j in by_correlation[:6]}
    assert set(charts(read(render_report([run])))) == expected


# Comparisons.


def test_models_have_their_own_markers_in_charts_and_legend() -> None:
    runs = [made_up(name, strength=0.1 * index + 0.2) for index, name in enumerate("abcdef")]
    page = read(render_report(runs))
    chart = charts(page)["harmless over helpful"]
    looks = [(dot.attributes["d"], dot.attributes["fill"]) for dot in chart.all("path", "dot")]
    count = len(runs[0].evaluation.sweeps[0].points)
    assert len(looks) == 6 * count
    assert len(set(looks)) == len({shape for shape, _ in looks}) == len({colour for _, colour in looks}) == 6
    legend = {item.words: item.one("path") for item in page.one("ul", "legend").all("li")[:6]}
    for index, run in enumerate(runs):
        marker = legend[run.name].attributes
        assert set(looks[index * count : (index + 1) * count]) == {(marker["d"], marker["fill"])}


def test_measures_are_drawn_with_their_intervals() -> None:
    runs = [made_up("strong", strength=0.7), made_up("weak", strength=0.3)]
    page = read(render_report(runs))
    tile = next(each for each in page.all("li", "tile") if each.one("h4").text == "hypervolume")
    ticks = tile.all("text", "tick", "across")
    places = [float(tick.attributes["x"]) for tick in (ticks[0], ticks[-1])]
    values = [plain(tick.text) for tick in (ticks[0], ticks[-1])]

    def value(place: float) -> float:
        return values[0] + (place - places[0]) / (places[1] - places[0]) * (values[1] - values[0])

    for run, line in zip(runs, tile.all("g"), strict=True):
        sweep = run.evaluation.sweeps[0]
        low, _, high = numbers(line.one("path", "whisker").attributes["d"])[:3]
        middle, _ = numbers(line.one("path", "dot").attributes["transform"])
        assert [value(low), value(middle), value(high)] == pytest.approx(
            [sweep.hypervolume_interval[0], sweep.hypervolume, sweep.hypervolume_interval[1]], abs=2e-3
        )


def test_a_model_that_was_only_asked_at_the_vertices_is_drawn_there() -> None:
    whole, discrete = made_up("whole"), made_up("discrete", preferences=VERTICES)
    found = triangles(read(render_report([whole, discrete])))
    assert [place for place, _, _ in cells(found["discrete"][0])] == [
        pytest.approx(each, abs=1e-3) for each in VERTICES
    ]


@pytest.mark.parametrize("dimensions", [("only",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d")])
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e12])
def test_rewards_of_any_size_can_be_compared(dimensions: tuple[str, ...], unit: float) -> None:
    runs: list[Named] = [made_up(str(each), dimensions, unit=unit, strength=each) for each in (0.0, 0.4)]
    page = read(render_report(runs))
    assert "nan" not in page.text
    assert "inf" not in page.text
    for each in page.everything():
        assert "nan" not in each.attributes.get("d", "")
