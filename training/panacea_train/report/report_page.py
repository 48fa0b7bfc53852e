"""The report: one self-contained HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from panacea.errors import ConfigError
from panacea_train.charts import colours, number_text
from panacea_train.charts.forest_chart import Forest, forest
from panacea_train.charts.scatter_chart import Chart
from panacea_train.charts.svg import CHART_TEMPLATES, template_values
from panacea_train.charts.ternary_chart import LEGEND_STEPS, Ternary
from panacea_train.evaluation.comparison import Difference
from panacea_train.report import measures
from panacea_train.report.answer_columns import exchanges
from panacea_train.report.differences import DifferenceTable, difference_table
from panacea_train.report.fronts import Fronts, fronts, over_weight
from panacea_train.report.heat_tables import HeatTable, heat_tables
from panacea_train.report.reward_maps import RewardMap, key, maps
from panacea_train.report.shown_sweep import Measured, Quantity, ShownSweep, quantities

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ReportSection:
    """The content at one temperature. Parts that do not suit the number of dimensions are empty."""

    anchor: str
    temperature: str
    shown: Sequence[ShownSweep]
    warnings: Sequence[str]
    rows: Sequence[measures.MeasureRow]
    forests: Sequence[Forest]
    differences: DifferenceTable
    fronts: Fronts
    weight_charts: Sequence[Chart]
    key: Ternary | None
    strip: Sequence[str]
    """The colours of the preferences of two dimensions, by weight of the first."""
    maps: Sequence[RewardMap]
    heat_tables: Sequence[HeatTable]
    columns: Sequence[tuple[Quantity, int | None]]
    """The columns of the table of all numbers, with their decimals."""


def write_report(runs: Sequence[Measured], path: Path, differences: Sequence[Difference] = ()) -> None:
    """Writes a report of one model, or a comparison of several, to `path`. `differences` names models by `name`.

    Raises `ConfigError` if models cannot be compared, or the file cannot be written.
    """
    try:
        path.write_text(render_report(runs, differences), encoding="utf-8", errors="xmlcharrefreplace")
    except OSError as error:
        raise ConfigError(f"cannot write the report to {path}: {error.strerror}") from None


def render_report(runs: Sequence[Measured], differences: Sequence[Difference] = ()) -> str:
    """The report's HTML. Raises `ConfigError` if models cannot be compared."""
    _check(runs)
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, CHART_TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    template = environment.get_template("report.html.jinja")
    return template.render(
        runs=runs,
        dimensions=runs[0].evaluation.dimensions,
        sections=_sections(runs, differences),
        exchanges=exchanges(runs),
        figures=list(dict.fromkeys(name for run in runs for name in run.evaluation.figures)),
        why_both=measures.WHY_BOTH,
        reference=", ".join(map(number_text.single, runs[0].evaluation.reference_point)),
        described=number_text.described,
        number=number_text.number,
        single=number_text.single,
        percent=number_text.percent,
        shortened=number_text.shortened,
        share_steps=[colours.of_value((i + 0.5) / LEGEND_STEPS) for i in range(LEGEND_STEPS)],
        **template_values(),
    )


def _check(runs: Sequence[Measured]) -> None:
    if not runs:
        raise ConfigError("a report needs at least one evaluation")
    first = runs[0]
    for run in runs:
        if run.evaluation.dimensions != first.evaluation.dimensions:
            raise ConfigError(
                f"{run.name} and {first.name} cannot be compared: their dimensions are "
                f"{', '.join(run.evaluation.dimensions)} and {', '.join(first.evaluation.dimensions)}"
            )
        if run.evaluation.reference_point != first.evaluation.reference_point:
            raise ConfigError(
                f"{run.name} and {first.name} cannot be compared: their hypervolumes begin at different reference "
                "points; compute both with the same one"
            )
        if not run.evaluation.sweeps or not all(sweep.points for sweep in run.evaluation.sweeps):
            raise ConfigError(f"{run.name} cannot be reported: its evaluation has no points; evaluate it again")


def _sections(runs: Sequence[Measured], differences: Sequence[Difference]) -> list[ReportSection]:
    """One for each temperature at which a model was evaluated."""
    temperatures = list(dict.fromkeys(sweep.temperature for run in runs for sweep in run.evaluation.sweeps))
    return [_section(index, temperature, runs, differences) for index, temperature in enumerate(temperatures)]


def _section(
    number: int, temperature: float, runs: Sequence[Measured], differences: Sequence[Difference]
) -> ReportSection:
    shown = [
        ShownSweep(index, run.name, run.evaluation, sweep)
        for index, run in enumerate(runs)
        for sweep in run.evaluation.sweeps
        if sweep.temperature == temperature
    ]
    dimensions = len(shown[0].evaluation.dimensions)
    asked = sorted({point.preference for point in shown[0].sweep.points})
    is_comparison = len(runs) > 1
    rows = measures.rows(shown)
    return ReportSection(
        anchor=f"temperature-{number}",
        temperature=f"{temperature:g}",
        shown=shown,
        warnings=measures.warnings(shown),
        rows=rows,
        forests=[forest(row.values) for row in rows] if is_comparison else [],
        differences=difference_table(differences, [each.name for each in shown], temperature),
        fronts=fronts(shown),
        weight_charts=over_weight(shown) if dimensions == 2 else [],
        key=key(shown[0]) if dimensions == 3 and len(shown) == 1 else None,
        strip=[colours.of_preference(weights) for weights in asked] if dimensions == 2 else [],
        maps=maps(shown) if dimensions == 3 else [],
        heat_tables=heat_tables(shown) if dimensions > 3 else [],
        columns=[(quantity, quantity.decimals(shown)) for quantity in quantities(shown)],
    )


def _plain(value: Any) -> Any:
    """Replaces control characters in plain text; markup stays as it is. Escaping follows."""
    return number_text.plain(value) if type(value) is str else value
