"""How much the claims and tests notice: one-operator changes of the library, made by cosmic-ray's operators.

``make mutants`` (a seeded sample, resumable) and ``make mutants FULL=1`` (every site). `sites` finds where something can
be changed, `reach` which tests and claims run that line, `notice` whether one of them objects, `report` what survived.
"""
