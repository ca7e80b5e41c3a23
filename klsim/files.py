"""Files that are never half written (a kill leaves the old file or the new one), their text on a terminal, and
folders of the user from which modules are imported."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["importable", "part_prefix", "printable", "remove_left_over", "write_atomically"]

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SHOWN = {c: repr(chr(c))[1:-1] for c in _CONTROLS if chr(c) not in "\n\t"}


def importable(folder: Path) -> None:
    """Let files of the user import what lies in ``folder``; installed packages of the same names come first."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def printable(text: str) -> str:
    """Text of a file for a terminal: control characters (which could move the cursor, or rename the window) and those
    that turn the direction of writing are shown as escapes."""
    return text.translate(_SHOWN)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8, ``\\n`` line ends) or bytes so that ``path`` is the old or the whole new file, also after a
    kill.

    A link is followed, the mode of an existing file is kept, and what is no regular file (a device, a pipe) is
    written to. What killed runs left half written beside ``path`` is removed.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as device:
            device.write(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=part_prefix(path), suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def part_prefix(path: Path) -> str:
    """How a file or folder is called (before a random part and ``.part``) while this process writes ``path`` in it."""
    return f".{path.name}.{os.getpid()}."


def _umask() -> int:
    """Of this process; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def remove_left_over(path: Path) -> None:
    """Remove what killed processes left half written beside ``path``."""
    start, end = f".{path.name}.", ".part"
    if not path.parent.is_dir():
        return
    for entry in os.scandir(path.parent):
        writer = entry.name.removeprefix(start).split(".")[0]
        is_part = entry.name.startswith(start) and entry.name.endswith(end) and writer.isdecimal()
        if not is_part or not _has_ended(int(writer), Path(entry.path)):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)


def _has_ended(process: int, part: Path) -> bool:
    """Whether a writer is gone: its process, or (where that cannot be asked, or lives elsewhere) a day."""
    try:
        old = time.time() - part.stat().st_mtime > 86400
    except FileNotFoundError:
        return False
    if os.name != "posix":
        return old
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return old
    return old
