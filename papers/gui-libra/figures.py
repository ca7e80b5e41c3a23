"""Figures."""

from klsim.report.figures import Figures

figures = Figures()
