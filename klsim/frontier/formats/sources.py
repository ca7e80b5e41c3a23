"""Files, folders, globs, standard input and fsspec addresses (``hf://``, ``s3://`` …) as a list of sources.

A source knows its format (by its suffix, behind which ``.gz``, ``.zst``, ``.bz2`` or ``.lz4`` may stand) and what its
place says: ``file``, its name, and ``step``, a number in the name of the file or of a folder (``step_100/``).
Installed packages add formats through the entry-point group ``klsim.rollouts``: the name is a suffix, the object a
function of a path that yields one mapping a row.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

__all__ = ["SUFFIXES", "Source", "fail", "find", "plugins"]

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".eval": "eval",
}
"""How a file is read, by its suffix."""
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}
STEP = re.compile(r"(?:^|[_-])(?:step|checkpoint|iter|iteration)s?[_-]?(\d+)$")
GROUP = "klsim.rollouts"


@dataclass(frozen=True)
class Source:
    """One file.

    Attributes:
        path: of it, or its address, or ``-``. kind: its format, or the suffix of a plug-in. compression: or None.
        implied: columns that its place implies. found: in a folder or by a pattern, not named itself.
    """

    path: str
    kind: str
    compression: str | None = None
    implied: tuple[tuple[str, str], ...] = ()
    found: bool = False

    @property
    def remote(self) -> bool:
        """An address of fsspec."""
        return "://" in self.path

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        """Its bytes, decompressed, as a pyarrow stream (a seekable file if nothing compresses it)."""
        import pyarrow as pa

        if self.path == "-":
            with pa.PythonFile(io.BytesIO(_standard_input()), mode="r") as plain:
                yield plain
        elif self.remote:
            import fsspec

            with fsspec.open(self.path, "rb") as raw, _decompressed(pa.PythonFile(raw, mode="r"), self) as stream:
                yield stream
        elif self.compression:
            with pa.input_stream(self.path, compression=self.compression) as stream:
                yield stream
        else:
            with pa.OSFile(self.path, "rb") as stream:
                yield stream

    @contextlib.contextmanager
    def text(self) -> Iterator[Any]:
        """Its lines; a byte order mark is skipped."""
        with self.open() as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as lines:
            yield lines


@contextlib.contextmanager
def _decompressed(stream: Any, source: Source) -> Iterator[Any]:
    import pyarrow as pa

    if source.compression is None:
        yield stream
    else:
        with pa.CompressedInputStream(stream, source.compression) as plain:
            yield plain


@functools.lru_cache(maxsize=1)
def _standard_input() -> bytes:
    """All of it: formats are looked at before they are read."""
    return sys.stdin.buffer.read()


def fail(source: Source | str, rule: str, row: int | None = None, column: str | None = None) -> NoReturn:
    """Raise a ValueError that names the file, the row (given from 0, shown from 1) and the column."""
    name = source if isinstance(source, str) else ("standard input" if source.path == "-" else source.path)
    place = "" if row is None else f", row {row + 1}"
    place += "" if column is None else f", column {column!r}"
    raise ValueError(f"{name}{place}: {rule}")


def plugins() -> Mapping[str, Any]:
    """Entry points of `GROUP` by the suffix that they read."""
    from importlib.metadata import entry_points

    return {("" if e.name.startswith(".") else ".") + e.name: e for e in entry_points(group=GROUP)}


def find(paths: Sequence[Path | str]) -> list[Source]:
    """The sources behind paths, in the order given, folders and patterns sorted by name.

    Raises:
        FileNotFoundError, ValueError: nothing there, a format that is not known, a file that is named twice.
    """
    out: list[Source] = []
    for path in map(str, paths):
        out += _sources(path)
    if not out:
        raise ValueError("paths: needs at least one file")
    seen: set[str] = set()
    for source in out:
        real = source.path if source.remote or source.path == "-" else str(Path(source.path).resolve())
        if real in seen:
            fail(source, "is given twice; its samples would count twice")
        seen.add(real)
    return out


def _sources(path: str) -> list[Source]:
    if path == "-":
        return [Source("-", _kind_of_bytes(_standard_input()))]
    if "://" in path:
        return _remote(path)
    if Path(path).is_dir():
        return _folder(Path(path))
    if Path(path).exists():
        return [_source(path, found=False)]
    if any(c in path for c in "*?["):
        import glob

        matches = sorted(glob.glob(path, recursive=True))
        found = [s for m in matches for s in (_folder(Path(m)) if Path(m).is_dir() else _known([m], ""))]
        if found:
            return found
    raise FileNotFoundError(f"{path}: there is no such file or folder")


def _remote(path: str) -> list[Source]:
    try:
        import fsspec
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path}: addresses need fsspec: pip install 'klsim[remote]'") from None
    try:
        files, root = fsspec.core.url_to_fs(path)
        if any(c in path for c in "*?["):
            names = sorted(files.glob(root))
        elif files.isdir(root):
            names = sorted(n for n in files.find(root) if not _hidden(str(n)[len(root) :]))
        elif files.exists(root):
            return [_source(path, found=False)]
        else:
            names = []
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({str(error).splitlines()[0] if str(error) else error!r})") from None
    found = _known([files.unstrip_protocol(n) for n in names], path)
    if not found:
        raise FileNotFoundError(f"{path}: there is no such file or folder, or none that holds rollouts")
    return found


def _folder(path: Path) -> list[Source]:
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", [])
        fail(str(path), f"holds the splits {', '.join(splits)}; name one, e.g. {path / (splits or ['train'])[0]}")
    names = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(str(p.relative_to(path))))
    if (path / "dataset_info.json").is_file():  # a saved data set: its Arrow files, not its metadata
        names = [p for p in names if p.suffix == ".arrow"]
    found = _known(map(str, names), str(path))
    if not found:
        fail(str(path), f"has no {', '.join(_suffixes())} files")
    return found


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "__")) for part in PurePosixPath(path.lstrip("/")).parts)


def _known(paths: Iterable[str], root: str) -> list[Source]:
    """Those of a known format, with what their place below ``root`` implies."""
    return [_source(p, found=True, root=root) for p in paths if _split(p)[0] in _suffixes()]


def _suffixes() -> list[str]:
    return [*SUFFIXES, *(s for s in plugins() if s not in SUFFIXES)]


def _split(path: str) -> tuple[str, str | None, str]:
    """Suffix, compression, and name without both."""
    name = PurePosixPath(path)
    compression = COMPRESSIONS.get(name.suffix)
    if compression:
        name = name.with_suffix("")
    return name.suffix, compression, name.with_suffix("").name


def _source(path: str, *, found: bool, root: str = "") -> Source:
    suffix, compression, stem = _split(path)
    if suffix not in _suffixes():
        fail(path, f"is not one of {', '.join(_suffixes())} (also {', '.join(COMPRESSIONS)} behind it)")
    if compression and SUFFIXES.get(suffix) in ("parquet", "arrow", "eval", None):
        fail(path, f"{suffix} files are read without {compression} around them")
    implied = [("file", stem)]
    parts = [stem, *reversed(PurePosixPath(path[len(root) :] if root else path).parts[:-1])] if found else [stem]
    step = next((m[1] for m in map(STEP.search, parts) if m), None)
    if step is not None:
        implied.append(("step", str(int(step))))
    return Source(path, SUFFIXES.get(suffix, suffix), compression, tuple(implied), found)


def _kind_of_bytes(data: bytes) -> str:
    if data[:4] == b"PAR1":
        return "parquet"
    if data[:6] == b"ARROW1":
        return "arrow"
    start = data.lstrip(b"\xef\xbb\xbf \r\n\t")[:1]
    return "json" if start in (b"{", b"[") else "tsv" if b"\t" in data.split(b"\n", 1)[0] else "csv"


def reader_of(suffix: str) -> Callable[[str], Iterable[Mapping[str, Any]]]:
    """The function of a plug-in."""
    return plugins()[suffix].load()
