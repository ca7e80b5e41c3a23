"""Headless Chromium, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)


def in_chromium(page: Path | str, profile: Path, milliseconds: int = 3000) -> subprocess.CompletedProcess[str]:
    """The DOM of a page (a file or an address) after it has run (stdout), and the console (stderr)."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={profile}", f"--virtual-time-budget={milliseconds}", "--dump-dom", page if isinstance(page, str) else page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
