"""``python -m docs.builder``: the site, in ``site/``. Fails on a broken link or an undocumented public name."""

from __future__ import annotations

import os
import sys

from docs.builder import check, names, pages


def main() -> int:
    if found := names.problems():
        print("\n".join(found), file=sys.stderr)
        return 1
    os.chdir(pages.ROOT)
    config = pages.write(pages.make(), pages.ROOT / "build" / "site")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    loaded = load_config(str(config), strict=True)
    loaded.plugins.on_startup(command="build", dirty=False)
    try:
        build(loaded)
    finally:
        loaded.plugins.on_shutdown()
    if found := check.problems(pages.ROOT / "site"):
        print("\n".join(found), file=sys.stderr)
        return 1
    print(f"site: {pages.ROOT / 'site' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
