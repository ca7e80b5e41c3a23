r"""Figures of safe."""

from klsim.report.figures import Figures

figures = Figures()
