"""Every public name has a docstring with a sentence, and a place in the reference."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest
import yaml

from docs.builder import names, pages, reference

ROOT = Path(__file__).parents[2]


def test_every_public_name_has_a_docstring_with_a_sentence():
    assert names.problems() == []


def test_what_the_source_says_is_what_python_exports():
    """Modules without torch; the others are read the same way."""
    for name in ("klsim", "klsim.optima", "klsim.objectives", "klsim.spaces", "klsim.claims", "klsim.divergences"):
        module = importlib.import_module(name)
        read = names.public_modules()[name]
        assert set(read.exports) == set(module.__all__)
        for exported in names.exported(read):
            home = importlib.import_module(exported.home)
            there = home if exported.is_module else getattr(home, exported.name)
            assert getattr(module, exported.name) is there


def test_every_public_name_is_on_a_reference_page():
    made = reference.pages()
    for module in names.public_modules().values():
        for name in names.exported(module):
            home = names.public_modules()[name.home]
            text = made[reference.page_of(home)]
            if name.is_module:
                assert f"::: {name.home}\n" in text or name.home == "klsim"
            elif name.home != "klsim":
                members = text.split("members: [")[1].split("]")[0].split(", ")
                assert name.name in members


def test_every_module_has_a_layer_and_a_place_in_the_navigation():
    tops = {name.split(".")[1] for name in names.public_modules() if name != "klsim"}
    assert tops == {top for group in reference.LAYERS.values() for top in group}
    listed = _leaves(reference.nav())
    assert sorted(listed) == sorted(reference.page_of(m) for m in names.public_modules().values())


def _leaves(entry):
    if isinstance(entry, str):
        return [entry]
    inside = entry if isinstance(entry, list) else entry.values()
    return [leaf for one in inside for leaf in _leaves(one)]


@pytest.mark.parametrize(
    ("text", "module", "target"),
    [
        ("kl_regularized", "klsim.optima", "klsim.optima.kl_regularized"),
        ("klsim.objectives.TokenBatch", "", "klsim.objectives.batch.TokenBatch"),
        ("TokenBatch", "klsim.objectives.kl", "klsim.objectives.batch.TokenBatch"),
        ("klsim.spaces", "", "klsim.spaces"),
        ("Bandits", "klsim.spaces", "klsim.spaces.problems.Bandits"),
        ("no_such_name", "klsim.optima", None),
    ],
)
def test_a_name_in_prose_is_the_public_name_that_it_means(text, module, target):
    assert names.address(text, module) == target


def test_nothing_undocumented_goes_unnoticed(tmp_path):
    source = tmp_path / "klsim"
    source.mkdir()
    (source / "__init__.py").write_text('"""A package."""\n__all__ = ["X", "f"]\nX = 1\n\ndef f(): pass\n')
    read = names.modules.__wrapped__(tmp_path)["klsim"]
    assert read.defined == {"X": "", "f": ""}
    assert read.exports == ("X", "f")


def test_the_extras_are_all_described():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")} == set(extras)


def test_the_conda_recipe_asks_for_what_the_project_does():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    conda = {"matplotlib": "matplotlib-base", "ml-dtypes": "ml_dtypes"}
    wanted = set()
    for requirement in project["dependencies"]:
        name, bound = requirement.replace(">=", " >=", 1).split(" ", 1)
        wanted.add(f"{conda.get(name, name)} {bound}")
    assert set(recipe["requirements"]["run"]) - {"python >=${{ python_min }}"} == wanted
    assert recipe["context"]["version"] == project["version"]
    assert f">={recipe['context']['python_min']}" == project["requires-python"]


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == cited["preferred-citation"]["version"] == project["version"]
    assert cited["repository-code"] == project["urls"]["Source"]


def test_the_configuration_is_complete():
    site = pages.make(ROOT)
    assert set(_leaves(site.config["nav"])) == {*site.pages, "explorer/index.html"}
