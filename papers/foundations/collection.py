"""The collection that the themes beside this file add their claims to."""

from klsim.claims import Paper

__all__ = ["paper"]

paper = Paper(
    "foundations",
    title="What the field's papers build on: several attempts, selection from samples",
    authors="klsim",
    year=2026,
)
