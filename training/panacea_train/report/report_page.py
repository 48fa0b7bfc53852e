"""The report: one HTML file that needs nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from panacea.errors import ConfigError
from panacea_train.report import colours, measures, ternary, text
from panacea_train.report.answer_columns import exchanges
from panacea_train.report.chart import MARKERS, Chart
from panacea_train.report.differences import Difference, DifferenceTable, difference_table
from panacea_train.report.forest import Forest, forest
from panacea_train.report.fronts import Fronts, fronts, over_weight
from panacea_train.report.heat import HeatTable, heat_tables
from panacea_train.report.shown import Measured, Quantity, Shown, quantities
from panacea_train.report.ternary import LEGEND_STEPS, Map, Ternary, key, maps

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """All that there is at one temperature. What does not fit the number of dimensions is empty."""

    anchor: str
    temperature: str
    shown: Sequence[Shown]
    warnings: Sequence[str]
    rows: Sequence[measures.Row]
    forests: Sequence[Forest]
    differences: DifferenceTable
    fronts: Fronts
    weight_charts: Sequence[Chart]
    key: Ternary | None
    strip: Sequence[str]
    """The colours of the preferences of two dimensions, by weight of the first."""
    maps: Sequence[Map]
    heat_tables: Sequence[HeatTable]
    columns: Sequence[tuple[Quantity, int | None]]
    """Of the table of all numbers, with their decimals."""


def write_report(runs: Sequence[Measured], path: Path, differences: Sequence[Difference] = ()) -> None:
    """Writes a report of one model, or a comparison of several, to `path`; `differences` goes by the models' names.

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
        loader=FileSystemLoader(TEMPLATES),
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
        reference=", ".join(map(text.single, runs[0].evaluation.reference_point)),
        described=text.described,
        number=text.number,
        single=text.single,
        percent=text.percent,
        shortened=text.shortened,
        model_colour=lambda index: colours.MODELS[index % len(colours.MODELS)],
        marker=lambda index: MARKERS[index % len(MARKERS)],
        share_steps=[colours.of_value((i + 0.5) / LEGEND_STEPS) for i in range(LEGEND_STEPS)],
        ternary_corners=ternary.CORNERS,
        ternary_height=ternary.HEIGHT,
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
            raise ConfigError(f"there is nothing to report of {run.name}: its evaluation has no points")


def _sections(runs: Sequence[Measured], differences: Sequence[Difference]) -> list[Section]:
    """One for each temperature at which some model was asked."""
    temperatures = list(dict.fromkeys(sweep.temperature for run in runs for sweep in run.evaluation.sweeps))
    return [_section(index, temperature, runs, differences) for index, temperature in enumerate(temperatures)]


def _section(number: int, temperature: float, runs: Sequence[Measured], differences: Sequence[Difference]) -> Section:
    shown = [
        Shown(index, run.name, run.evaluation, sweep)
        for index, run in enumerate(runs)
        for sweep in run.evaluation.sweeps
        if sweep.temperature == temperature
    ]
    dimensions = len(shown[0].evaluation.dimensions)
    asked = sorted({point.preference for point in shown[0].sweep.points})
    is_comparison = len(runs) > 1
    rows = measures.rows(shown)
    return Section(
        anchor=f"temperature-{number}",
        temperature=f"{temperature:g}",
        shown=shown,
        warnings=measures.warnings(shown),
        rows=rows,
        forests=[forest(row) for row in rows] if is_comparison else [],
        differences=difference_table(differences, [each.name for each in shown], temperature),
        fronts=fronts(shown),
        weight_charts=over_weight(shown) if dimensions == 2 else [],
        key=key(shown) if dimensions == 3 and len(shown) == 1 else None,
        strip=[colours.of_preference(weights) for weights in asked] if dimensions == 2 else [],
        maps=maps(shown) if dimensions == 3 else [],
        heat_tables=heat_tables(shown) if dimensions > 3 else [],
        columns=[(quantity, quantity.decimals(shown)) for quantity in quantities(shown)],
    )


def _plain(value: Any) -> Any:
    """Markup stays as it is; everything else is escaped after this."""
    return text.plain(value) if type(value) is str else value
