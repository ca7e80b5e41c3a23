"""Every page of the site as Markdown, from what is committed: nothing is run, nothing is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from docs.builder import papers, reference
from docs.builder.dialect import from_github, outside_code, qualified
from docs.builder.links import ASSETS, moved
from docs.builder.names import public_modules

__all__ = ["Site", "make", "write"]

ROOT = Path(__file__).parents[2]
WIDE = dict.fromkeys(("objectives.md", "audit-gallery.md", "frontier-coverage.md"), "---\nhide: [toc]\n---\n\n")
"""Pages with wide tables have no table of contents beside them."""


@dataclass(frozen=True)
class Site:
    """The site before it is HTML.

    Attributes:
        pages: path on the site to Markdown.
        assets: files of the repository that pages show or link to.
        config: of MkDocs, with the whole navigation.
    """

    pages: dict[str, str]
    assets: frozenset[str]
    config: dict[str, Any]


def make(root: Path = ROOT) -> Site:
    """Read the repository.

    Raises:
        ValueError: a link to nothing, a table of findings that cannot be read, LaTeX that cannot be shown.
    """
    slugs = papers.papers(root)
    readmes = {s: (root / "papers" / s / "README.md").read_text(encoding="utf-8") for s in slugs}
    sources = {s: papers.source_of(root / "papers" / s) for s in slugs}
    own = {p.relative_to(root).as_posix(): p for p in sorted((root / "docs").rglob("*.md"))}
    where = {name: PurePosixPath(name).relative_to("docs").as_posix() for name in own}
    where |= {f"papers/{s}/README.md": f"papers/{s}.md" for s in slugs}
    where |= {
        "CHANGELOG.md": "changelog.md",
        "CONTRIBUTING.md": "contributing.md",
        "benchmarks/README.md": "benchmarks.md",
    }
    made = {"findings.md", "papers/index.md", *reference.pages()}  # of no file, linked to as if they lay in docs/
    linkable = where | {f"docs/{page}": page for page in made}
    texts = {name: (root / name).read_text(encoding="utf-8") for name in where}
    texts |= {f"papers/{s}/README.md": papers.paper_page(readmes[s], sources[s]) for s in slugs}
    pages, assets = dict(reference.pages()), set[str]()
    for name, page in where.items():
        text, linked_files = moved(texts[name], PurePosixPath(name), PurePosixPath(page), root, linkable)
        pages[page] = WIDE.get(page, "") + outside_code(from_github(text), partial(linked_names, page=page))
        assets |= linked_files
    pages["findings.md"] = papers.findings_page(readmes)
    pages["papers/index.md"] = papers.papers_index(readmes, sources)
    return Site(pages, frozenset(assets), _config(root, slugs))


def linked_names(text: str, page: str = "") -> str:
    """Full names of klsim in prose become references, in the table of objectives those of the losses, too."""
    module = "klsim.objectives" if page == "objectives.md" else ""
    lines = text.split("\n")
    kept = ("#", "<", "    ")
    return "\n".join(
        line if line.startswith(kept) else qualified(line, module if line.startswith("|") else "") for line in lines
    )


def _config(root: Path, slugs: list[str]) -> dict[str, Any]:
    config = yaml.safe_load((root / "mkdocs.yml").read_text(encoding="utf-8"))
    whole = {
        "papers": ["papers/index.md", *({s: f"papers/{s}.md"} for s in slugs)],
        "reference": reference.nav(),
    }
    version = public_modules()["klsim"].file.read_text(encoding="utf-8").split('__version__ = "')[1].split('"')[0]
    config["copyright"] = f"klsim {version}, {config['copyright']}"
    config["nav"] = [_expanded(entry, whole) for entry in config["nav"]]
    return config


def _expanded(entry: Any, whole: dict[str, list[Any]]) -> Any:
    match entry:
        case dict():
            return {title: _expanded(value, whole) for title, value in entry.items()}
        case list():
            return [_expanded(value, whole) for value in entry]
        case str() if entry.rstrip("/") in whole:
            return whole[entry.rstrip("/")]
    return entry


def write(made: Site, folder: Path, site: Path, root: Path = ROOT) -> Path:
    """Write pages, assets and ``mkdocs.yml`` under ``folder``, for a site that goes to ``site``.

    Returns the path of the configuration.
    """
    source = folder / "pages"
    wanted = {source / path: text.encode() for path, text in made.pages.items()}
    wanted |= {source / ASSETS / name: (root / name).read_bytes() for name in made.assets}
    for own in ("klsim.css", "accessible.js", "iframe-worker.js"):
        wanted[source / "assets" / own] = (root / "docs" / "builder" / own).read_bytes()
    explorer = root / "docs" / "explorer"
    wanted |= {source / "explorer" / p.name: p.read_bytes() for p in sorted(explorer.iterdir())}
    for old in sorted(source.rglob("*")):
        if old.is_file() and old not in wanted:
            old.unlink()
    for file, content in wanted.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    config = made.config | {"docs_dir": str(source), "site_dir": str(site)}
    config["plugins"] = [_with_paths(plugin, root) for plugin in config["plugins"]]
    file = folder / "mkdocs.yml"
    file.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file


def _with_paths(plugin: Any, root: Path) -> Any:
    """mkdocstrings finds the package in the repository."""
    match plugin:
        case {"mkdocstrings": {"handlers": {"python": python}}}:
            return {"mkdocstrings": {"handlers": {"python": python | {"paths": [str(root)]}}}}
    return plugin
