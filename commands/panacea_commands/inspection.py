"""`panacea inspect`: its options, and what it prints."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from panacea.errors import ConfigError
from panacea_commands.option_sources import FIELDS, new_app
from panacea_commands.option_values import check_writable

inspect_app = new_app("inspect")


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What `panacea inspect` shows."""

    modules: bool = False
    """Print a row for each module instead of each layer."""
    picture: Annotated[Path | None, Parameter(metavar="FILE.svg")] = None
    """Also draw it: .svg, .png or .pdf. Needs matplotlib."""
    json: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """Write all numbers to this file too."""


@inspect_app.default
def inspect(
    adapter: Annotated[str, Parameter(name="DIR", help="An adapter: a folder or a hub id.")],
    /,
    *,
    options: Annotated[InspectOptions, FIELDS] = InspectOptions(),
) -> None:
    """Show an adapter's dimensions, columns and scaling, and how much each group of columns adds to each weight."""
    from rich.console import Console

    from panacea.model.hub import local_folder
    from panacea_train.convert.adapter_inspection import Inspection, table
    from panacea_train.output_file import write_whole

    check_writable("--json", options.json)
    check_writable("--picture", options.picture)
    if options.picture is not None and options.picture.suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(f"--picture {options.picture}: the name must end in .svg, .png or .pdf")
    inspection = Inspection.read(local_folder(adapter))
    Console().print(table(inspection, by_module=options.modules))
    if options.picture is not None:
        try:
            from panacea_train.convert.inspection_picture import draw
        except ImportError as error:
            raise ConfigError(f"--picture needs matplotlib: pip install 'panacea-server[plot]' ({error})") from None
        write_whole(options.picture, lambda path: draw(inspection, path))
    if options.json is not None:
        text = json.dumps(inspection.as_dict(), indent=1) + "\n"
        write_whole(options.json, lambda path: path.write_text(text, "utf-8"))
