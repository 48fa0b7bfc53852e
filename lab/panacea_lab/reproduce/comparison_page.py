"""Writes the comparison as a page and a picture, whatever the result is."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from panacea.errors import ConfigError
from panacea_lab.demo.examination import NAMES
from panacea_lab.reproduce.compared_methods import COLUMNS
from panacea_lab.reproduce.comparison_results import (
    ComparisonResults,
    Estimate,
    MethodComparison,
    MethodResults,
    compare,
)
from panacea_lab.reproduce.rate_search import Rates
from panacea_train.charts import colours
from panacea_train.charts.scatter_chart import Chart, Dot, scatter_chart

PAGE = "reproduction.md"
PICTURE = "images/reproduction.png"


def write_report(results: ComparisonResults, folder: Path) -> Path:
    """Writes the page and its picture below `folder`; returns the page."""
    comparisons = [compare(results, plan) for plan in range(len(results.temperatures))]
    try:
        (folder / PICTURE).parent.mkdir(parents=True, exist_ok=True)
        _draw(results, comparisons, folder / PICTURE)
        (folder / PAGE).write_text(_page(results, comparisons), "utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from None
    return folder / PAGE


def _page(results: ComparisonResults, comparisons: Sequence[MethodComparison]) -> str:
    settings = results.settings
    return _template().render(
        picture=PICTURE,
        names=NAMES,
        settings=settings,
        questions=results.questions,
        methods=results.methods,
        columns=COLUMNS,
        verdicts=[line for comparison in comparisons for line in _verdicts(results, comparison)],
        sections=[
            {"title": _how(each), "table": _measures(results, each), "base": each.base_hypervolume}
            for each in comparisons
        ],
        rates=_table(
            ["method", "hypervolume by learning rate", "chosen"],
            [
                [
                    method.title,
                    _each([f"{_named(method, rates)}: {volume:.3f}" for rates, volume in method.tuning]),
                    f"{_named(method, method.rates)}{_at_an_end(method)}",
                ]
                for method in results.methods
            ],
        ),
        seconds=_table(
            ["method", *(f"seed {seed}" for seed in settings.seeds)],
            [[method.title, *(f"{each.seconds:.0f} s" for each in method.trained)] for method in results.methods],
        ),
        date=datetime.now(UTC).date().isoformat(),
        machine=f"{_processor()}, {os.cpu_count()} cores",
        torch=torch.__version__,
    )


def _template() -> Template:
    return Environment(
        loader=PackageLoader("panacea_lab.reproduce", "."),
        autoescape=False,  # noqa: S701 - the page is Markdown
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    ).get_template("page.md.j2")


def _verdicts(results: ComparisonResults, comparison: MethodComparison) -> list[str]:
    """What the intervals of the differences allow to say."""
    titles = {method.name: method.title for method in results.methods}
    measures = {"hypervolume": comparison.hypervolume_leads, "inner product": comparison.inner_product_leads}
    lines: list[str] = []
    for measure, leads in measures.items():
        for name, lead in leads.items():
            low, high = lead.interval
            word = "above" if low > 0 else "below" if high < 0 else "not distinguishable from"
            lines.append(
                f"{_how(comparison)}: Panacea's {measure} is **{word}** that of {titles[name].lower()} "
                f"({lead.value:+.3f}, interval {low:+.3f} to {high:+.3f})."
            )
    return lines


def _measures(results: ComparisonResults, comparison: MethodComparison) -> str:
    rows: list[list[str]] = []
    for method in results.methods:
        sweeps = comparison.sweeps[method.name]
        rows.append(
            [
                method.title,
                _shown(comparison.hypervolumes[method.name]),
                _shown(comparison.inner_products[method.name]),
                _each([f"{sweep.sparsity:.4f}" for sweep in sweeps]),
                _each([f"{sweep.spacing:.3f}" for sweep in sweeps]),
                _each([f"{sweep.distinct}/{sweep.non_dominated}/{len(sweep.points)}" for sweep in sweeps]),
                _each(["/".join(f"{sweep.spearman[name]:.2f}" for name in NAMES) for sweep in sweeps]),
                _each([f"{min(point.faithful or 0 for point in sweep.points):.3f}" for sweep in sweeps]),
            ]
        )
    header = [
        "method",
        "hypervolume, mean [interval] (seeds)",
        "inner product, mean [interval] (seeds)",
        "sparsity",
        "spacing",
        "distinct/non-dominated/all points",
        f"Spearman {'/'.join(NAMES)}",
        "least faithful share",
    ]
    return _table(header, rows)


def _how(comparison: MethodComparison) -> str:
    return "Greedy" if comparison.temperature == 0 else f"Temperature {comparison.temperature:g}"


def _shown(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"**{estimate.value:.3f}** [{low:.3f}, {high:.3f}] ({_each([f'{value:.3f}' for value in estimate.by_seed])})"


def _each(values: Sequence[str]) -> str:
    return ", ".join(values)


def _named(method: MethodResults, rates: Rates) -> str:
    return f"{rates.learning_rate:g}" + (f" (E x {rates.factor:g})" if method.has_factor else "")


def _at_an_end(method: MethodResults) -> str:
    """Says so where the search ended at the edge of what was tried."""
    rates = [(rates.learning_rate, rates.factor) for rates, _ in method.tuning]
    chosen = (method.rates.learning_rate, method.rates.factor)
    ends = [
        name
        for name, tried, own in zip(("rate", "factor"), zip(*rates, strict=True), chosen, strict=True)
        if len(set(tried)) > 1 and own in (min(tried), max(tried))
    ]
    return f": the {' and the '.join(ends)} at the edge of the range tried" if ends else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def _draw(results: ComparisonResults, comparisons: Sequence[MethodComparison], file: Path) -> None:
    """A row for each temperature and a chart for each pair of dimensions, with the points of all methods and seeds.

    A filled point is not dominated by another one of the same method and seed, in all dimensions.
    """
    from panacea_train.charts.picture_file import draw_charts  # noqa: PLC0415 - matplotlib is an extra

    pairs = list(combinations(range(len(NAMES)), 2))
    rows = [[_chart(results, comparison, x, y) for x, y in pairs] for comparison in comparisons]
    draw_charts(file, rows, [method.title for method in results.methods])


def _chart(results: ComparisonResults, comparison: MethodComparison, x: int, y: int) -> Chart:
    dots = [
        Dot(point.rewards[x], point.rewards[y], colours.of_model(index), index, point.non_dominated)
        for index, method in enumerate(results.methods)
        for sweep in comparison.sweeps[method.name]
        for point in sweep.points
    ]
    return scatter_chart(_how(comparison), f"reward: {NAMES[x]}", f"reward: {NAMES[y]}", dots)
