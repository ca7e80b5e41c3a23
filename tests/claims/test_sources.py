"""What a verdict depends on."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.claims import sources


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "claims.py").write_text("x = 1")
    (tmp_path / "figures.py").write_text("y = 1")
    return tmp_path


def test_imports_are_followed_in_functions_too():
    found = sources.imported(["klsim.optima"])
    assert {"klsim.optima", "klsim.distributions", "klsim._validate", "klsim.kernels.tilt"} <= found
    assert "klsim.planning.solve" not in found


def test_a_digest_changes_with_the_paper_and_with_what_it_runs_alone(folder, monkeypatch):
    before = sources.digest(folder, ["klsim.optima.kl_regularized"])
    (folder / "figures.py").write_text("y = 2")
    assert sources.digest(folder, ["klsim.optima.kl_regularized"]) == before
    with monkeypatch.context() as patched:
        other = sources._hash
        patched.setattr(sources, "_hash", lambda m: "changed" if m == "klsim.planning.solve" else other(m))
        assert sources.digest(folder, ["klsim.optima.kl_regularized"]) == before
        patched.setattr(sources, "_hash", lambda m: "changed" if m == "klsim.kernels.tilt" else other(m))
        assert sources.digest(folder, ["klsim.optima.kl_regularized"]) != before
        patched.setattr(sources, "_hash", lambda m: "changed" if m == "klsim.claims.kinds" else other(m))
        assert sources.digest(folder, []) != sources.digest(folder, ["klsim.optima.kl_regularized"])
    (folder / "claims.py").write_text("x = 2")
    assert sources.digest(folder, ["klsim.optima.kl_regularized"]) != before


def test_what_is_shared_counts_for_every_check_that_uses_it():
    from klsim.claims import shared
    from klsim.claims.authors import library_functions
    from klsim.divergences import kl
    from klsim.optima import kl_regularized

    calls = []

    @shared
    def inner(beta):
        calls.append(beta)
        return kl_regularized(np.log([0.5, 0.5]), np.array([0.0, 1.0]), beta).log_policy

    @shared(maxsize=2)
    def outer(beta):
        return kl(inner(beta), np.log([0.5, 0.5]))

    seen = []
    for _ in range(3):
        with library_functions() as ran:
            assert outer(0.5) == outer(0.5)
        seen.append(ran)
    assert calls == [0.5]
    assert all({"klsim.divergences.kl", "klsim.optima.kl_regularized"} <= s for s in seen)
    assert seen[0] == seen[1] == seen[2]
