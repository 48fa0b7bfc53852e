"""Arithmetic of preferences, against an oracle that shares no code and no language with it."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest

from tests.web.modules import CallModule

TOTAL = 1000
CORNERS = np.array([(0.5, 0), (0, math.sqrt(3) / 2), (1, math.sqrt(3) / 2)])

Preference = list[int]


def quotas(weights: list[float], total: int) -> list[Fraction]:
    """Exact shares; equal ones if nothing has a weight."""
    whole = sum(map(Fraction, weights))
    return [Fraction(weight) / whole * total if whole else Fraction(total, len(weights)) for weight in weights]


def largest_remainder(weights: list[float], total: int) -> list[int]:
    exact = quotas(weights, total)
    result = [math.floor(quota) for quota in exact]
    order = sorted(range(len(exact)), key=lambda index: (result[index] - exact[index], index))
    for index in order[: total - sum(result)]:
        result[index] += 1
    return result


def random_weights(generator: random.Random) -> list[float]:
    size = generator.randint(1, 7)
    kind = generator.randrange(4)
    if kind == 0:
        return [float(generator.randint(0, 3)) for _ in range(size)]
    if kind == 1:
        return [float(generator.randint(0, TOTAL)) for _ in range(size)]
    if kind == 2:
        return [generator.random() for _ in range(size)]
    return [10 ** generator.uniform(-9, 9) * generator.randint(0, 1) for _ in range(size)]


def random_preference(generator: random.Random, size: int) -> Preference:
    """Also with zeros, and all of one."""
    weights = [generator.choice((0, 1, 1, 5)) * generator.random() for _ in range(size)]
    return largest_remainder(weights, TOTAL)


def nearest_in_triangle(point: tuple[float, float]) -> list[float]:
    """Weights of the triangle's point nearest to `point`, found among itself and its feet on the three sides."""
    position = np.array(point)
    weights = np.linalg.solve(np.vstack([CORNERS.T, np.ones(3)]), np.array([*point, 1.0]))
    if (weights >= 0).all():
        return list(weights)
    candidates: list[tuple[float, list[float]]] = []
    for first, second in itertools.combinations(range(3), 2):
        side = CORNERS[second] - CORNERS[first]
        part = float(np.clip(side @ (position - CORNERS[first]) / (side @ side), 0, 1))
        away = float(np.linalg.norm(CORNERS[first] + part * side - position))
        on_side = [0.0, 0.0, 0.0]
        on_side[first], on_side[second] = 1 - part, part
        candidates.append((away, on_side))
    return min(candidates)[1]


def test_shares_are_whole_have_the_exact_sum_and_are_as_near_to_proportion_as_whole_numbers_can_be(
    modules: CallModule,
) -> None:
    generator = random.Random(1)
    cases = [([0.0, 0.0, 0.0], TOTAL), ([1.0], 7), ([5e-324, 0.0], TOTAL), ([1e300, 1e300, 1.0], TOTAL)]
    cases += [(random_weights(generator), generator.choice((0, 1, 7, 100, TOTAL))) for _ in range(1500)]
    found = modules("simplex", "({ shares }, cases) => cases.map(([weights, total]) => shares(weights, total))", cases)
    for (weights, total), result in zip(cases, found, strict=True):
        exact = quotas(weights, total)
        assert all(isinstance(share, int) and share >= 0 for share in result), (weights, result)
        assert sum(result) == total
        assert all(abs(share - quota) < 1 for share, quota in zip(result, exact, strict=True)), (weights, result)
        best = largest_remainder(weights, total)
        error, least = (sum(map(abs, map(Fraction.__sub__, exact, map(Fraction, each)))) for each in (result, best))
        assert error - least < Fraction(1, 10**6), (weights, result, best)
        for a, b in itertools.combinations(range(len(weights)), 2):
            if weights[a] > weights[b] or (weights[a] == weights[b] and a < b):
                assert result[a] >= result[b], (weights, result)


def test_shares_of_nothing_are_none(modules: CallModule) -> None:
    assert modules("simplex", "({ shares, centre }) => [shares([]), centre(0)]") == [[], []]


def test_shares_go_to_the_largest_remainders(modules: CallModule) -> None:
    cases = [([1, 1, 1], 1000), ([2, 1], 1000), ([1, 1, 1], 100), ([3, 3, 1], 10), ([0, 0, 0, 0], 1000), ([0, 2, 0], 5)]
    found = modules("simplex", "({ shares }, cases) => cases.map(([weights, total]) => shares(weights, total))", cases)
    assert found == [[334, 333, 333], [667, 333], [34, 33, 33], [4, 4, 2], [250] * 4, [0, 5, 0]]


