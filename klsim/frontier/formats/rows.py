"""Rows of a source in chunks: Arrow record batches where pyarrow reads the file, lists of objects elsewhere.

pyarrow is fast and strict: where it gives up (numbers mixed with booleans, messages of changing shape, lone surrogates)
the rows are read again one by one, which also finds the row that is wrong.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klsim.frontier.formats.sources import Source, fail, reader_of

__all__ = ["Chunk", "Layout", "fast_chunks", "layout", "objects", "slow_chunks"]

BLOCK = 1 << 24
BATCH = 1 << 16
FIRST = 200
"""Rows that are looked at for the names of columns."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Chunk:
    """Rows ``start, start + 1, …`` of a file: columns as Arrow arrays or lists of Python values."""

    start: int
    rows: int
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """What a file looks like: names of its columns, and its first rows (not of Parquet and Arrow: their types)."""

    names: tuple[str, ...]
    first: tuple[Row, ...]
    kind: str


def layout(source: Source) -> Layout:
    """Look at the beginning of a file.

    Raises:
        ValueError: no rows, no such format, cut off.
    """
    import pyarrow as pa

    kind = _json_kind(source) if source.kind in ("json", "jsonl") else source.kind
    try:
        if kind == "parquet":
            import pyarrow.parquet as pq

            with source.open() as stream, pq.ParquetFile(stream) as file:
                return Layout(tuple(file.schema_arrow.names), (), kind)
        if kind == "arrow":
            with source.open() as stream:
                return Layout(tuple(_arrow(stream).schema.names), (), kind)
        if kind in ("csv", "tsv"):
            return Layout(_header(source, kind), (), kind)
        first = tuple(itertools.islice(_objects(source, kind), FIRST))
    except pa.ArrowException as error:
        fail(source, f"is cut off or no {kind} file ({short(error)})")
    except (OSError, EOFError) as error:
        fail(source, f"is cut off or no {kind} file ({short(error)})")
    except UnicodeDecodeError:
        fail(source, "is not UTF-8 text")
    if not first:
        fail(source, "has no rows")
    return Layout(tuple(dict.fromkeys(name for row in first for name in row)), first, kind)


