"""An inspection as a picture: a heat map for each group of columns. Needs matplotlib."""

from pathlib import Path

from panacea_train.charts.picture_file import HeatMap, draw_heat_maps
from panacea_train.convert.adapter_inspection import Inspection


def draw(inspection: Inspection, file: Path) -> None:
    """Writes the picture to `file`, in the format of its suffix.

    A heat map for each group has the kinds of modules as rows and the layers as columns. A value is the largest
    singular value of what the group adds to the weight at weight 1.
    """
    kinds, layers = inspection.kinds, inspection.layers
    heat_maps = [
        HeatMap(
            f"{group}: {len(columns)} column{'s' * (len(columns) > 1)}",
            [[inspection.largest(group, layer, kind) for layer in layers] for kind in kinds],
        )
        for group, columns in inspection.groups.items()
    ]
    draw_heat_maps(
        file,
        heat_maps,
        row_names=kinds,
        column_names=["none" if layer is None else str(layer) for layer in layers],
        columns_title="layer",
        scale_title="largest singular value\nadded at weight 1",
    )
