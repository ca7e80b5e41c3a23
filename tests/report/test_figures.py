"""Figures: drawn from their CSV, reproducible, resumable."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.report import Figures, Run, Table
from klsim.report.figures import FigureTask


def test_tables_survive_csv():
    table = Table({"x": [0.1, 1e-300, -3.0], "name": ["a", "b,c", 'd"'], "n": [1, 2, 3]})
    again = Table.from_csv(table.to_csv())
    np.testing.assert_allclose(again["x"], table["x"], rtol=1e-11)
    assert again["name"].tolist() == table["name"].tolist()
    assert again.rows(name="a")["n"].tolist() == [1.0]
    assert again.distinct("name") == ["a", "b,c", 'd"']
    with pytest.raises(KeyError, match="no column"):
        table["y"]
    with pytest.raises(ValueError, match="equal length"):
        Table({"x": [1], "y": [1, 2]})


def test_random_streams_depend_on_seed_and_key_only():
    assert Run(3).rng("a", 1).random() == Run(3).rng("a", 1).random()
    assert Run(3).rng("a", 1).random() != Run(3).rng("a", 2).random()
    assert Run(3).rng("a").random() != Run(4).rng("a").random()


def test_stages_are_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(3)}

    for _ in range(2):
        kept = Run(0, True, tmp_path).stage("key", compute)
        np.testing.assert_array_equal(kept["x"], [0, 1, 2])
    assert len(calls) == 1
    Run(1, True, tmp_path).stage("key", compute)
    assert len(calls) == 2
    assert not list(tmp_path.glob(".stage*"))


FIGURE = """
from klsim.report import Figures
figures = Figures()

@figures.figure("f", title="T", caption="C")
def f(run):
    return {{"x": [0.0, 1.0], "y": [{value}, float(run.rng("k").random())]}}

@f.draw
def _(table, figure):
    figure.subplots().plot(table["x"], table["y"])
"""


def task(tmp_path, value, seed=0):
    folder = tmp_path / f"p{value.replace('.', '')}".replace("(", "").replace(")", "").replace('"', "")
    folder.mkdir(exist_ok=True)
    (folder / "figures.py").write_text(FIGURE.format(value=value))
    return FigureTask(str(folder), "p", "f", str(tmp_path / f"out{seed}"), seed)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    first = task(tmp_path, "0.5").run()
    assert not first.error
    kept = {f: (tmp_path / "out0" / f).read_bytes() for f in first.files}
    task(tmp_path, "0.5").run()
    assert kept == {f: (tmp_path / "out0" / f).read_bytes() for f in first.files}


def test_nan_is_an_error_and_errors_are_recorded(tmp_path):
    drawn = task(tmp_path, 'float("nan")').run()
    assert "NaN in row 0" in drawn.error
    assert not drawn.files


def test_names_are_unique():
    figures = Figures()
    figures.figure("a", title="", caption="")(lambda run: {})
    with pytest.raises(ValueError, match="already"):
        figures.figure("a", title="", caption="")