def short(error: Exception) -> str:
    """The first line of an error."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _json_kind(source: Source) -> str:
    """``array`` for one JSON array a file, ``jsonl`` for one object a line, whatever the suffix."""
    try:
        with source.open() as stream:
            start = stream.read(4096).lstrip(b"\xef\xbb\xbf \r\n\t")
            while not start:
                more = stream.read(4096)
                if not more:
                    fail(source, "is empty")
                start = more.lstrip()
    except OSError as error:
        fail(source, f"is cut off or no JSON file ({short(error)})")
    return "array" if start[:1] == b"[" else "jsonl"


def _header(source: Source, kind: str) -> tuple[str, ...]:
    with source.text() as text:
        names = next((row for row in csv.reader(text, delimiter="\t" if kind == "tsv" else ",") if row), None)
    if names is None:
        fail(source, "is empty")
    twice = [n for i, n in enumerate(names) if n in names[:i]]
    if twice:
        fail(source, f"its header names the column {twice[0]!r} twice")
    return tuple(names)


def _objects(source: Source, kind: str) -> Iterator[Row]:
    """Rows one by one."""
    if kind == "jsonl":
        with source.text() as text:
            for row, line in enumerate(line for line in text if line.strip()):
                yield _object(source, row, line)
    elif kind == "array":
        with source.text() as text:
            try:
                found = json.load(text)
            except ValueError as error:
                fail(source, f"is no JSON ({error})")
        for row, value in enumerate(found):
            if not isinstance(value, dict):
                fail(source, f"must be a JSON object, got {type(value).__name__}", row)
            yield value
    elif kind == "eval":
        yield from _inspect(source)
    elif kind in ("csv", "tsv"):
        yield from _csv_rows(source, kind)
    else:
        for row, value in enumerate(reader_of(kind)(source.path)):
            if not isinstance(value, Mapping):
                fail(source, f"the reader of {kind} files must yield mappings, got {type(value).__name__}", row)
            yield value


def _object(source: Source, row: int, line: str) -> Row:
    try:
        found = json.loads(line)
    except ValueError as error:
        fail(source, f"is no JSON ({error})", row)
    if not isinstance(found, dict):
        fail(source, f"must be a JSON object, got {type(found).__name__}", row)
    return found


def _csv_rows(source: Source, kind: str) -> Iterator[Row]:
    with source.text() as text:
        reader = csv.reader(text, strict=True, delimiter="\t" if kind == "tsv" else ",")
        names = next(row for row in reader if row)
        try:
            for row, cells in enumerate(cells for cells in reader if cells):
                if len(cells) != len(names):
                    fail(source, f"has {len(cells)} cells, the header {len(names)}", row)
                yield dict(zip(names, cells))
        except csv.Error as error:
            fail(source, f"malformed ({error})", reader.line_num - 2)


def _inspect(source: Source) -> Iterator[Row]:
    """Samples of an Inspect log: ``prompt`` (its id), ``epoch``, ``model``, ``scores``; ``reward`` if one scorer."""
    try:
        from inspect_ai.log import read_eval_log
        from inspect_ai.scorer import value_to_float
    except ModuleNotFoundError:
        raise ModuleNotFoundError(".eval logs need inspect-ai: pip install inspect-ai") from None
    log = read_eval_log(source.path)
    number = value_to_float()
    for i, sample in enumerate(log.samples or ()):
        if not sample.scores:
            fail(source, "has no score: it failed, or the log was written before it was scored", i)
        scores = {name: number(score.value) for name, score in sample.scores.items()}
        row: dict[str, Any] = {"prompt": sample.id, "epoch": sample.epoch, "model": log.eval.model, "scores": scores}
        yield row | ({"reward": next(iter(scores.values()))} if len(scores) == 1 else {})


def slow_chunks(source: Source, kind: str, needed: Sequence[str]) -> Iterator[Chunk]:
    """Rows as lists of Python values."""
    rows = objects(source, kind)
    start = 0
    while batch := list(itertools.islice(rows, BATCH)):
        yield Chunk(start, len(batch), {name: [row.get(name) for row in batch] for name in needed})
        start += len(batch)


def objects(source: Source, kind: str) -> Iterator[Row]:
    """Rows one by one, as Python values; not of Parquet and Arrow.

    Raises:
        ValueError: cut off, not UTF-8, or a row that is none.
    """
    try:
        yield from _objects(source, kind)
    except (OSError, EOFError) as error:
        fail(source, f"is cut off or cannot be read ({short(error)})")
    except UnicodeDecodeError:
        fail(source, "is not UTF-8 text")


def fast_chunks(
    source: Source, found: Layout, needed: Sequence[str], numbers: Sequence[str], texts: Sequence[str]
) -> Iterator[Chunk] | None:
    """Rows as Arrow arrays, or None if pyarrow does not read the format.

    Raises:
        pyarrow.ArrowException, OSError: while reading.
    """
    readers: dict[str, Callable[[], Iterator[Any]]] = {
        "parquet": lambda: _parquet(source, needed),
        "arrow": lambda: _arrow_batches(source, needed),
        "csv": lambda: _csv(source, found.kind, needed, numbers, texts),
        "tsv": lambda: _csv(source, found.kind, needed, numbers, texts),
    }
    if found.kind == "jsonl" and _flat(found, needed, numbers):
        readers["jsonl"] = lambda: _jsonl(source, found, needed, numbers)
    if found.kind not in readers:
        return None
    return _numbered(readers[found.kind]())


def _numbered(batches: Iterator[Any]) -> Iterator[Chunk]:
    start = 0
    for batch in batches:
        yield Chunk(start, batch.num_rows, dict(zip(batch.schema.names, batch.columns)))
        start += batch.num_rows


def _parquet(source: Source, needed: Sequence[str]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with source.open() as stream, pq.ParquetFile(stream) as file:
        yield from file.iter_batches(columns=list(needed), batch_size=1 << 17)


def _arrow_batches(source: Source, needed: Sequence[str]) -> Iterator[Any]:
    with source.open() as stream:
        reader = _arrow(stream)
        count = getattr(reader, "num_record_batches", None)
        every = reader if count is None else map(reader.get_batch, range(count))
        for batch in every:
            yield batch.select(list(needed))


def _arrow(stream: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(stream)
    except pa.ArrowInvalid:
        stream.seek(0)
        return pa.ipc.open_file(stream)


def _csv(
    source: Source, kind: str, needed: Sequence[str], numbers: Sequence[str], texts: Sequence[str]
) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    types = {name: pa.float64() for name in numbers} | {name: pa.string() for name in texts}
    convert = arrow_csv.ConvertOptions(column_types=types, include_columns=list(needed), strings_can_be_null=False)
    with source.open() as stream:
        yield from arrow_csv.open_csv(
            stream,
            read_options=arrow_csv.ReadOptions(block_size=BLOCK),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, delimiter="\t" if kind == "tsv" else ","),
            convert_options=convert,
        )


_KINDS = {bool: "bool_", str: "string", int: "int64", float: "float64"}


def _flat(found: Layout, needed: Sequence[str], numbers: Sequence[str]) -> bool:
    """Whether the first rows look as pyarrow's JSON reader needs them: plain numbers, one type a column."""
    for name in needed:
        kinds = {type(row[name]) for row in found.first if row.get(name) is not None}
        if name in numbers and (not kinds or not (kinds <= {int, float} or kinds == {bool})):
            return False
        if name not in numbers and (len(kinds) != 1 or float in kinds):
            return False
    return True


def _jsonl(source: Source, found: Layout, needed: Sequence[str], numbers: Sequence[str]) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    fields, known = [], 0
    for name in needed:
        kind = next(type(row[name]) for row in found.first if row.get(name) is not None)
        if kind in _KINDS:
            known += 1
            number = name in numbers and kind is not bool
            fields.append((name, pa.float64() if number else getattr(pa, _KINDS[kind])()))
    parse = arrow_json.ParseOptions(
        explicit_schema=pa.schema(fields),
        unexpected_field_behavior="ignore" if known == len(needed) else "infer",
    )
    with source.open() as stream:
        options = arrow_json.ReadOptions(block_size=BLOCK)
        for batch in arrow_json.open_json(stream, read_options=options, parse_options=parse):
            yield batch.select(list(needed))
