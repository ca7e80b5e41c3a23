"""Rollouts from files: JSONL, CSV, Parquet, Arrow, or a folder of them (TRL's logged completions, a saved data set).

Files are streamed; of every row only a number for its prompt, its reward and its log-probabilities are kept.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

__all__ = ["Rollouts", "read_rollouts"]

REWARDS = ("reward", "rewards", "score")
PROMPTS = ("prompt", "prompt_id", "question", "problem")
TRL = ("step", "completion", "advantage")
"""Columns beside the rewards that TRL's trainers log with ``log_completions=True``."""
BLOCK = 1 << 24
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


@dataclass(frozen=True)
class Rollouts:
    """Columns of equal length.

    Attributes:
        prompt: an integer for every distinct prompt, the same in all `Rollouts` read with the same ``known``.
        reward: ``(rows,)``. logps: further columns by the names asked for.
        notes: which columns were chosen where none was named.
    """

    prompt: np.ndarray
    reward: np.ndarray
    logps: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def read_rollouts(
    paths: Sequence[Path | str],
    *,
    prompt: str | None = None,
    reward: Sequence[str] = (),
    where: Sequence[str] = (),
    logps: Mapping[str, str] | None = None,
    known: dict[int, int] | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Rollouts:
    """Read the columns that the frontier needs.

    Args:
        paths: files (``.jsonl``, ``.csv``, ``.parquet``, ``.arrow``, the first two also ``.gz``) or folders of them.
        prompt: its column; ``prompt``, ``prompt_id``, ``question`` or ``problem`` if None.
        reward: its column, or several to be added up, each with an optional weight (``0.5*format``); ``reward``,
            ``rewards`` or ``score`` if empty, or the one reward column of TRL's logs.
        where: ``column=value``: only rows in which it holds; TRL's logs of several steps need ``step=1`` or ``step=*``.
        logps: name -> column, of log-probabilities.
        known: prompts seen before (filled in), so that two calls number prompts alike.
        on_rows: called with the number of rows read so far.

    Raises:
        ValueError: a file, row and column, and what is wrong there. FileNotFoundError.
    """
    made = _Reader(prompt, tuple(reward), _conditions(where), dict(logps or {}), {} if known is None else known)
    files = [file for path in paths for file in _files(Path(path))]
    if not files:
        raise ValueError("paths: needs at least one file")
    for file in files:
        made.read(file, on_rows)
    return made.done(files)


def _conditions(where: Sequence[str]) -> dict[str, str]:
    out = {}
    for text in where:
        column, equals, value = text.partition("=")
        if not equals or not column.strip():
            raise ValueError(f"where {text!r}: write column=value")
        out[column.strip()] = value.strip()
    return out


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if path.is_file():
        _format(path)
        return [path]
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", [])
        raise ValueError(
            f"{path}: holds the splits {', '.join(splits)}; name one, e.g. {path / (splits or ['train'])[0]}"
        )
    found = sorted(p for p in path.iterdir() if p.is_file() and _known(p))
    if (path / "dataset_info.json").is_file():  # a saved data set: its Arrow files, not its metadata
        found = [p for p in found if p.suffix == ".arrow"]
    if not found:
        raise ValueError(f"{path}: has no {', '.join(SUFFIXES)} files")
    return found


def _known(path: Path) -> bool:
    return path.with_suffix("").suffix in SUFFIXES if path.suffix == ".gz" else path.suffix in SUFFIXES


def _format(path: Path) -> str:
    if not _known(path):
        raise ValueError(f"{path}: is not one of {', '.join(SUFFIXES)} (the first four also .gz)")
    return SUFFIXES[path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix]


class _Reader:
    def __init__(
        self,
        prompt: str | None,
        reward: tuple[str, ...],
        where: dict[str, str],
        logps: dict[str, str],
        known: dict[int, int],
    ) -> None:
        self.prompt, self.reward, self.where, self.logps, self.known = prompt, reward, where, logps, known
        self.columns: dict[str, list[np.ndarray]] = {name: [] for name in ("prompt", "reward", *logps)}
        self.notes: list[str] = []
        self.rows = 0
        self.steps: set[Any] = set()

    def read(self, file: Path, on_rows: Callable[[int], None]) -> None:
        kind = _format(file)
        names = _header(file, kind)
        prompt = self._prompt(file, names)
        rewards = self._rewards(file, names)
        logging = set(TRL) <= set(names) and "step" not in self.where
        others = [*self.logps.values(), *self.where, *(["step"] if logging else [])]
        needed = list(dict.fromkeys([prompt, *rewards, *others]))
        for name in (*self.where, *self.logps.values()):
            if name not in names:
                _fail(file, f"has no column {name!r} (there are {', '.join(names)})")
        start = 0
        for batch in _batches(file, kind, needed, [*rewards, *self.logps.values()], prompt):
            rows = batch.num_rows
            if rows:
                self._add(file, start, batch, prompt, rewards, logging)
            start += rows
            self.rows += rows
            on_rows(self.rows)
        if start == 0:
            _fail(file, "has no rows")

    def _prompt(self, file: Path, names: Sequence[str]) -> str:
        if self.prompt is not None:
            if self.prompt not in names:
                _fail(file, f"has no column {self.prompt!r} for the prompt (there are {', '.join(names)})")
            return self.prompt
        found = [n for n in PROMPTS if n in names]
        if not found:
            _fail(file, f"has no column {' or '.join(PROMPTS)}; name it with --prompt (there are {', '.join(names)})")
        self._note(found[0], PROMPTS[0], "prompts")
        return found[0]

    def _rewards(self, file: Path, names: Sequence[str]) -> dict[str, float]:
        if self.reward:
            out: dict[str, float] = {}
            for text in self.reward:
                weight, column = _weighted(text, names)
                if column not in names:
                    _fail(file, f"has no column {column!r} for the reward (there are {', '.join(names)})")
                out[column] = out.get(column, 0.0) + weight
            return out
        found = [n for n in REWARDS if n in names]
        if not found and set(TRL) <= set(names):
            found = [n for n in names if n.endswith(("reward", "_func")) or n not in (*TRL, *PROMPTS)]
            if len(found) > 1:
                _fail(
                    file,
                    f"a log of TRL with several columns that may be rewards ({', '.join(found)}); name one with "
                    "--reward, or several to add them up",
                )
        if not found:
            _fail(file, f"has no column {' or '.join(REWARDS)}; name it with --reward (there are {', '.join(names)})")
        self._note(found[0], REWARDS[0], "rewards")
        return {found[0]: 1.0}

    def _note(self, column: str, usual: str, what: str) -> None:
        text = f"{what} are those of column {column!r}"
        if column != usual and text not in self.notes:
            self.notes.append(text)

    def _add(self, file: Path, start: int, batch: Any, prompt: str, rewards: dict[str, float], logging: bool) -> None:
        import pyarrow as pa

        table = pa.Table.from_batches([batch])
        keep = np.ones(batch.num_rows, dtype=bool)
        for name, value in self.where.items():
            if value != "*":
                keep &= _equal(file, name, table[name], value)
        rows = np.flatnonzero(keep)
        if not rows.size:
            return
        if logging:
            self.steps.update(table["step"].unique().to_pylist())
        total = sum(weight * _numbers(file, start, name, table[name], rows) for name, weight in rewards.items())
        self.columns["reward"].append(np.asarray(total))
        for name, column in self.logps.items():
            self.columns[name].append(_numbers(file, start, column, table[column], rows))
        self.columns["prompt"].append(self._codes(file, start, prompt, table[prompt], rows))

    def _codes(self, file: Path, start: int, name: str, column: Any, rows: np.ndarray) -> np.ndarray:
        import pyarrow as pa

        if column.null_count:
            missing = np.flatnonzero(column.is_null().to_numpy()[rows])
            if missing.size:
                _fail(file, "is missing", start + int(rows[missing[0]]), name)
        if pa.types.is_nested(column.type):  # a conversation
            texts = [json.dumps(value, sort_keys=True, default=str) for value in column.to_pylist()]
            column = pa.chunked_array([pa.array(texts)])
        encoded = column.combine_chunks().dictionary_encode()
        # a keyed 64-bit hash stands for the prompt: two of a million prompts collide with probability 3e-8
        keys = [hash(str(value)) for value in encoded.dictionary.to_pylist()]
        numbers = np.array([self.known.setdefault(key, len(self.known)) for key in keys], dtype=np.int64)
        indices = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return np.asarray(numbers[indices[rows]])

    def done(self, files: Sequence[Path]) -> Rollouts:
        shown = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"
        if len(self.steps) > 1:
            low, high = min(self.steps), max(self.steps)
            raise ValueError(
                f"{shown}: column 'step' goes from {low} to {high}: samples of different policies. Choose one with "
                f"--where step={low} (the policy before training), or --where 'step=*' if it never changed"
            )
        if not self.columns["reward"]:
            conditions = ", ".join(f"{k}={v}" for k, v in self.where.items())
            raise ValueError(f"{shown}: no row has {conditions}")
        joined = {name: np.concatenate(parts) for name, parts in self.columns.items()}
        logps = {name: joined[name] for name in self.logps}
        return Rollouts(joined["prompt"], joined["reward"], logps, tuple(self.notes))


def _weighted(text: str, names: Sequence[str]) -> tuple[float, str]:
    found = re.fullmatch(r"\s*([-+0-9.eE]+)\s*\*\s*(.+)", text)
    if text in names or found is None:
        return 1.0, text
    try:
        weight = float(found[1])
    except ValueError:
        return 1.0, text
    if not math.isfinite(weight):
        raise ValueError(f"reward {text!r}: the weight must be finite")
    return weight, found[2].strip()


def _fail(file: Path, rule: str, row: int | None = None, column: str | None = None) -> NoReturn:
    place = "" if row is None else f", row {row + 1}"
    place += "" if column is None else f", column {column!r}"
    raise ValueError(f"{file}{place}: {rule}")


def _numbers(file: Path, start: int, name: str, column: Any, rows: np.ndarray) -> np.ndarray:
    """A column of finite numbers; booleans are 0 and 1."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_null(kind):
        _fail(file, "is missing", start + int(rows[0]), name)
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        _fail(file, f"needs numbers, this column holds {kind}", start, name)
    if column.null_count:
        missing = np.flatnonzero(pc.is_null(column).to_numpy()[rows])
        if missing.size:
            _fail(file, "is missing", start + int(rows[missing[0]]), name)
    values = pc.cast(column, pa.float64()).to_numpy()[rows]
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        _fail(file, f"must be finite, got {values[bad[0]]}", start + int(rows[bad[0]]), name)
    return np.asarray(values, dtype=np.float64)


def _equal(file: Path, name: str, column: Any, value: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_nested(column.type):
        _fail(file, f"cannot be compared, it holds {column.type}", None, name)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        try:
            equal = pc.equal(column, float(value))
        except ValueError:
            _fail(file, f"holds numbers, and {value!r} is none", None, name)
    else:
        equal = pc.equal(pc.cast(column, pa.string()), value.lower() if pa.types.is_boolean(column.type) else value)
    return np.asarray(pc.fill_null(equal, False).to_numpy())


def _open(file: Path) -> Any:
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8", newline="")


def _header(file: Path, kind: str) -> list[str]:
    """Names of the columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if kind == "parquet":
            return list(pq.read_schema(file).names)
        if kind == "arrow":
            with pa.memory_map(str(file)) as source:
                return list(_arrow(source).schema.names)
        with _open(file) as text:
            first = text.readline()
            while first and not first.strip():
                first = text.readline()
            if not first:
                _fail(file, "is empty")
            if kind == "csv":
                return next(csv.reader([first]))
            if first.lstrip().startswith("["):
                _fail(file, "is one JSON array; write one object a line")
            return list(_object(file, 0, first))
    except (pa.ArrowException, OSError) as error:
        _fail(file, f"is cut off or no {kind} file ({_short(error)})")
    except UnicodeDecodeError:
        _fail(file, "is not UTF-8 text")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _object(file: Path, row: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        _fail(file, f"is no JSON ({error})", row)
    if not isinstance(found, dict):
        _fail(file, f"must be a JSON object, got {type(found).__name__}", row)
    return found


def _arrow(source: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_file(source)


def _batches(file: Path, kind: str, needed: list[str], numbers: list[str], prompt: str) -> Iterator[Any]:
    """Record batches of the needed columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if kind == "parquet":
            with pq.ParquetFile(file) as source:
                yield from source.iter_batches(columns=needed, batch_size=1 << 17)
        elif kind == "arrow":
            with pa.memory_map(str(file)) as source:
                reader = _arrow(source)
                count = getattr(reader, "num_record_batches", None)
                every = reader if count is None else map(reader.get_batch, range(count))
                for batch in every:
                    yield batch.select(needed)
        else:
            yield from (_csv if kind == "csv" else _jsonl)(file, needed, numbers, prompt)
    except pa.ArrowException as error:
        if kind in ("csv", "jsonl"):
            _find_bad_row(file, kind, needed, numbers)
        _fail(file, f"is cut off or malformed ({_short(error)})")
    except (OSError, EOFError) as error:
        _fail(file, f"is cut off or cannot be read ({_short(error)})")


def _csv(file: Path, needed: list[str], numbers: list[str], prompt: str) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    types = {name: pa.float64() for name in numbers} | {prompt: pa.string()}
    convert = arrow_csv.ConvertOptions(column_types=types, include_columns=needed, strings_can_be_null=False)
    with pa.input_stream(str(file), compression="detect") as source:
        yield from arrow_csv.open_csv(
            source,
            read_options=arrow_csv.ReadOptions(block_size=BLOCK),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=convert,
        )


def _jsonl(file: Path, needed: list[str], numbers: list[str], prompt: str) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    with _open(file) as text:
        first = _object(file, 0, next(line for line in text if line.strip()))
    kinds = {bool: pa.bool_(), str: pa.string(), int: pa.int64()}
    fields = [(n, pa.bool_() if isinstance(first.get(n), bool) else pa.float64()) for n in numbers]
    others = [n for n in needed if n not in numbers]
    known = [(n, kinds[type(first[n])]) for n in others if type(first.get(n)) in kinds]
    parse = arrow_json.ParseOptions(
        explicit_schema=pa.schema(fields + known),
        unexpected_field_behavior="ignore" if len(known) == len(others) else "infer",
    )
    with pa.input_stream(str(file), compression="detect") as source:
        options = arrow_json.ReadOptions(block_size=BLOCK)
        reader = arrow_json.open_json(source, read_options=options, parse_options=parse)
        for batch in reader:
            yield batch.select(needed)


def _find_bad_row(file: Path, kind: str, needed: list[str], numbers: list[str]) -> None:
    """The slow way to the first row that is wrong, once the fast reader has given up."""
    types: dict[str, type] = {}
    with _open(file) as text:
        rows: Iterator[tuple[int, Mapping[str, Any]]]
        if kind == "csv":
            rows = _csv_rows(file, text)
        else:
            lines = (line for line in text if line.strip())
            rows = ((i, _object(file, i, line)) for i, line in enumerate(lines))
        for row, found in rows:
            for name in needed:
                value = found.get(name)
                if value is None:
                    continue
                if name in numbers:
                    _check_number(file, row, name, value, kind)
                kept = types.setdefault(name, type(value))
                number = {kept, type(value)} <= {int, float} and name in numbers
                if kept is not type(value) and not number:
                    _fail(file, f"changes from {kept.__name__} to {type(value).__name__}", row, name)


def _csv_rows(file: Path, text: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(text, strict=True)
    names = next(reader)
    try:
        for row, cells in enumerate(reader):
            if cells and len(cells) != len(names):
                _fail(file, f"has {len(cells)} cells, the header {len(names)}", row)
            yield row, dict(zip(names, cells))
    except csv.Error as error:
        _fail(file, f"malformed ({error})", reader.line_num - 2)


def _check_number(file: Path, row: int, name: str, value: Any, kind: str) -> None:
    if kind == "csv":
        try:
            float(value or "nan")
        except ValueError:
            _fail(file, f"needs a number, got {value!r}", row, name)
    elif not isinstance(value, int | float):
        _fail(file, f"needs a number, got {json.dumps(value)[:60]}", row, name)
