"""Collecting, selecting, running anywhere, and replaying."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from klsim.claims import LoadError, counterexample, load_check, select, verify
from klsim.claims import certificate as certificates

CLAIMS = """
    import numpy as np
    from klsim.claims import Effect, Identity, Inequality, Paper
    from klsim.divergences import kl
    from klsim.spaces import Policies, Space

    paper = Paper({slug!r}, title="T")
    C1 = paper.claim("C1", "KL is symmetric", expect={expect!r}, correction={correction!r})

    @C1.check(Identity(), Space(log_p=Policies(), log_q=Policies()), instances=2000)
    def symmetric(log_p, log_q):
        return kl(log_p, log_q), kl(log_q, log_p)

    @symmetric.control("with itself it is")
    def itself(log_p, log_q):
        return kl(log_p, log_p), 0 * kl(log_q, log_p)

    C2 = paper.claim("C2", "an effect")

    @C2.check(Effect(seeds=10))
    def grows(rng):
        return 2 + rng.standard_normal()

    @grows.control("nothing grows")
    def nothing(rng):
        return rng.standard_normal() - 2
"""


def write(folder: Path, slug: str, expect: str = "refuted") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    correction = "It is not." if expect == "refuted" else ""
    (folder / "claims.py").write_text(textwrap.dedent(CLAIMS.format(slug=slug, expect=expect, correction=correction)))
    return folder


def test_select_by_path_slug_id_and_glob(tmp_path, monkeypatch):
    write(tmp_path / "papers" / "one", "one")
    write(tmp_path / "papers" / "two", "two")
    monkeypatch.chdir(tmp_path)
    assert [s.paper.slug for s in select()] == ["one", "two"]
    assert [c.full_id for s in select(["two/C1"]) for c in s.claims] == ["two/C1"]
    assert [c.full_id for s in select(["*/C2"]) for c in s.claims] == ["one/C2", "two/C2"]
    assert [s.paper.slug for s in select([str(tmp_path / "papers" / "one")])] == ["one"]
    assert [s.paper.slug for s in select(["t*"])] == ["two"]


def test_near_names_are_suggested(tmp_path, monkeypatch):
    write(tmp_path / "papers" / "gopd", "gopd")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoadError, match="did you mean gopd"):
        select(["godp"])
    with pytest.raises(LoadError, match="did you mean gopd/C2"):
        select(["gopd", "C2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "exactly one Paper"),
        ("def (", "line 1"),
        ("import sys\nsys.exit(0)", r"called sys\.exit\(0\)"),
        ("import os\nos._exit(0)", r"called os\._exit\(0\)"),
        ("raise RuntimeError('boom')", "boom"),
        ("from klsim.claims import Paper\np = Paper('p', title='x')\np.claim('C1', 'x')", "no check"),
        ("from klsim.claims import Paper\np = Paper('Not A Slug', title='x')", "slug"),
    ],
)
def test_unusable_files_name_themselves(tmp_path, text, message):
    (tmp_path / "claims.py").write_text(text)
    with pytest.raises(LoadError, match=message) as caught:
        select([str(tmp_path / "claims.py")])
    assert "claims.py" in str(caught.value)


def test_missing_paths_and_duplicates(tmp_path, monkeypatch):
    with pytest.raises(LoadError, match="no such"):
        select([str(tmp_path / "nothing")])
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(LoadError, match=r"called claims\.py.*rename it"):
        select([str(tmp_path / "mine.py")])
    write(tmp_path / "a", "same")
    write(tmp_path / "b", "same")
    with pytest.raises(LoadError, match="both define"):
        select([str(tmp_path)])


def test_the_certificate_does_not_depend_on_the_number_of_workers(tmp_path):
    folder = str(write(tmp_path / "p", "p"))
    one, two = verify(folder, jobs=1), verify(folder, jobs=2)
    assert certificates.comparable(one) == certificates.comparable(two)
    assert one["as_expected"]


def test_fail_fast_leaves_a_valid_partial_certificate(tmp_path):
    certificate = verify(str(write(tmp_path / "p", "p", expect="holds")), fail_fast=True)
    claims = certificate["papers"][0]["claims"]
    assert [c["verdict"] for c in claims] == ["refuted", "not_run"]
    assert not certificate["complete"]
    assert not certificate["as_expected"]


def test_interruption_keeps_what_was_done(tmp_path):
    def interrupt(unit, outcome):
        raise KeyboardInterrupt

    certificate = verify(str(write(tmp_path / "p", "p")), on_done=interrupt)
    assert not certificate["complete"]
    assert certificate["papers"][0]["claims"][0]["checks"][0]["verdict"] == "refuted"


def test_counterexamples_are_saved_replayed_and_runnable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    certificate = verify(str(write(tmp_path / "p", "p")))
    (saved,) = counterexample.save_all(certificate, tmp_path / "counterexamples")
    data, judged = counterexample.replay(saved)
    assert judged.verdict == "refuted"
    assert data["claim"] == "C1"
    assert len(load_args(saved)["log_p"]) == 2
    ran = subprocess.run([sys.executable, "-c", data["python"]], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("(")


def load_args(path):
    from klsim.claims.instances import decode

    return {k: decode(v) for k, v in json.loads(path.read_text())["instance"].items()}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "klsim-counterexample-1"}', "\x00", "[" * 5000])
def test_hostile_counterexample_files(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(LoadError, match=r"x\.json"):
        counterexample.replay(path)


def test_a_counterexample_cannot_choose_code_from_elsewhere(tmp_path, monkeypatch):
    folder = write(tmp_path / "elsewhere", "p")
    monkeypatch.chdir(tmp_path)
    (saved,) = counterexample.save_all(verify(str(folder)), tmp_path / "counterexamples")
    data = json.loads(saved.read_text())
    saved.write_text(json.dumps(data | {"folder": str(folder)}))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(LoadError, match="not below the current directory"):
        counterexample.replay(saved)


def test_load_check_names_what_is_missing(tmp_path):
    folder = write(tmp_path / "p", "p")
    assert load_check(folder, "C1", "symmetric").name == "symmetric"
    with pytest.raises(LoadError, match="C9"):
        load_check(folder, "C9", "symmetric")
    with pytest.raises(LoadError, match="nope"):
        load_check(folder, "C1", "nope")


def test_certificates_round_trip_and_refuse_other_files(tmp_path):
    certificate = verify(str(write(tmp_path / "p", "p")))
    certificates.write(certificate, tmp_path / "c.json")
    again = certificates.read(tmp_path / "c.json")
    assert certificates.comparable(again) == certificates.comparable(certificate)
    for text in ("{}", "[]", "not json", '{"schema": 99, "papers": []}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json"):
            certificates.read(tmp_path / "bad.json")


def test_the_schema_is_kept(tmp_path):
    import jsonschema

    import klsim.claims

    schema = json.loads((Path(klsim.claims.__file__).parent / "certificate.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for fail_fast in (False, True):
        certificate = verify(str(write(tmp_path / "p", "p", expect="holds")), fail_fast=fail_fast)
        jsonschema.validate(certificates.jsonable(certificate), schema)


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_certificate(tmp_path):
    distributed = pytest.importorskip("distributed")
    folder = str(write(tmp_path / "p", "p"))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        there = verify(folder, scheduler=cluster.scheduler_address)
    assert certificates.comparable(there) == certificates.comparable(verify(folder))


@pytest.mark.slow
def test_a_killed_dask_worker_costs_time_not_results(tmp_path):
    distributed = pytest.importorskip("distributed")
    folder = str(write(tmp_path / "p", "p"))
    killed = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        workers = [w.process.pid for w in cluster.workers.values()]

        def kill_one(unit, outcome):
            if not killed:
                killed.append(workers[0])
                os.kill(workers[0], signal.SIGKILL)

        there = verify(folder, scheduler=cluster.scheduler_address, on_done=kill_one)
    assert killed
    assert certificates.comparable(there) == certificates.comparable(verify(folder))


def with_check(folder: Path, body: str) -> str:
    """A paper with one good claim and one whose check does ``body``."""
    write(folder, "p")
    text = f"""
        C3 = paper.claim("C3", "ends badly")

        @C3.check(Inequality(), Space(p=Policies()), batched=False, instances=20, uncontrolled="it never returns")
        def bad(p):
            import os, signal, sys
            {body}
    """
    with (folder / "claims.py").open("a") as file:
        file.write(textwrap.dedent(text))
    return str(folder)


@pytest.mark.parametrize(
    ("body", "message"), [("sys.exit(0)", "called sys.exit(0)"), ("os._exit(0)", "called os._exit(0)")]
)
def test_a_check_that_ends_the_process_is_an_error_of_its_claim(tmp_path, body, message):
    *good, bad = verify(with_check(tmp_path / "p", body))["papers"][0]["claims"]
    assert [c["verdict"] for c in good] == ["refuted", "holds"]
    assert bad["verdict"] == "error"
    assert bad["checks"][0]["summary"] == message
    assert "p" in bad["checks"][0]["instance"]


def test_a_worker_that_dies_costs_its_claim_not_the_run(tmp_path):
    *good, bad = verify(with_check(tmp_path / "p", "os.kill(os.getpid(), signal.SIGKILL)"), jobs=2)["papers"][0][
        "claims"
    ]
    assert [c["verdict"] for c in good] == ["refuted", "holds"]
    assert bad["verdict"] == "error"
    assert "worker process died" in bad["checks"][0]["summary"]


def test_a_worker_that_dies_once_is_tried_again(tmp_path):
    once = tmp_path / "died"
    body = f"""
            if not os.path.exists({str(once)!r}):
                open({str(once)!r}, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return 0.0, 1.0 + p[0] ** 2"""
    certificate = verify(with_check(tmp_path / "p", body.strip()), jobs=2)
    assert [c["verdict"] for c in certificate["papers"][0]["claims"]] == ["refuted", "holds", "holds"]


def test_several_seeds_report_the_worst(tmp_path):
    text = """
        import numpy as np
        from klsim.claims import Effect, Paper
        paper = Paper("p", title="x")

        @paper.claim("C1", "x").check(Effect(seeds=5), uncontrolled="a coin")
        def coin(rng):
            return rng.standard_normal() + 1.0
    """
    (tmp_path / "claims.py").write_text(textwrap.dedent(text))
    single = [verify(str(tmp_path), seed=s)["papers"][0]["claims"][0] for s in range(8)]
    bad = [s for s, claim in enumerate(single) if not claim["as_expected"]]
    assert 0 < len(bad) < 8  # a design without power: the report has to say so
    together = verify(str(tmp_path), seeds=range(8))
    (claim,) = together["papers"][0]["claims"]
    assert claim["unexpected_at"] == bad
    assert claim["seed"] in bad
    assert claim["of_seeds"] == 8
    assert claim["checks"] == [c | {"seconds": claim["checks"][0]["seconds"]} for c in single[claim["seed"]]["checks"]]
    assert not together["as_expected"]


def test_a_selection_goes_into_the_certificate_that_is_there(tmp_path):
    folder = str(write(tmp_path / "p", "p"))
    whole = certificates.jsonable(verify(folder))
    part = certificates.jsonable(verify(f"{folder}", seed=5))
    part["papers"][0]["claims"] = part["papers"][0]["claims"][:1]
    merged = certificates.merge(whole, part)
    assert [(c["id"], c["seed"], c["stale"]) for c in merged["papers"][0]["claims"]] == [
        ("C1", 5, False),
        ("C2", 0, False),
    ]
    assert merged["totals"]["claims"] == 2
    assert certificates.missing_from(merged, ["p"]) == ""
    assert certificates.missing_from(part, ["p"]) == "it covers 1 of the 2 claims of p"
    assert certificates.missing_from(merged, ["p", "q"]) == "it does not cover q"
    part["papers"][0]["files"] = {"claims.py": "changed"}
    stale = certificates.merge(whole, part)
    assert [c["stale"] for c in stale["papers"][0]["claims"]] == [False, True]
    assert "p/C2 was run before its file changed" in certificates.missing_from(stale, ["p"])


def test_the_certificate_says_where_and_with_what_it_was_made(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "setting.py").write_text("x = 1")
    certificate = verify(str(write(tmp_path / "p", "p")))
    environment = certificate["environment"]
    assert environment["cpu"]
    assert environment["git"] is None
    assert "numpy" in environment["versions"]
    assert set(certificate["papers"][0]["files"]) == {"claims.py", "setting.py"}
    first, _ = certificate["papers"][0]["claims"]
    assert "klsim.divergences.kl" in first["checks"][0]["library"]
    assert first["checks"][0]["line"] > 0
    assert certificate["totals"] == {
        "claims": 2, "as_expected": 2, "skipped": 0, "not_run": 0, "open": 0, "controls": 2, "told_apart": 2,
        "uncontrolled": 0, "refuted": 1, "refuted_by_origin": {"derived": 1},
    }  # fmt: skip


def test_counterexamples_go_when_the_claim_holds_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "p", "p")
    certificate = verify(str(folder))
    (saved,) = counterexample.save_all(certificate, tmp_path / "counterexamples")
    assert json.loads(saved.read_text())["folder"] == "../p"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(LoadError, match="not below the current directory"):
        counterexample.replay(saved)
    check = certificate["papers"][0]["claims"][0]["checks"][0]
    check["name"] = "renamed"
    (renamed,) = counterexample.save_all(certificate, tmp_path / "counterexamples")
    assert list(saved.parent.iterdir()) == [renamed]
    check["name"], check["verdict"] = "symmetric", "holds"
    assert counterexample.save_all(certificate, tmp_path / "counterexamples") == []
    assert not saved.exists()


def test_a_new_paper_verifies_and_draws_at_once(tmp_path, monkeypatch):
    from klsim.claims.scaffold import write_paper
    from klsim.report.figures import FigureTask

    files = write_paper("my-paper", 'A "title"', tmp_path)
    assert [f.name for f in files] == ["claims.py", "setting.py", "figures.py", "README.md"]
    assert verify(str(tmp_path / "my-paper"), examples=20)["as_expected"]
    drawn = FigureTask(str(tmp_path / "my-paper"), "my-paper", "reward-against-beta", str(tmp_path / "out")).run()
    assert not drawn.error
    with pytest.raises(ValueError, match="exists already"):
        write_paper("my-paper", "x", tmp_path)
    with pytest.raises(ValueError, match="slug"):
        write_paper("../evil", "x", tmp_path)


def test_bad_runner_arguments(tmp_path):
    folder = str(write(tmp_path / "p", "p"))
    with pytest.raises(ValueError, match="jobs"):
        verify(folder, jobs=0)


def test_a_claim_without_its_module_is_skipped(tmp_path):
    from klsim.claims import Identity, Paper, verify
    from klsim.report.figures import Figures

    made = Paper("optional", title="Needs something that is not there")
    claim = made.claim("C1", "never runs", requires=("surely_not_installed",))

    @claim.check(Identity(), examples=[{"x": 1.0}])
    def one(x):
        raise AssertionError("must not run")

    @one.control("nor this")
    def two(x):
        raise AssertionError("must not run")

    other = made.claim("C2", "runs")

    @other.check(Identity(), examples=[{"x": 1.0}])
    def same(x):
        return x, 1.0

    @same.control("another number")
    def different(x):
        return x, 2.0

    certificate = verify(made)
    first, second = certificate["papers"][0]["claims"]
    assert first["verdict"] == "skipped"
    assert first["as_expected"]
    assert "pip install surely_not_installed" in first["checks"][0]["summary"]
    assert second["verdict"] == "holds"
    assert certificate["as_expected"]
    assert certificate["complete"]
    figure = Figures().figure("f", title="", caption="", requires=("surely_not_installed",))(lambda run: {})
    assert figure.requires == ("surely_not_installed",)


def test_claims_import_what_lies_beside_them_and_in_the_current_folder(tmp_path, monkeypatch):
    here, there = tmp_path / "here", write(tmp_path / "there", "one")
    here.mkdir()
    for folder, name in ((here, "in_the_current_folder"), (there, "beside_the_claims")):
        (folder / f"{name}.py").write_text("TWO = 2.0\n")
    file = there / "claims.py"
    file.write_text(f"from in_the_current_folder import TWO\nfrom beside_the_claims import TWO\n{file.read_text()}")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert [s.paper.slug for s in select([str(there)])] == ["one"]


def test_a_paper_that_is_named_is_loaded_alone(tmp_path, monkeypatch):
    write(tmp_path / "papers" / "one", "one")
    broken = write(tmp_path / "papers" / "two", "two") / "claims.py"
    broken.write_text("raise RuntimeError('not asked for')\n")
    monkeypatch.chdir(tmp_path)
    assert [s.paper.slug for s in select(["one"])] == ["one"]
    assert [s.paper.slug for s in select(["one/C1"])] == ["one"]
    for patterns in (["o*"], [], ["one", "three"]):
        with pytest.raises(LoadError, match="not asked for"):
            select(patterns)
