"""The report of a run: ``index.html`` in its folder and a page beside every executed notebook, readable offline."""

from cytolib.run.report.page import write_report

__all__ = ["write_report"]
