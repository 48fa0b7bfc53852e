"""The measures of a sweep with their meaning, and warnings about measures that mean little."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from panacea.evaluation import EvaluationSweep, Interval
from panacea_train.charts.forest_chart import ModelValue
from panacea_train.charts.number_text import finest_decimals, number, percent
from panacea_train.pareto import EXACT_DIMENSIONS, spearman
from panacea_train.report.shown_sweep import ShownSweep

FAITHFUL = 0.95
FEW_PROMPTS = 10
FEW_POINTS = 5
CUT_OFF = 0.05
"""Share of the answers."""

WHY_BOTH = (
    "A point is non-dominated when no other is at least as good everywhere and better somewhere. Equal points do not "
    "dominate each other, so a model that ignores its preference has a full count of them, but a single distinct one: "
    "read the two together."
)


@dataclass(frozen=True)
class Measure:
    """One number that describes a sweep."""

    name: str
    meaning: str
    of: Callable[[EvaluationSweep], float]
    interval: Callable[[EvaluationSweep], Interval]


@dataclass(frozen=True)
class MeasureRow:
    """One measure of every model, all with as many decimals."""

    measure: Measure
    values: Sequence[ModelValue]


def rows(shown: Sequence[ShownSweep]) -> list[MeasureRow]:
    return [_row(measure, shown) for measure in [*_of_the_front(shown[0]), *_of_each_dimension(shown)]]


def warnings(shown: Sequence[ShownSweep]) -> list[str]:
    """Warnings about numbers that need care."""
    found = [
        f"{each.name}: {text}" if len(shown) > 1 else text[0].upper() + text[1:]
        for each in shown
        for text in _warnings(each)
    ]
    asked = {tuple(point.preference for point in each.sweep.points) for each in shown}
    if len(asked) > 1:
        found.append(
            "The models were not evaluated at the same preferences. Their inner products, sparsity and spacing cannot "
            "be compared. The hypervolume can, though more points reach further."
        )
    if len({each.evaluation.prompts for each in shown}) > 1:
        found.append("The models were not evaluated with the same number of prompts.")
    if len({each.evaluation.notes.get("rewards") for each in shown}) > 1:
        found.append("The models were not judged by the same rewards: their numbers cannot be compared.")
    return found


def _row(measure: Measure, shown: Sequence[ShownSweep]) -> MeasureRow:
    values = [(measure.of(each.sweep), measure.interval(each.sweep)) for each in shown]
    decimals = finest_decimals([number for value, interval in values for number in (value, *interval)])
    return MeasureRow(
        measure,
        [
            ModelValue(
                each.name,
                each.index,
                value,
                interval,
                number(value, decimals),
                f"{number(interval[0], decimals)} to {number(interval[1], decimals)}",
            )
            for each, (value, interval) in zip(shown, values, strict=True)
        ],
    )


def _of_the_front(shown: ShownSweep) -> list[Measure]:
    corner = ", ".join(f"{value:g}" for value in shown.evaluation.reference_point)
    is_exact = len(shown.evaluation.dimensions) <= EXACT_DIMENSIONS
    return [
        Measure(
            "hypervolume",
            f"Volume of reward space that the points dominate above ({corner}){'' if is_exact else ', by sampling'}. "
            "Larger: together they reach further.",
            lambda sweep: sweep.hypervolume,
            lambda sweep: sweep.hypervolume_interval,
        ),
        Measure(
            "inner product",
            "Mean of ⟨preference, rewards⟩ over the points. Larger: each preference got more of what it asked for.",
            lambda sweep: sweep.inner_product,
            lambda sweep: sweep.inner_product_interval,
        ),
        Measure(
            "sparsity",
            "Mean squared gap between neighbours on the front. Smaller: denser; but a front of one point has 0.",
            lambda sweep: sweep.sparsity,
            lambda sweep: sweep.sparsity_interval,
        ),
        Measure(
            "spacing",
            "Standard deviation of the distance to the nearest neighbour on the front. Smaller: more even.",
            lambda sweep: sweep.spacing,
            lambda sweep: sweep.spacing_interval,
        ),
    ]


def _of_each_dimension(shown: Sequence[ShownSweep]) -> list[Measure]:
    return [_rank(shown, index, name) for index, name in enumerate(shown[0].evaluation.dimensions)]


def _rank(shown: Sequence[ShownSweep], index: int, name: str) -> Measure:
    weights = {tuple(sorted(point.preference[index] for point in each.sweep.points)) for each in shown}
    most = {spearman(each, range(len(each))) for each in weights}
    bound = (
        f" Weights repeat: with rewards that all differ it is at most {max(most):.3f}."
        if len(most) == 1 and 0 < max(most) < 0.9995
        else ""
    )
    return Measure(
        f"Spearman: {name}",
        f"Rank correlation of the weight of {name} and its reward. 1: more weight always meant more reward; 0: it made "
        f"no difference.{bound}",
        lambda sweep: sweep.spearman[name],
        lambda sweep: sweep.spearman_intervals[name],
    )


def _warnings(shown: ShownSweep) -> list[str]:
    evaluation, sweep = shown.evaluation, shown.sweep
    found: list[str] = []
    if 2 * sweep.distinct <= sweep.non_dominated:
        found.append(
            f"{sweep.non_dominated} points are non-dominated, but only {sweep.distinct} distinct: the model hardly "
            "follows its preference, and the count of non-dominated points says nothing."
        )
    cut_off = evaluation.figures.get("cut_off", 0.0)
    if cut_off > CUT_OFF:
        found.append(
            f"{percent(cut_off)} of the answers were cut off at the greatest length allowed: what is judged are their "
            "beginnings."
        )
    if evaluation.prompts == 1:
        found.append(
            "there was one prompt, so intervals have no width and standard errors are 0: nothing is said of chance."
        )
    elif evaluation.prompts < FEW_PROMPTS:
        found.append(f"there were {evaluation.prompts} prompts: with so few, intervals come out too narrow.")
    if sweep.hypervolume == 0:
        found.append("no point is above the reference point in every dimension, so the hypervolume is 0.")
    told = [point.faithful for point in sweep.points if point.faithful is not None]
    if told and min(told) < FAITHFUL:
        below = sum(value < FAITHFUL for value in told)
        found.append(
            f"at {below} of {len(told)} points fewer than {percent(FAITHFUL)} of the sentences are faithful (least: "
            f"{percent(round(min(told), 3))}): what they earn in reward they may have lost in sense."
        )
    if 1 < len(sweep.points) < FEW_POINTS:
        found.append(f"there are {len(sweep.points)} points: a rank correlation of so few is coarse.")
    return found
