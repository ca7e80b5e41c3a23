"""Moved to `klsim.parallel`."""

from klsim.parallel import Task, execute

__all__ = ["Task", "execute"]
