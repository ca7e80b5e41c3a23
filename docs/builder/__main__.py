"""``python -m docs.builder``: the site, in ``site/``. Fails on a broken link or an undocumented public name."""

from __future__ import annotations

import os
import subprocess
import sys

from docs.builder import check, names, pages


def main() -> int:
    if found := names.problems():
        print("\n".join(found), file=sys.stderr)
        return 1
    config = pages.write(pages.make(), pages.ROOT / "build" / "site")
    path = os.pathsep.join([str(pages.ROOT), os.environ.get("PYTHONPATH", "")])
    asked = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(config)]
    if subprocess.run(asked, env=os.environ | {"PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1"}, check=False).returncode:
        return 1
    if found := check.problems(pages.ROOT / "site"):
        print("\n".join(found), file=sys.stderr)
        return 1
    print(f"site: {pages.ROOT / 'site' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