def test_a_moved_weight_reaches_its_value_as_far_as_the_locked_ones_leave_room(modules: CallModule) -> None:
    generator = random.Random(2)
    cases: list[tuple[Preference, int, float, list[bool], Preference]] = []
    for _ in range(2000):
        size = generator.randint(1, 6)
        preference = random_preference(generator, size)
        locked = [generator.random() < 0.35 for _ in range(size)]
        origin = preference if generator.random() < 0.4 else random_preference(generator, size)
        value = generator.choice((0, TOTAL, generator.randint(-200, 1300), generator.uniform(-5, 1005)))
        cases.append((preference, generator.randrange(size), value, locked, origin))
    found = modules(
        "simplex",
        """({ withWeight }, cases) => cases.map((each) => {
          const before = JSON.stringify(each);
          const result = withWeight(...each);
          if (JSON.stringify(each) !== before) throw new Error(`changed its arguments: ${before}`);
          return result;
        })""",
        cases,
    )
    for (preference, index, value, locked, origin), result in zip(cases, found, strict=True):
        case = (preference, index, value, locked, origin, result)
        others = [each for each in range(len(preference)) if each != index]
        free = [each for each in others if not locked[each]]
        held = [each for each in others if locked[each]]
        room = TOTAL - sum(preference[each] for each in held)
        assert sum(result) == TOTAL, case
        assert all(isinstance(weight, int) and weight >= 0 for weight in result), case
        assert all(result[each] == preference[each] for each in held), case
        assert result[index] == (min(max(math.floor(value + 0.5), 0), room) if free else room), case
        exact = quotas([float(origin[each]) for each in free], room - result[index]) if free else []
        assert all(abs(result[each] - quota) < 1 for each, quota in zip(free, exact, strict=True)), case


def test_going_anywhere_and_back_in_one_gesture_restores_every_weight(modules: CallModule) -> None:
    generator = random.Random(3)
    cases: list[tuple[Preference, int, list[bool], list[int]]] = []
    for _ in range(500):
        size = generator.randint(2, 6)
        preference = random_preference(generator, size)
        locked = [generator.random() < 0.2 for _ in range(size)]
        stops = [TOTAL, 0, *(generator.randint(0, TOTAL) for _ in range(5)), TOTAL]
        cases.append((preference, generator.randrange(size), locked, stops))
    found = modules(
        "simplex",
        """({ withWeight }, cases) => cases.map(([origin, index, locked, stops]) =>
          [...stops, origin[index]].reduce((now, value) => withWeight(now, index, value, locked, origin), origin))""",
        cases,
    )
    for (origin, index, locked, _), result in zip(cases, found, strict=True):
        assert result == origin, (index, locked)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (([1000], 0, 300), [1000]),
        (([500, 300, 200], 0, 700, [False, True, True]), [500, 300, 200]),
        (([500, 300, 200], 0, 1000, [False, False, True]), [800, 0, 200]),
        (([500, 300, 200], 0, 100, [True, False, False]), [100, 540, 360]),
        (([1000, 0, 0], 0, 500), [500, 250, 250]),
        (([1000, 0, 0], 0, 999), [999, 1, 0]),
        (([0, 500, 500], 1, 500.4), [0, 500, 500]),
        (([600, 400], 1, -50), [1000, 0]),
        (([0, 0, 1000], 0, 5000, [False, False, True]), [0, 0, 1000]),
    ],
)
def test_moving_one_weight(modules: CallModule, arguments: object, expected: Preference) -> None:
    assert modules("simplex", "({ withWeight }, given) => withWeight(...given)", arguments) == expected


def test_every_whole_per_cent_has_its_own_place_in_the_triangle(modules: CallModule) -> None:
    grid = [[10 * a, 10 * b, TOTAL - 10 * a - 10 * b] for a in range(101) for b in range(101 - a)]
    found = modules(
        "simplex",
        "({ toPoint, fromPoint }, grid) => grid.map((each) => [toPoint(each), fromPoint(toPoint(each))])",
        grid,
    )
    assert len(grid) == 5151
    assert [back for _, back in found] == grid
    places = np.array([(point["x"], point["y"]) for point, _ in found])
    np.testing.assert_allclose(places, np.array(grid) / TOTAL @ CORNERS, atol=1e-12)


def test_a_point_anywhere_in_the_plane_is_the_nearest_preference_in_whole_per_cent(modules: CallModule) -> None:
    generator = random.Random(4)
    points = [(generator.uniform(-1, 2), generator.uniform(-1, 2)) for _ in range(1500)]
    points += [(generator.uniform(0, 1), generator.uniform(0, 1)) for _ in range(500)]
    points += [(1e3, -1e3), (-1e3, 0), (0.5, -3), (0.5, 1e3), (0.5, 0), (0, 0), (1, 0)]
    found = modules("simplex", "({ fromPoint }, points) => points.map(([x, y]) => fromPoint({ x, y }))", points)
    for point, result in zip(points, found, strict=True):
        assert sum(result) == TOTAL
        assert all(weight >= 0 and weight % 10 == 0 for weight in result), (point, result)
        np.testing.assert_allclose(np.array(result) / TOTAL, nearest_in_triangle(point), atol=0.01)


