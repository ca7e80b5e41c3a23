"""Figures and the static HTML report."""

from klsim.report.figures import Figures, Run, Table

__all__ = ["Figures", "Run", "Table"]
