"""Figures of drive."""

from klsim.report.figures import Figures

figures = Figures()