def test_the_triangle_of_points_is_an_even_grid(modules: CallModule) -> None:
    for count in range(2, 12):
        rows = modules("simplex", "({ triangleRows }, count) => triangleRows(count)", count)
        assert [len(row) for row in rows] == list(range(1, count + 1))
        assert rows[0] == [[TOTAL, 0, 0]]
        assert (rows[-1][0], rows[-1][-1]) == ([0, TOTAL, 0], [0, 0, TOTAL])
        last = count - 1
        places = [(row, column) for row in range(count) for column in range(row + 1)]
        for row, column in places:
            exact = np.array([last - row, row - column, column]) / last * TOTAL
            assert sum(rows[row][column]) == TOTAL
            assert np.abs(np.array(rows[row][column]) - exact).max() < 1
        assert len({tuple(rows[row][column]) for row, column in places}) == len(places)


def test_an_edge_goes_evenly_from_all_of_one_to_all_of_the_other(modules: CallModule) -> None:
    for dimensions, count in itertools.product(range(2, 6), range(2, 8)):
        for start, end in itertools.permutations(range(dimensions), 2):
            points = modules("simplex", "({ edge }, given) => edge(...given)", [dimensions, start, end, count])
            assert len(points) == count
            for step, point in enumerate(points):
                assert sum(point) == TOTAL
                assert abs(point[end] - step / (count - 1) * TOTAL) <= 0.5
                assert all(weight == 0 for index, weight in enumerate(point) if index not in (start, end))
            assert (points[0][start], points[-1][end]) == (TOTAL, TOTAL)


def test_vertices_and_centres(modules: CallModule) -> None:
    found = modules(
        "simplex",
        """({ vertex, centre }) => [1, 2, 3, 4, 5].map((size) => ({
          vertices: Array.from({ length: size }, (_, index) => vertex(size, index)), centre: centre(size)
        }))""",
    )
    for size, each in enumerate(found, start=1):
        assert each["vertices"] == (np.eye(size, dtype=int) * TOTAL).tolist()
        assert each["centre"] == largest_remainder([1.0] * size, TOTAL)


def test_preferences_are_the_same_weight_by_weight_and_the_base_is_only_itself(modules: CallModule) -> None:
    generator = random.Random(5)
    choices: list[Preference | None] = [None, [], [TOTAL], [0, TOTAL], [TOTAL, 0], [TOTAL, 0, 0]]
    choices += [random_preference(generator, 3) for _ in range(20)]
    choices += [list(each) for each in choices[-5:] if each is not None]
    pairs = list(itertools.product(choices, repeat=2))
    found = modules("simplex", "({ isSame }, pairs) => pairs.map(([a, b]) => isSame(a, b))", pairs)
    assert found == [a == b for a, b in pairs]


def test_the_distance_is_euclids(modules: CallModule) -> None:
    generator = random.Random(6)
    pairs = [[random_preference(generator, size) for _ in range(2)] for size in range(1, 7) for _ in range(50)]
    found = modules("simplex", "({ distance }, pairs) => pairs.map(([a, b]) => distance(a, b))", pairs)
    expected = [np.linalg.norm((np.array(a) - np.array(b)) / TOTAL) for a, b in pairs]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_what_the_server_is_told_comes_back_as_it_was(modules: CallModule) -> None:
    generator = random.Random(7)
    preferences = [random_preference(generator, size) for size in range(7) for _ in range(100) if size]
    found = modules(
        "simplex",
        """({ asObject, fromObject }, preferences) => preferences.map((preference) => {
          const names = preference.map((_, index) => `name ${index}`);
          const told = asObject(preference, names);
          return [told, fromObject(told, names), fromObject(JSON.parse(JSON.stringify(told)), names)];
        })""",
        preferences,
    )
    for preference, (told, back, sent) in zip(preferences, found, strict=True):
        assert told == {f"name {index}": weight / TOTAL for index, weight in enumerate(preference)}
        assert back == sent == preference


def test_weights_of_the_server_become_the_nearest_thousandths(modules: CallModule) -> None:
    names = ["helpful", "harmless", "concise"]
    cases: list[dict[str, float]] = [
        {"helpful": 1 / 3, "harmless": 1 / 3, "concise": 1 / 3},
        {"concise": 0.123456, "helpful": 0.876544, "harmless": 0},
        {"harmless": 1},
        {"harmless": 1, "kind": 5},
    ]
    found = modules(
        "simplex", "({ fromObject }, [names, cases]) => cases.map((c) => fromObject(c, names))", [names, cases]
    )
    assert found == [[334, 333, 333], [877, 0, 123], [0, TOTAL, 0], [0, TOTAL, 0]]


def test_preferences_in_words(modules: CallModule) -> None:
    names = ["helpful", "harmless", "concise"]
    cases: list[Preference | None] = [None, [TOTAL, 0, 0], [700, 0, 300], [1, 2, 997], [334, 333, 333], [625, 375, 0]]
    found = modules(
        "simplex", "({ described }, [names, cases]) => cases.map((each) => described(each, names))", [names, cases]
    )
    assert found == [
        "base",
        "helpful 100%",
        "helpful 70%, concise 30%",
        "helpful 0.1%, harmless 0.2%, concise 99.7%",
        "helpful 33.4%, harmless 33.3%, concise 33.3%",
        "helpful 62.5%, harmless 37.5%",
    ]
    assert modules("simplex", "({ described }) => described([], [])") == ""
