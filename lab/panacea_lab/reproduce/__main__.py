"""`python -m panacea_lab.reproduce`: what `make reproduce` runs."""

import argparse
import os
from pathlib import Path

from panacea.demo_model import DEMO_BASE
from panacea.errors import PanaceaError
from panacea_lab.reproduce.comparison_page import write_report
from panacea_lab.reproduce.comparison_pipeline import reproduce
from panacea_lab.reproduce.comparison_settings import ReproduceSettings


def main() -> None:
    """Train and compare Panacea, rewarded soups and discrete policies, three seeds each, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m panacea_lab.reproduce", description=main.__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/reproduce"), help="Folder for all results; a later run continues there.")
    add("--report", type=Path, default=Path("docs"), help="Folder for the report and its picture.")
    add("--base", type=Path, default=DEMO_BASE, help="Base model. Default: the embedded demo's.")
    add("--processes", type=int, default=os.cpu_count() or 1, help="Default: one for each core.")
    add("--tiny", action="store_true", help="Take seconds instead of an hour. The numbers mean nothing.")
    options = parser.parse_args()
    if options.processes < 1:
        parser.error("--processes must be at least 1")
    settings = ReproduceSettings.tiny() if options.tiny else ReproduceSettings()
    try:
        results = reproduce(options.base, options.out, settings, options.processes)
        written = write_report(results, options.report)
    except PanaceaError as error:
        raise SystemExit(f"reproduce: {error}") from None
    print(f"Written: {written}")


if __name__ == "__main__":
    main()
