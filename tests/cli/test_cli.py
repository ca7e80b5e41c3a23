"""The command line: exit codes, one-line errors, and what it leaves on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from klsim.cli import app

FOLKLORE = """
    import numpy as np
    from klsim import best_of_n
    from klsim.claims import Identity, Paper
    from klsim.spaces import Integers, Policies, Rewards, Space

    paper = Paper("folklore", title="Best-of-N folklore")
    C1 = paper.claim("C1", "KL(best-of-N ‖ ref) = log N - (N-1)/N")

    @C1.check(Identity(), Space(log_ref=Policies(), reward=Rewards(), n=Integers(2, 64)), false={"log N": {"less": 0}})
    def kl(log_ref, reward, n, *, less=1):
        return best_of_n.kl(log_ref, reward, n), np.log(n) - less * (n - 1) / n
"""
FIGURES = """
    from klsim.report import Figures

    figures = Figures()

    @figures.figure("line", title="A <line>", caption="y = x", has_full=True)
    def line(run):
        n = 5 if run.full else 3
        return {"x": [float(i) for i in range(n)], "y": [float(run.stage(f"{i}", lambda i=i: {"v": i})["v"]) for i in range(n)]}

    @line.draw
    def _(table, figure):
        axes = figure.subplots()
        axes.plot(table["x"], table["y"])
        axes.set(xlabel="x", ylabel="y")
"""
GOOD = """
    import numpy as np
    from klsim.claims import Inequality, Paper
    from klsim.divergences import kl
    from klsim.spaces import Policies, Space

    paper = Paper("good", title="Good")
    C1 = paper.claim("C1", "KL is non-negative\\n\\n$KL \\\\ge 0$ <script>alert(1)</script>")

    @C1.check(Inequality(scale=1), Space(log_p=Policies(), log_q=Policies()), instances=500)
    def non_negative(log_p, log_q):
        return 0 * kl(log_p, log_q), kl(log_p, log_q)

    @non_negative.control("at least one")
    def one(log_p, log_q):
        return 1 + 0 * kl(log_p, log_q), kl(log_p, log_q)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "papers" / "good"
    folder.mkdir(parents=True)
    (folder / "claims.py").write_text(textwrap.dedent(GOOD))
    (folder / "figures.py").write_text(textwrap.dedent(FIGURES))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_the_folklore_example_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "claims.py").write_text(textwrap.dedent(FOLKLORE))
    result = run("verify", "claims.py")
    assert result.exit_code == 1
    assert "minimal counterexample" in result.output
    (saved,) = (tmp_path / "counterexamples").iterdir()
    assert run("replay", str(saved)).exit_code == 1


