"""Charts as picture files, .svg, .png or .pdf: the only module that needs matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from panacea_train.charts import colours
from panacea_train.charts.axis import Axis
from panacea_train.charts.scatter_chart import Chart

MARKERS = ("o", "s", "^", "D", "v", "P")
"""matplotlib's names of `scatter_chart.MARKERS`."""

_COLUMNS_IN_A_ROW = 64
"""Heat maps with more columns than this in total continue in a second row."""


@dataclass(frozen=True)
class HeatMap:
    """One heat map of a picture: `values[row][column]`."""

    title: str
    values: Sequence[Sequence[float]]


def draw_heat_maps(
    file: Path,
    heat_maps: Sequence[HeatMap],
    *,
    row_names: Sequence[str],
    column_names: Sequence[str],
    columns_title: str,
    scale_title: str,
) -> None:
    """Writes heat maps with the same rows and columns, side by side on one colour scale from 0."""
    top = max(value for each in heat_maps for row in each.values for value in row) or 1.0
    in_a_row = min(len(heat_maps), max(1, _COLUMNS_IN_A_ROW // len(column_names)))
    lines = -(-len(heat_maps) // in_a_row)
    width = 3 + in_a_row * max(1.6, 0.18 * len(column_names))
    figure = Figure(figsize=(width, lines * (0.9 + 0.28 * len(row_names))), layout="constrained")
    panels = figure.subplots(lines, in_a_row, sharey=True, squeeze=False).flatten()
    step = max(1, len(column_names) // 8)
    for each, panel in zip(heat_maps, panels, strict=False):
        panel.imshow(each.values, aspect="auto", cmap="viridis", vmin=0, vmax=top)
        panel.set_title(each.title, fontsize=10)
        panel.set_xlabel(columns_title)
        panel.set_xticks(range(0, len(column_names), step), column_names[::step])
        panel.set_yticks(range(len(row_names)), row_names)
    for panel in panels[len(heat_maps) :]:
        panel.remove()
    scale = ScalarMappable(Normalize(0, top), "viridis")
    figure.colorbar(scale, ax=list(panels[: len(heat_maps)]), label=scale_title)
    figure.savefig(file, dpi=150)


def draw_charts(file: Path, rows: Sequence[Sequence[Chart]], models: Sequence[str]) -> None:
    """Writes a grid of scatter charts, all rows equally long, with a legend of the models by colour and marker."""
    figure = Figure(figsize=(4.4 * len(rows[0]), 4.0 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for charts, panels in zip(rows, grid, strict=True):
        for chart, panel in zip(charts, panels, strict=True):
            _draw_chart(panel, chart)
    for index, name in enumerate(models):
        grid[0][0].scatter([], [], color=colours.of_model(index), marker=MARKERS[index % len(MARKERS)], label=name)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(file, dpi=140)


def _draw_chart(panel: Axes, chart: Chart) -> None:
    """Dots that are not dominated are filled, the others hollow."""
    for dot in chart.dots:
        panel.scatter(
            dot.x,
            dot.y,
            s=26,
            marker=MARKERS[dot.marker],
            facecolors=dot.colour if dot.is_best else "none",
            edgecolors=dot.colour,
            linewidths=0.8,
            alpha=0.75,
        )
    panel.set_title(chart.name, fontsize=9)
    panel.set_xlabel(chart.x_name)
    panel.set_ylabel(chart.y_name)
    panel.set_xlim(chart.x.least, chart.x.most)
    panel.set_ylim(chart.y.least, chart.y.most)
    panel.set_xticks(*_ticks(chart.x))
    panel.set_yticks(*_ticks(chart.y))
    panel.grid(alpha=0.25)


def _ticks(axis: Axis) -> tuple[list[float], list[str]]:
    ticks = axis.ticks
    return [tick.value for tick in ticks], [tick.label for tick in ticks]
