"""Figures: drawn from their CSV, reproducible, resumable."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.claims import sources
from klsim.claims.sources import code_of
from klsim.report import Figures, Run, Table
from klsim.report.compare import compare_tables
from klsim.report.drawings import Bars, Heat, Lines, Many
from klsim.report.figures import FigureTask, over_seeds, table_of


def test_tables_survive_csv():
    table = Table({"x": [0.1, 1e-9, -3.0], "name": ["a", "b,c", 'd"'], "n": [1, 2, 3]})
    again = Table.from_csv(table.to_csv())
    np.testing.assert_allclose(again["x"], table["x"], rtol=1e-11)
    assert again["name"].tolist() == table["name"].tolist()
    assert again.rows(name="a")["n"].tolist() == [1.0]
    assert again.distinct("name") == ["a", "b,c", 'd"']
    with pytest.raises(KeyError, match="no column"):
        table["y"]
    with pytest.raises(ValueError, match="equal length"):
        Table({"x": [1], "y": [1, 2]})


def test_what_is_below_the_rounding_of_its_column_is_written_as_zero():
    text = Table({"x": [1.0, 3e-17, -0.5], "tiny": [1e-300, 3e-300, 0.0], "infinite": [np.inf, 1.0, 1e-17]}).to_csv()
    assert text == "x,tiny,infinite\n1,1e-300,inf\n0,3e-300,1\n-0.5,0,0\n"


def test_blocks_stand_one_under_the_other():
    blocks = [{"curve": "a", "x": [1, 2], "y": [0.5, 0.25]}, {"curve": "b", "x": [1, 2], "y": 3.0}]
    table = table_of(iter(blocks))
    assert table["curve"].tolist() == ["a", "a", "b", "b"]
    assert table["y"].tolist() == [0.5, 0.25, 3.0, 3.0]
    with pytest.raises(ValueError, match="block 1 has the columns"):
        table_of([{"x": 1}, {"y": 2}])
    with pytest.raises(ValueError, match="at least one"):
        table_of([])


def test_means_over_seeds_have_student_intervals():
    rows = over_seeds(y=np.array([[1.0, 0.0], [3.0, 0.0]]))
    np.testing.assert_allclose(rows["y"], [2, 0])
    np.testing.assert_allclose(rows["y high"] - rows["y"], [12.706204736, 0])  # t(1) at 97.5 %
    with pytest.raises(ValueError, match="one row a seed"):
        over_seeds(y=np.zeros((1, 3)))


DRAWINGS = [
    Lines("x", "y", by="curve", panels="side", marks={1.5: "here"}, levels={0.4: "there"}),
    Bars("x", "y", by="curve", panels="side"),
    Heat("x", "curve", "y", panels="side", numbers=".1f"),
    Many("side", {"left": Lines("x", "y", by="curve"), "right": Heat("x", "curve", "y", diverging=True)}),
]


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda d: type(d).__name__)
def test_declared_drawings_label_their_axes(drawing):
    from matplotlib.figure import Figure

    blocks = [
        {"side": side, "curve": curve, "x": [1.0, 2.0, 4.0], **over_seeds(y=np.random.default_rng(0).random((5, 3)))}
        for side in ("left", "right")
        for curve in ("a", "b")
    ]
    canvas = Figure()
    drawing(table_of(blocks), canvas)
    canvas.canvas.draw()
    assert len(canvas.axes) >= 2
    assert any(axes.get_xlabel() or axes.get_xticklabels() for axes in canvas.axes)
    words = (
        [text.get_text() for axes in canvas.axes for text in axes.get_legend().get_texts()]
        if not isinstance(drawing, Heat | Many)
        else ["a", "b"]
    )
    assert {"a", "b"} <= set(words)


def test_committed_tables_are_compared_relative_to_their_columns():
    old = Table({"x": [1.0, 2.0], "y": [1e-17, 5.0], "name": ["a", "b"]})
    same = Table({"x": [1.0, 2.0], "y": [0.0, 5.0 + 1e-9], "name": ["a", "b"]})
    other = Table({"x": [1.0, 2.0], "y": [0.0, 5.1], "name": ["a", "b"]})
    assert compare_tables(same, old, 1e-6) == ""
    assert "column 'y', row 2: 5.1 instead of 5" in compare_tables(other, old, 1e-6)
    assert "other words" in compare_tables(Table({**same.columns, "name": ["a", "c"]}), old, 1e-6)
    assert "rows" in compare_tables(same.rows(name="a"), old, 1e-6)


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
    Run(1, True, tmp_path, code="of another version").stage("key", compute)
    assert len(calls) == 3
    assert not list(tmp_path.glob(".stage*"))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_stage_is_computed_again(tmp_path, damage):
    run = Run(0, True, tmp_path)
    run.stage("key", lambda: {"x": np.arange(300)})
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    np.testing.assert_array_equal(run.stage("key", lambda: {"x": np.arange(300)})["x"], np.arange(300))


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


def test_the_code_of_a_paper_is_its_folder_and_what_it_imports(tmp_path, monkeypatch):
    (tmp_path / "figures.py").write_text("from klsim.optima import tilt\n")
    before = code_of(tmp_path)
    assert code_of(tmp_path) == before
    (tmp_path / "setting.py").write_text("n = 3\n")
    other = code_of(tmp_path)
    assert other != before
    hashed = sources._hash
    monkeypatch.setattr(sources, "_hash", lambda module: "changed" if module == "klsim.optima" else hashed(module))
    assert code_of(tmp_path) != other


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