def test_verify_and_report(project):
    result = run("verify", "--seed", "3", "--examples", "20", "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert "1 of 1 claims as expected" in result.output
    assert json.loads((project / "certificate.json").read_text())["seeds"] == [3]
    assert run("report").exit_code == 0
    page = (project / "report" / "good.html").read_text()
    assert "<script>alert(1)</script>" not in page


def test_certificate_to_standard_output(project):
    result = run("verify", "--json", "--examples", "5", "--jobs", "1")
    assert json.loads(result.output)["as_expected"]
    assert not (project / "certificate.json").exists()


def test_reproduce_writes_everything(project):
    result = run("reproduce", "--examples", "10", "--jobs", "1")
    assert result.exit_code == 0, result.output
    drawn = project / "report" / "figures" / "good"
    assert {"line.csv", "line.svg", "line.png", "line.json"} == {p.name for p in drawn.iterdir()}
    assert (drawn / "line.csv").read_text() == "x,y\n0,0\n1,1\n2,2\n"
    assert not (project / "figures").exists()
    assert "line.svg" in (project / "report" / "good.html").read_text()


def test_full_figures_resume_from_stages(project):
    assert run("reproduce", "--full", "good").exit_code == 0
    stages = list((project / ".klsim" / "stages").rglob("*.npz"))
    assert len(stages) == 5
    stages[0].write_bytes(b"cut off")
    assert run("reproduce", "--full", "good").exit_code == 0
    assert (project / "report" / "figures" / "good" / "full" / "line.csv").read_text().count("\n") == 6


def test_list(project):
    assert "good/C1" in run("list").output
    assert json.loads(run("list", "--json").output)[0]["slug"] == "good"


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "nosuch"),
        ("verify", "./nosuch.py"),
        ("verify", "--examples", "0"),
        ("verify", "--jobs", "0"),
        ("verify", "--seed", "-1"),
        ("report", "--certificate", "nosuch.json"),
        ("replay", "nosuch.json"),
        ("findings", "--certificate", "nosuch.json"),
        ("verify", "--scheduler", "nonsense"),
        ("nosuchcommand",),
        ("verify", "--seeds", "3:3"),
        ("verify", "--seeds", "3"),
        ("new", "Not A Slug"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(project, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_only_what_has_changed_is_run_again(project):
    folder = project / "papers" / "good"
    assert run("verify", "--jobs", "1", "--examples", "5").exit_code == 0
    before = json.loads((project / "certificate.json").read_text())
    again = run("verify", "--jobs", "1", "--examples", "5", "--changed")
    assert again.exit_code == 0
    assert "nothing has changed" in again.output
    assert "✓ holds" in run("verify", "--jobs", "1", "--examples", "6", "--changed").output  # at another strength
    assert run("verify", "--jobs", "1", "--examples", "5").exit_code == 0
    (folder / "claims.py").write_text((folder / "claims.py").read_text() + "\n# a comment\n")
    assert "✓ holds" in run("verify", "--jobs", "1", "--examples", "5", "--changed").output
    assert "nothing has changed" in run("verify", "--jobs", "1", "--examples", "5", "--changed").output
    after = json.loads((project / "certificate.json").read_text())
    sources = [c["papers"][0]["claims"][0]["sources"] for c in (before, after)]
    assert sources[0] != sources[1]


def test_findings_in_a_readme(project):
    text = (project / "papers" / "good" / "claims.py").read_text()
    text = text.replace(
        "return 0 * kl(log_p, log_q), kl(log_p, log_q)", "return 1 + 0 * kl(log_p, log_q), kl(log_p, log_q)"
    )
    text = text.replace("def one(log_p, log_q):\n    return 1 +", "def one(log_p, log_q):\n    return")
    text = text.replace("KL is non-negative", "KL | is symmetric").replace(
        "alert(1)</script>", "</script>\\ninstead: It is not."
    )
    (project / "papers" / "good" / "claims.py").write_text(text)
    assert run("verify", "--jobs", "1").exit_code == 0
    (project / "R.md").write_text("before\n<!-- findings:start -->\nstale\n<!-- findings:end -->\nafter\n")
    assert run("findings", "--update", "R.md").exit_code == 0
    once = (project / "R.md").read_text()
    assert "`good/C1`" in once
    assert "stale" not in once
    assert once.startswith("before")
    assert "1 statements: 1 derived here" in once
    (project / "papers" / "other").mkdir()
    (project / "papers" / "other" / "claims.py").write_text(textwrap.dedent(GOOD).replace('"good"', '"other"'))
    assert run("findings", "--update", "R.md").exit_code == 2  # the certificate does not speak for all papers
    (project / "papers" / "other" / "claims.py").unlink()
    assert run("findings", "--update", "R.md").exit_code == 0
    assert (project / "R.md").read_text() == once
    (project / "R.md").write_text("<!-- findings:start: good/C1 -->\n<!-- findings:end -->\n")
    assert run("findings", "--update", "R.md").exit_code == 0
    chosen = (project / "R.md").read_text()
    assert chosen.startswith("<!-- findings:start: good/C1 -->\n\n| claim | statement | origin | what holds |")
    assert run("findings", "--update", "R.md").exit_code == 0
    assert (project / "R.md").read_text() == chosen
    (project / "R.md").write_text("<!-- findings:start: good/C9 -->\n<!-- findings:end -->\n")
    assert "good/C9 is not among the refuted" in run("findings", "--update", "R.md").output
    (project / "R.md").write_text("no markers")
    assert run("findings", "--update", "R.md").exit_code == 2


def test_reproduce_says_where_a_number_differs_from_the_committed_one(project):
    assert run("reproduce", "--out", "figures", "--examples", "5", "--jobs", "1").exit_code == 0
    table = project / "figures" / "good" / "line.csv"
    result = run("reproduce", "--examples", "5", "--jobs", "1")
    assert "1 of 1 figures as committed" in result.output
    table.write_text(table.read_text().replace("2,2", "2,2.001"))
    kept = table.read_text()
    result = run("reproduce", "--examples", "5", "--jobs", "1")
    assert "good/line differs" in result.output
    assert "2 instead of 2.001" in result.output
    assert table.read_text() == kept


def test_exit_codes_and_merging(project):
    text = (project / "papers" / "good" / "claims.py").read_text()
    more = text + textwrap.dedent("""
        @paper.claim("C2", "raises").check(Inequality(), Space(log_p=Policies()), false={"a": {"b": 1}})
        def raises(log_p, *, b=0):
            raise RuntimeError("boom")
    """)
    (project / "papers" / "good" / "claims.py").write_text(more)
    assert run("verify", "--jobs", "1", "--examples", "5").exit_code == 3
    result = run("verify", "good/C1", "--jobs", "1", "--examples", "5", "--seed", "4")
    assert result.exit_code == 0
    assert "1 claims of this run, 1 kept" in result.output
    claims = json.loads((project / "certificate.json").read_text())["papers"][0]["claims"]
    assert [(c["id"], c["seed"]) for c in claims] == [("C1", 4), ("C2", 0)]


def test_vacuous_is_said_in_words(project):
    text = (project / "papers" / "good" / "claims.py").read_text()
    text = text.replace("return 1 + 0 * kl(log_p, log_q)", "return 0 * kl(log_p, log_q)")
    (project / "papers" / "good" / "claims.py").write_text(text)
    result = run("verify", "--jobs", "1", "--examples", "5")
    assert result.exit_code == 1
    assert "vacuous" in result.output
    assert "the control 'at least one' is not told apart" in result.output


def test_new_writes_a_paper_that_verifies(project):
    assert run("new", "mine", "--title", "Mine").exit_code == 0
    assert run("verify", "mine", "--examples", "5", "--jobs", "1").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_a_valid_partial_certificate(project, how):
    ready = project / "ready"
    slow = (project / "papers" / "good" / "claims.py").read_text() + textwrap.dedent(f"""
        import time
        from pathlib import Path
        C2 = paper.claim("C2", "slow")

        @C2.check(Inequality(), Space(log_p=Policies()), batched=False, instances=10**6, uncontrolled="never ends")
        def sleepy(log_p):
            Path({str(ready)!r}).touch()
            time.sleep(0.01)
            return -log_p[0] ** 2, 1.0
    """)
    (project / "papers" / "good" / "claims.py").write_text(slow)
    # a background shell starts its children with SIGINT ignored: the child sets its own handling
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from klsim.cli import main; main()"
    )
    command = [sys.executable, "-c", start, "verify", "--jobs", "1"]
    process = subprocess.Popen(
        command, cwd=project, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    )
    try:
        while not ready.exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(how)
        output, _ = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 1
    certificate = json.loads((project / "certificate.json").read_text())
    assert not certificate["complete"]
    assert certificate["papers"][0]["claims"][0]["verdict"] == "holds"
    assert "interrupted" in output


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(project, how):
    """Two workers that would run for ever; the pipe closes (nobody holds it), and no process of the group is left."""
    code = textwrap.dedent("""
        import os, sys, time
        from dataclasses import dataclass
        from pathlib import Path
        from klsim.parallel import execute

        @dataclass
        class Forever:
            n: int
            def run(self):
                Path(f"worker{self.n}").write_text(str(os.getpid()))
                while True:
                    time.sleep(0.1)

        import signal
        from klsim.cli import _terminated
        signal.signal(signal.SIGTERM, _terminated)
        list(execute([Forever(0), Forever(1)], jobs=2))
    """)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=project, stdout=subprocess.PIPE)
    files = [project / "worker0", project / "worker1"]
    try:
        while process.poll() is None and not all(f.exists() and f.read_text() for f in files):
            time.sleep(0.05)
        process.send_signal(how)
        process.communicate()
    finally:
        process.kill()
    assert process.returncode != 0
    while any(alive(f.read_text()) for f in files):  # ends, or the test hangs
        time.sleep(0.1)


