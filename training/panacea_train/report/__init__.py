"""An evaluation, or several beside each other, as an HTML report."""

from panacea_train.report.report_page import render_report, write_report
from panacea_train.report.shown_sweep import Measured

__all__ = ["Measured", "render_report", "write_report"]
