"""`python -m panacea_lab.reproduce`: what `make reproduce` runs."""

import os
from pathlib import Path
from typing import Annotated

import typer

from panacea.demo_model import DEMO_BASE
from panacea.errors import PanaceaError
from panacea_lab.reproduce.comparison_page import write_report
from panacea_lab.reproduce.comparison_pipeline import reproduce
from panacea_lab.reproduce.comparison_settings import ReproduceSettings


def main(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made; a later run goes on there.")] = Path(
        "runs/reproduce"
    ),
    report: Annotated[Path, typer.Option(help="Folder for the report and its picture.")] = Path("docs"),
    base: Annotated[Path | None, typer.Option(help="Base model. Default: the embedded demo's.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Default: one for each core.")] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Seconds instead of an hour, and numbers that say nothing.")
    ] = False,
) -> None:
    """Train and compare Panacea, rewarded soups and discrete policies, three seeds each, and write the report."""
    base = base or DEMO_BASE
    settings = ReproduceSettings.tiny() if tiny else ReproduceSettings()
    try:
        results = reproduce(base, out, settings, processes or os.cpu_count() or 1)
        written = write_report(results, report)
    except PanaceaError as error:
        raise SystemExit(f"reproduce: {error}") from None
    typer.echo(f"Written: {written}")


if __name__ == "__main__":
    typer.run(main)
