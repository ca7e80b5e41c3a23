"""``python -m docs.builder [SITE]``: the site, in ``site/`` unless told otherwise.

Fails on a public name without documentation, a link that leads nowhere, and anything that a page would fetch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from docs.builder import check, names, pages
from docs.builder.accessible import make_accessible


def main() -> int:
    site = Path(sys.argv[1]).resolve() if sys.argv[1:] else pages.ROOT / "site"
    if found := names.problems():
        return _fail(found)
    config = pages.write(pages.make(), site.parent / "build" / "docs", site)
    path = os.pathsep.join([str(pages.ROOT), os.environ.get("PYTHONPATH", "")])
    asked = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(config)]
    environment = os.environ | {"PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1"}
    if subprocess.run(asked, env=environment, check=False).returncode:
        return 1
    make_accessible(site)
    if found := check.problems(site):
        return _fail(found)
    print(f"site: {site / 'index.html'}")
    return 0


def _fail(found: list[str]) -> int:
    print("\n".join(found), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
