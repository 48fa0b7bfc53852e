"""An inspection as a picture: a heat map for each group of columns. Needs matplotlib."""

from pathlib import Path

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from panacea_train.convert.inspection import Inspection

_LAYERS_IN_A_ROW = 64
"""Beyond so many, panels go on in a second row."""


def draw(inspection: Inspection, file: Path) -> None:
    """Writes the picture to `file`, in the format that its suffix names.

    A panel for each group, all with one scale of colour: kinds of modules from top to bottom, layers from left to
    right, and the largest singular value of what the group adds to each weight at weight 1.
    """
    groups, kinds, layers = list(inspection.groups), inspection.kinds, inspection.layers
    values = {g: [[inspection.largest(g, layer, kind) for layer in layers] for kind in kinds] for g in groups}
    top = max(value for rows in values.values() for row in rows for value in row) or 1.0
    in_a_row = min(len(groups), max(1, _LAYERS_IN_A_ROW // len(layers)))
    lines = -(-len(groups) // in_a_row)
    width = 3 + in_a_row * max(1.6, 0.18 * len(layers))
    figure = Figure(figsize=(width, lines * (0.9 + 0.28 * len(kinds))), layout="constrained")
    panels = figure.subplots(lines, in_a_row, sharey=True, squeeze=False).flatten()
    step = max(1, len(layers) // 8)
    for group, panel in zip(groups, panels, strict=False):
        panel.imshow(values[group], aspect="auto", cmap="viridis", vmin=0, vmax=top)
        columns = len(inspection.groups[group])
        panel.set_title(f"{group}: {columns} column{'s' * (columns > 1)}", fontsize=10)
        panel.set_xlabel("layer")
        panel.set_xticks(range(0, len(layers), step), ["none" if x is None else str(x) for x in layers[::step]])
        panel.set_yticks(range(len(kinds)), kinds)
    for panel in panels[len(groups) :]:
        panel.remove()
    colours = ScalarMappable(Normalize(0, top), "viridis")
    figure.colorbar(colours, ax=list(panels[: len(groups)]), label="largest singular value\nadded at weight 1")
    figure.savefig(file, dpi=150)
