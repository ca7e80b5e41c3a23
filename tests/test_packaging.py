"""The wheel works outside a checkout: it carries the papers, the templates, the schema and the types."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_is_complete_and_verifies_outside_the_checkout(tmp_path):
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("klsim-*.whl")
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(target)
    for needed in (
        "klsim/py.typed", "klsim/report/templates/base.html", "klsim/claims/certificate.schema.json",
        "klsim_papers/gopd/claims.py", "klsim_papers/gopd/setting.py", "klsim_papers/gopd/figures.py",
        "klsim_papers/gopd/README.md",
    ):  # fmt: skip
        assert needed in names, needed
    code = f"import sys; sys.path.insert(0, {str(target)!r}); from klsim.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "verify", "klbayes/C1", "--examples", "5"], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 of 1 claims as expected" in ran.stdout


def test_every_version_keeps_its_pages(tmp_path):
    path = ROOT / "packaging" / "pages.py"
    site, pages = tmp_path / "site", tmp_path / "pages"
    site.mkdir()
    pages.mkdir()
    for version, there in (("0.9.0", "0.9.0"), ("0.10.0", "0.10.0 0.9.0"), ("0.9.1", "0.10.0 0.9.1 0.9.0")):
        (site / "index.html").write_text(version)
        ran = subprocess.run([sys.executable, path, site, pages, version], capture_output=True, text=True, check=True)
        assert ran.stdout == f"versions: {there}\n"
    assert (pages / "latest" / "index.html").read_text() == "0.10.0"
    assert (pages / "0.9.0" / "index.html").read_text() == "0.9.0"
    bad = subprocess.run([sys.executable, path, site, pages, "../x"], capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert bad.stderr == "VERSION '../x': must be numbers with dots, 0.1.0\n"


def pins(name):
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return dict(line.lower().split("==") for line in lines if line)


def test_the_pins_are_the_bounds_of_the_core_and_above_them():
    def numbers(version):
        return tuple(int(n) for n in re.findall(r"\d+", version))

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest, newest = pins("constraints-oldest.txt"), pins("constraints.txt")
    for line in project["dependencies"]:
        name, bound = re.match(r"([\w-]+)>=([\d.]+)", line).groups()
        lowest = numbers(oldest.pop(name.lower()))
        given = numbers(bound)
        assert lowest == given + (0,) * (len(lowest) - len(given)), line
        assert numbers(newest[name.lower()]) >= lowest, line
    assert set(oldest) == {"llvmlite"}  # numba's other half
