"""Sweeps as a table in a terminal, and what should be said beside it."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from panacea_train.evaluation.run import Run
from panacea_train.evaluation.schema import Interval, Sweep

CUT_OFF_SHARE = 0.05
"""If more answers than this were cut off, rewards judge beginnings."""


def table(runs: Sequence[Run]) -> Table:
    """A column for each run and temperature, a row for each measure; in brackets the interval."""
    columns = [(run, sweep) for run in runs for sweep in run.evaluation.sweeps]
    built = Table(box=None, pad_edge=False, header_style="bold")
    built.add_column("")
    for run, sweep in columns:
        name = f"{run.name}\n" if len(runs) > 1 else ""
        built.add_column(f"{name}{described(sweep.temperature)}", justify="right")
    dimensions = runs[0].evaluation.dimensions
    for words, field in (
        ("hypervolume", "hypervolume"),
        ("inner product", "inner_product"),
        ("sparsity", "sparsity"),
        ("spacing", "spacing"),
    ):
        built.add_row(words, *(_with(getattr(s, field), getattr(s, f"{field}_interval")) for _, s in columns))
    for name in dimensions:
        cells = (_with(sweep.spearman[name], sweep.spearman_intervals[name]) for _, sweep in columns)
        built.add_row(f"Spearman {name}", *cells)
    built.add_row(
        "non-dominated/distinct/all",
        *(f"{sweep.non_dominated}/{sweep.distinct}/{len(sweep.points)}" for _, sweep in columns),
    )
    return built


def warnings(run: Run) -> Iterator[str]:
    """What would mislead somebody who reads the numbers alone."""
    cut_off = run.evaluation.figures.get("cut_off", 0)
    if cut_off > CUT_OFF_SHARE:
        yield (
            f"{run.name}: {cut_off:.0%} of the answers were cut off at --max-tokens, so rewards judge beginnings of "
            "answers"
        )
    for sweep in run.evaluation.sweeps:
        if _has_collapsed(sweep):
            yield (
                f"{run.name}, {described(sweep.temperature)}: {sweep.non_dominated} of {len(sweep.points)} points are "
                f"non-dominated, but only {sweep.distinct} differ. Equal points do not dominate each other: this model "
                "hardly heeds its preference"
            )


def described(temperature: float) -> str:
    return f"temperature {temperature:g}" if temperature else "greedy"


def _has_collapsed(sweep: Sweep) -> bool:
    return 2 * sweep.distinct <= sweep.non_dominated and sweep.non_dominated > 1


def _with(value: float, interval: Interval) -> str:
    low, high = interval
    return f"{value:.3f} [dim]\\[{low:.3f}, {high:.3f}][/dim]"
