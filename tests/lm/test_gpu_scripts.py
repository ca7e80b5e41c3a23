"""What a GPU would run, run on the CPU at sizes of seconds: `benchmarks.lm_cuda` and ``examples/smollm/gpu.sh``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "smollm" / "gpu.sh"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="examples are not part of this copy")

STUDY = """
import os, pathlib, sys, time
study, form = sys.argv[1], sys.argv[sys.argv.index("--form") + 1]
pathlib.Path(os.environ["OUT"], study + ".json").write_text(form)
if study == "breaks":
    sys.exit("no such model")
if study == "hangs":
    time.sleep(600)
print("done with", study)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The script with three studies: one that works, one that breaks, one that never ends."""
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "study.py").write_text(STUDY)
    settings = {"OUT": folder / "out", "STUDY": folder / "study.py", "STUDIES": "works breaks hangs after"}
    return *run(TINY="1", BUDGET="600", LIMIT="10", **settings), folder / "out"


def run(**settings):
    given = {**os.environ, "PYTHON": sys.executable, **{k: str(v) for k, v in settings.items()}}
    done = subprocess.run(["bash", str(SCRIPT)], env=given, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_a_part_that_breaks_or_hangs_leaves_the_others_and_what_was_written(ran):
    code, shown, out = ran
    assert code == 1, shown
    parts = dict(line.split("\t")[:2] for line in (out / "parts.tsv").read_text().splitlines()[1:])
    assert parts == {
        "environment": "0", "bench": "0", "study-works": "0", "study-breaks": "1", "study-hangs": "124", "study-after": "0",
    }, shown  # fmt: skip
    assert (out / "study-works.txt").read_text() == "done with works\n"
    assert "no such model" in (out / "study-breaks.txt").read_text()
    assert (out / "hangs.json").read_text() == "gpu"
    assert "torch" in (out / "environment.txt").read_text()


def test_the_bench_has_every_program_of_every_loss(ran):
    _, shown, out = ran
    result = json.loads((out / "bench.json").read_text())
    on_cuda = result["machine"]["cuda"] is not None
    for loss in ("reverse KL", "JSD", "G-OPD", "log-probs"):
        rows = {r["program"]: r for r in result["rows"] if r["loss"] == loss}
        assert rows.keys() >= {"products", "klsim", "naive"}
        for program in ("products", "klsim", "naive"):
            row = rows[program]
            assert row["error"] is None, row
            assert 0 < row["low"] <= row["median"] <= row["high"]
            assert row["runs"] == 4
            assert (row["extra_mib"] is None) != on_cuda
        assert rows["products"]["over_products"] == rows["klsim"]["over_klsim"] == 1
        assert f"| {loss} | 300 | klsim |" in shown
    # bfloat16 gradients: G and the result are rounded, 2^-8 each, relative to entries at most a few times the largest
    for who, (value, *gradients) in result["errors"]["300"].items():
        if who.startswith("klsim"):
            assert value <= 1e-5, who
            assert max(gradients) <= 4 * 2**-8, who
    for entry in result["missed"]:
        assert entry["why"]
        assert "Self CPU" in entry["profile"]


def test_an_aim_is_missed_in_words():
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.lm_cuda import Line, missed
    finally:
        sys.path.remove(str(ROOT))

    def lines(klsim, liger):
        return [
            Line("JSD", "products", 1, 1, 1),
            Line("JSD", "klsim", 1, 1, 1, over_products=klsim),
            Line("JSD", "Liger", 1, 1, 1, over_klsim=liger),
        ]

    assert missed(lines(1.25, 1.5)) == []
    assert missed(lines(1.26, 1.6)) == ["klsim / products = 1.26, wanted <= 1.25"]
    assert missed(lines(1.1, 1.4)) == ["Liger / klsim = 1.40, wanted >= 1.5"]
    assert missed(lines(None, None)) == ["klsim / products = –, wanted <= 1.25"]


def test_no_part_starts_when_the_time_is_used_up(tmp_path):
    code, shown = run(OUT=tmp_path, TINY="1", BUDGET="4", STUDIES="")
    assert code == 1
    assert "environment: left out, the time is used up" in shown
    assert (tmp_path / "parts.tsv").read_text() == "part\tstatus\tseconds\nenvironment\t-\t0\n"


def test_without_a_device_nothing_is_measured(tmp_path):
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    code, shown = run(OUT=tmp_path, TINY="", STUDIES="", **hidden)
    assert code == 1
    assert "no CUDA device (TINY=1" in shown
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.lm_cuda"], cwd=ROOT, env={**os.environ, **hidden}, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 1
    assert "no CUDA device: nothing measured" in done.stderr
    assert not (tmp_path / "bench.txt").exists()
