"""The notebooks in ``examples/`` run from top to bottom, and show what they show in the repository."""

from itertools import groupby
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
PICTURES = {"audit": 0, "claims": 0, "frontier": 3, "optima": 1}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # those of the kernel's own libraries
def test_the_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel chooses its own
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(path, as_version=4)
    shown = [kinds(cell) for cell in notebook.cells]
    options = {"timeout": 300, "kernel_name": "python3", "resources": {"metadata": {"path": str(tmp_path)}}}
    nbclient.NotebookClient(notebook, **options).execute()
    assert [kinds(cell) for cell in notebook.cells] == shown
    assert [kind for cell in shown for kind in cell].count("image/png") == PICTURES[path.stem]


def kinds(cell):
    """Of what a cell shows: pictures, tables, text."""
    each = [kind for output in cell.get("outputs", ()) for kind in sorted(output.get("data", ["stream"]))]
    return [kind for kind, _ in groupby(each)]  # a kernel may cut a stream anywhere
