"""Files that are never half written (a kill leaves the old file or the new one), and their text on a terminal."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from pathlib import Path

__all__ = ["printable", "write_atomically"]

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SHOWN = {c: repr(chr(c))[1:-1] for c in _CONTROLS if chr(c) not in "\n\t"}


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
    _remove_left_over(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{os.getpid()}.", suffix=".part")
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


def _umask() -> int:
    """Of this process; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove_left_over(path: Path) -> None:
    start, end = f".{path.name}.", ".part"
    for entry in os.scandir(path.parent):
        writer = entry.name.removeprefix(start).split(".")[0]
        is_part = entry.name.startswith(start) and entry.name.endswith(end) and writer.isdecimal()
        if is_part and _has_ended(int(writer), Path(entry.path)):
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
