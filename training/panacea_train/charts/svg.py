"""What the SVG templates need: `charts.html.jinja` has a macro for each kind of chart."""

from pathlib import Path
from typing import Any

from panacea_train.charts import colours
from panacea_train.charts.scatter_chart import MARKERS
from panacea_train.charts.ternary_chart import CORNERS, HEIGHT

CHART_TEMPLATES = Path(__file__).parent / "templates"


def template_values() -> dict[str, Any]:
    """The names that the macros read from the context of the page that imports them."""
    return {
        "model_colour": colours.of_model,
        "marker": lambda index: MARKERS[index % len(MARKERS)],
        "ternary_corners": CORNERS,
        "ternary_height": HEIGHT,
    }
