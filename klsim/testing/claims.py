"""Claims as assertions."""

from __future__ import annotations

__all__ = ["assert_claims"]


def assert_claims(*select_from: str, seed: int = 0, examples: int = 100, jobs: int = 1) -> None:
    """Assert that claims come out as expected, with all their controls::

        assert_claims("papers/gopd")
        assert_claims("gopd/C3", examples=25)

    Args:
        select_from: paths of papers, slugs, claim ids or globs, as ``klsim verify`` takes them.
        seed, examples, jobs: as in `klsim.claims.verify`.

    Raises:
        AssertionError: one does not; says which, with the counterexample as runnable Python.
        klsim.claims.LoadError: a pattern that matches nothing, a file that cannot be loaded.
        ValueError: no pattern; ``seed`` < 0, ``examples`` < 1.
    """
    __tracebackhide__ = True
    from klsim import _validate
    from klsim.claims import verify
    from klsim.report.terminal import explanation

    if not select_from:
        _validate.fail("select_from", "must name at least one paper or claim")
    found = verify(*select_from, seed=seed, examples=examples, jobs=jobs)
    if not found["as_expected"]:
        raise AssertionError(explanation(found))
