"""``claims.py`` files as tests of pytest, and claims as assertions."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from klsim.claims import LoadError
from klsim.testing import assert_claims

PAPER = """
from klsim.claims import Effect, Identity, Paper
from klsim.spaces import Floats, Space

paper = Paper("toy", title="Toy")
C1 = paper.claim("C1", "squares")
C2 = paper.claim("C2", "{C2}")
C3 = paper.claim("C3", "an effect")
C4 = paper.claim("C4", "needs what is not there", requires=("no_such_module",))

@C1.check(Identity(), Space(x=Floats(0, 1)), false={{"cubes": {{"power": 3}}}})
def square(x, *, power=2):
    return x**power, x * x

@C2.check(Identity(), Space(x=Floats(0.5, 1)), false={{"trebled": {{"factor": 3}}}})
def doubled(x, *, factor={factor}):
    return x + x, factor * x

@C3.check(Effect(seeds=20), false={{"no mean": {{"mean": -1.0}}}})
def noisy(rng, *, mean=5.0):
    return mean + rng.normal()

@C4.check(Identity(), Space(x=Floats(0, 1)), false={{"cubes": {{"power": 3}}}})
def other(x, *, power=2):
    return x**power, x * x
"""


@pytest.fixture
def folder(tmp_path):
    def write(slug: str = "toy", **changes: object) -> None:
        (tmp_path / slug).mkdir()
        words = {"C2": "doubled", "factor": 2} | changes
        (tmp_path / slug / "claims.py").write_text(textwrap.dedent(PAPER).format(**words))

    write.path = tmp_path
    return write


def run_pytest(path, *options):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", *options]
    return subprocess.run(command, cwd=path, capture_output=True, text=True, check=False)


def test_a_claim_is_a_test(folder):
    folder()
    ran = run_pytest(folder.path, "toy", "-v", "--klsim-examples", "5", "--klsim-seed", "3")
    for line in ("toy/claims.py::toy/C1 PASSED", "::toy/C2 PASSED", "::toy/C3 PASSED", "::toy/C4 SKIPPED"):
        assert line in ran.stdout
    assert "needs no_such_module" in run_pytest(folder.path, "toy", "-rs", "-k", "C4").stdout
    assert ran.returncode == 0


def test_a_failure_is_the_counterexample_as_python(folder):
    folder(factor=2.5)
    ran = run_pytest(folder.path, "toy", "-k", "C1 or C2", "--klsim-examples", "5")
    assert ran.returncode == 1
    assert "1 failed, 1 passed" in ran.stdout
    assert "toy/C2 doubled: expected holds, got refuted" in ran.stdout
    assert "check = load_check('toy', 'C2', 'doubled')" in ran.stdout
    assert "runner.py" not in ran.stdout


def test_a_control_that_is_not_told_apart_is_a_failure(folder):
    folder()
    folder.path.joinpath("toy", "claims.py").write_text(
        textwrap.dedent(PAPER).format(C2="x", factor=2).replace('"factor": 3', '"factor": 2.0')
    )
    ran = run_pytest(folder.path, "toy", "-k", "C2", "--klsim-examples", "5")
    assert "the control 'trebled' is not told apart" in ran.stdout


def test_markers_and_selection(folder):
    folder()
    assert "4 tests collected" in run_pytest(folder.path, "--collect-only", "-m", "klsim").stdout
    fast = run_pytest(folder.path, "--collect-only", "-q", "-m", "klsim and not slow").stdout
    assert "toy/C1" in fast
    assert "toy/C3" not in fast


def test_the_same_under_xdist(folder):
    folder()
    ran = run_pytest(folder.path, "-n", "2", "-q", "--klsim-examples", "5")
    assert "3 passed, 1 skipped" in ran.stdout


def test_other_peoples_claims_files_are_left_alone(folder):
    (folder.path / "claims.py").write_text("raise SystemExit('a module of JSON web tokens')")
    assert "no tests" in run_pytest(folder.path, ".").stdout


def test_a_file_that_cannot_be_loaded_is_one_line(folder):
    folder()
    with open(folder.path / "toy" / "claims.py", "a") as file:
        file.write("\n1 / 0\n")
    ran = run_pytest(folder.path, "toy")
    assert "claims.py: cannot be imported: ZeroDivisionError: division by zero" in ran.stdout
    assert ran.returncode == 2


@pytest.mark.parametrize(("option", "value"), [("--klsim-seed", "-1"), ("--klsim-examples", "0")])
def test_bad_options_are_named(folder, option, value):
    ran = run_pytest(folder.path, option, value)
    assert ran.returncode == 4
    assert f"{option} = {value}" in ran.stderr


def test_assert_claims(folder, monkeypatch):
    folder("toy", factor=2.5)
    monkeypatch.chdir(folder.path)
    with pytest.raises(AssertionError, match=r"toy/C2 doubled: expected holds, got refuted[\s\S]*load_check\('toy'"):
        assert_claims("./toy", examples=5)
    with pytest.raises(LoadError, match="matches no paper"):
        assert_claims("no-such-paper")
    with pytest.raises(ValueError, match="select_from: must name"):
        assert_claims()
