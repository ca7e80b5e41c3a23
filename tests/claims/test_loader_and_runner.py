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
    C1 = paper.claim("C1", "KL is symmetric", expect={expect!r}, correction="It is not.")

    @C1.check(Identity(), Space(log_p=Policies(), log_q=Policies()), instances=2000)
    def symmetric(log_p, log_q):
        return kl(log_p, log_q), kl(log_q, log_p)

    @symmetric.control("with itself it is")
    def itself(log_p, log_q):
        return kl(log_p, log_p), 0 * kl(log_q, log_p)

    C2 = paper.claim("C2", "an effect")

    @C2.check(Effect(seeds=10), batched=False)
    def grows(rng):
        return 2 + rng.standard_normal()

    @grows.control("nothing grows")
    def nothing(rng):
        return rng.standard_normal() - 2
"""


def write(folder: Path, slug: str, expect: str = "refuted") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "claims.py").write_text(textwrap.dedent(CLAIMS.format(slug=slug, expect=expect)))
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "exactly one Paper"),
        ("def (", "line 1"),
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
    # Hypothesis shrinks to two outcomes
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
