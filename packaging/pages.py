"""``python packaging/pages.py SITE PAGES VERSION``: put a version's site beside those of the other versions.

``PAGES/<version>/`` and ``PAGES/latest/`` become SITE (latest only if no newer version is there), ``PAGES/index.html``
leads to latest and lists all versions.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

_VERSION = re.compile(r"\d+(\.\d+)*")


def place(site: Path, pages: Path, version: str) -> list[str]:
    """Copy the site; the versions that are there now, newest first.

    Raises:
        ValueError: VERSION is not numbers with dots; SITE has no index.html.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"VERSION {version!r}: must be numbers with dots, 0.1.0")
    if not (site / "index.html").is_file():
        raise ValueError(f"SITE {site}: has no index.html")
    _replace(site, pages / version)
    versions = sorted((p.name for p in pages.iterdir() if p.is_dir() and _VERSION.fullmatch(p.name)), key=_order)[::-1]
    if versions[0] == version:
        _replace(site, pages / "latest")
    links = "".join(f'<li><a href="{v}/index.html">{v}</a></li>' for v in versions)
    (pages / "index.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>klsim</title>'
        '<meta http-equiv="refresh" content="0; url=latest/index.html">'
        f'<p><a href="latest/index.html">klsim, the latest version</a></p><ul>{links}</ul></html>\n',
        encoding="utf-8",
    )
    return versions


def _order(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _replace(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)


if __name__ == "__main__":
    try:
        print("versions:", *place(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
    except (IndexError, ValueError) as error:
        sys.exit(f"{__doc__ if isinstance(error, IndexError) else error}")