def alive(process: str) -> bool:
    """Whether a process runs (one that has ended and was not waited for does not)."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_output_in_encodings_without_the_symbols(project, encoding):
    command = [sys.executable, "-m", "klsim", "verify", "--jobs", "1", "--examples", "5"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ("✓ holds" if encoding == "utf-8" else "+ holds") in ran.stdout.decode(encoding)


def test_a_file_cannot_move_the_cursor(project):
    file = project / "papers" / "good" / "claims.py"
    file.write_text(file.read_text().replace('title="', 'title="\\x1b[2J'))
    for command in (["list"], ["verify", "--jobs", "1", "--examples", "5"], ["verify", "no\x1b[2Jpaper"]):
        ran = subprocess.run(
            [sys.executable, "-m", "klsim", *command], cwd=project, capture_output=True, text=True, check=False
        )
        assert "\x1b[2J" not in ran.stdout + ran.stderr
        assert "\\x1b[2J" in ran.stdout + ran.stderr


def test_light_commands_import_nothing_heavy():
    heavy = ["torch", "sympy", "matplotlib", "numba", "scipy.stats", "scipy.optimize", "hypothesis", "joblib"]
    code = f"import sys\n{{}}\nprint([m for m in {heavy!r} if m in sys.modules])"
    for statement in (
        "import klsim",
        "from klsim.cli import app; from typer.main import get_command; get_command(app)",
    ):
        ran = subprocess.run([sys.executable, "-c", code.format(statement)], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == "[]", statement


def test_version():
    import klsim

    assert run("--version").output.strip() == f"klsim {klsim.__version__}"
    assert Path(klsim.__file__).name == "__init__.py"


def test_objectives(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["objectives", "rloo", "k3 in the loss", "trrd", "--seeds", "2", "--jobs", "1"])
    assert result.exit_code == 0, result.output
    assert "forward_kl(frozen)" in result.output
    assert "all as claimed" in result.output
    result = CliRunner().invoke(app, ["objectives", "rloo", "--seeds", "1", "--json", "--jobs", "1"])
    rows = json.loads(result.output)
    assert all(row["as_claimed"] for row in rows)
    assert rows[0]["on_policy"]["claimed"] == {"reward": -1.0}
    result = CliRunner().invoke(app, ["objectives", "grop"])
    assert result.exit_code == 2
    assert "near names: grpo" in result.output


def test_what_maintainers_run_is_apart():
    shown = CliRunner().invoke(app, ["dev", "--help"]).output
    assert all(name in shown for name in ("objectives", "gallery", "coverage"))
