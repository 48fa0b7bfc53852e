"""The measures in a terminal: the report's numbers, and its warnings."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from panacea_train.report import measures
from panacea_train.report.shown_sweep import Measured, ShownSweep


def tables(runs: Sequence[Measured]) -> Iterator[RenderableType]:
    """One table of one model, with a column for each temperature; of several one for each temperature."""
    shown = [
        ShownSweep(index, run.name, run.evaluation, sweep)
        for index, run in enumerate(runs)
        for sweep in run.evaluation.sweeps
    ]
    if len(runs) == 1:
        said = dict.fromkeys(text for each in shown for text in measures.warnings([each]))
        names = [temperature_in_words(each.sweep.temperature) for each in shown]
        yield Group(_table(shown, names), *map(Text, said))
        return
    for temperature in dict.fromkeys(each.sweep.temperature for each in shown):
        own = [each for each in shown if each.sweep.temperature == temperature]
        title = Text(temperature_in_words(temperature), "bold")
        yield Group(title, _table(own, [each.name for each in own]), *map(Text, measures.warnings(own)))


def temperature_in_words(temperature: float) -> str:
    return f"temperature {temperature:g}" if temperature else "greedy"


def _table(shown: Sequence[ShownSweep], names: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in names:
        table.add_column(escape(name), justify="right")
    for row in measures.rows(shown):
        cells = (f"{reading.value_text} [dim]{reading.interval_text}[/dim]" for reading in row.values)
        table.add_row(escape(row.measure.name), *cells)
    table.add_row("points", *(str(len(each.sweep.points)) for each in shown))
    table.add_row("  non-dominated", *(str(each.sweep.non_dominated) for each in shown))
    table.add_row("  distinct", *(str(each.sweep.distinct) for each in shown))
    return table
