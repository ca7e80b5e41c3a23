"""What the columns of a chunk mean: numbers, prompts, conditions; dotted paths into nested fields; lists of samples.

A column is asked for by its name or by a dotted path (``metrics.reward``, ``choices.reward``, ``scores.0``); lists on
the way are mapped over. A reward that is a list holds several samples of one prompt; a log-probability that is a list
holds tokens, and is summed.
"""

from __future__ import annotations

import decimal
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from klsim.frontier.formats.rows import Chunk
from klsim.frontier.formats.sources import Source, fail

__all__ = ["WORDS", "equal_to", "is_list", "numbers", "prompt_keys", "root_of", "samples_of", "values"]

WORDS = {
    **dict.fromkeys(("true", "passed", "pass", "correct", "solved", "success", "yes"), 1.0),
    **dict.fromkeys(("false", "failed", "fail", "incorrect", "wrong", "unsolved", "failure", "no"), 0.0),
}
"""Words that stand for a reward of 1 or 0."""


def root_of(name: str, names: Sequence[str]) -> str | None:
    """The column that a name or dotted path starts in, or None."""
    if name in names:
        return name
    parts = name.split(".")
    heads = (".".join(parts[:k]) for k in range(len(parts) - 1, 0, -1))
    return next((head for head in heads if head in names), None)


def values(chunk: Chunk, name: str, root: str) -> Any:
    """A column of a chunk: an Arrow array if its values are plain and stored so, else a list."""
    import pyarrow as pa

    column = chunk.columns[root]
    path = name[len(root) + 1 :].split(".") if name != root else []
    if isinstance(column, list):
        return [_inside(value, path) for value in column] if path else column
    while path and pa.types.is_struct(column.type) and path[0] in {f.name for f in column.type}:
        import pyarrow.compute as pc

        column, path = pc.struct_field(column, path[0]), path[1:]
    if path:
        return [_inside(value, path) for value in column.to_pylist()]
    return column.to_pylist() if pa.types.is_nested(column.type) else column


def _inside(value: Any, path: Sequence[str]) -> Any:
    for i, part in enumerate(path):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        elif isinstance(value, list):
            return [_inside(one, path[i:]) for one in value]
        else:
            return None
    return value


def is_list(column: Any) -> bool:
    """Whether the first value that there is holds several."""
    return isinstance(column, list) and isinstance(next((v for v in column if v is not None), None), list)


Fail = Callable[[str, int], Any]


def numbers(source: Source, chunk: Chunk, name: str, column: Any, rows: np.ndarray, *, text: bool) -> np.ndarray:
    """A column of finite numbers at the ``rows`` of the chunk; booleans and words for them are 0 and 1.

    ``text``: the format has no types, so that a text may be a number.
    """

    def bad(rule: str, row: int) -> Any:
        fail(source, rule, chunk.start + row, name)

    if isinstance(column, list):
        found = np.array([_number(column[i], i, bad, text=text) for i in rows.tolist()], dtype=np.float64)
    else:
        found = _arrow_numbers(column, rows, bad, text=text)
    wrong = np.flatnonzero(~np.isfinite(found))
    if wrong.size:
        bad(f"must be finite, got {found[wrong[0]]}", int(rows[wrong[0]]))
    return found


def _number(value: Any, row: int, bad: Fail, *, text: bool) -> float:
    if value is None:
        return float(bad("is missing", row))
    if isinstance(value, bool | int | float | decimal.Decimal):
        return _float(value, row, bad)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in WORDS:
            return WORDS[word]
        if text and not word:
            return float(bad("is missing", row))
        if text:
            try:
                return float(word)
            except ValueError:
                pass
            return float(bad(f"needs a number, got {value[:60]!r}", row))
    return float(bad(f"needs a number, got {_shown(value)}", row))


def _float(value: Any, row: int, bad: Fail) -> float:
    try:
        return float(value)
    except OverflowError:
        return float(bad("is too large for a number of double precision", row))


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:60]


def _plain(column: Any, missing: float) -> np.ndarray:
    """A numeric Arrow array as NumPy's, by DLPack where nothing is missing: Arrow's own ways import pandas."""
    if column.null_count:
        return np.array([missing if x is None else x for x in column.to_pylist()])
    return np.from_dlpack(column)


def _arrow_numbers(column: Any, rows: np.ndarray, bad: Fail, *, text: bool) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _arrow_numbers(column.dictionary_decode(), rows, bad, text=text)
    if pa.types.is_null(kind):
        bad("is missing", int(rows[0]))
    plain = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not plain and not pa.types.is_decimal(kind):
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            words = column.to_pylist()
            return np.array([_number(words[i], i, bad, text=text) for i in rows.tolist()], dtype=np.float64)
        bad(f"needs numbers, this column holds {kind}", 0)
    if column.null_count:
        missing = np.flatnonzero(np.asarray(pc.is_null(column))[rows])
        if missing.size:
            bad("is missing", int(rows[missing[0]]))
    found = _plain(pc.cast(column, pa.float64(), safe=False), missing=math.nan)
    return np.asarray(found if len(rows) == len(found) else found[rows], dtype=np.float64)


def samples_of(
    source: Source, chunk: Chunk, name: str, column: Any, rows: np.ndarray, lengths: np.ndarray | None, *, text: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """One number a sample, and how many were summed up for each if they are lists of tokens.

    ``lengths``: samples in each row, if the rewards are lists; then the column holds a list of the same length.
    """

    def bad(rule: str, row: int) -> Any:
        fail(source, rule, chunk.start + row, name)

    if not is_list(column):
        if lengths is not None:
            bad("needs a list with a value for each of the row's rewards", int(rows[0]))
        return numbers(source, chunk, name, column, rows, text=text), None
    out: list[float] = []
    counts: list[int] = []
    for k, i in enumerate(rows.tolist()):
        value = column[i]
        if not isinstance(value, list):
            bad("is missing" if value is None else f"needs a list, got {_shown(value)}", i)
        parts = [value] if lengths is None else value
        if lengths is not None and len(parts) != lengths[k]:
            bad(f"has {len(parts)} values for {lengths[k]} rewards", i)
        for part in parts:
            tokens = part if isinstance(part, list) else [part]
            if not tokens:
                bad("is an empty list", i)
            out.append(math.fsum(_number(t, i, bad, text=text) for t in tokens))
            counts.append(len(tokens) if isinstance(part, list) else 0)
    found = np.array(out)
    wrong = np.flatnonzero(~np.isfinite(found))
    if wrong.size:
        owner = rows if lengths is None else np.repeat(rows, lengths)
        bad(f"must be finite, got {found[wrong[0]]}", int(owner[wrong[0]]))
    return found, np.array(counts, dtype=np.float64) if all(counts) else None


def prompt_keys(source: Source, chunk: Chunk, name: str, column: Any, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The distinct prompts of the ``rows`` as text, and which of them each row has."""
    import pyarrow as pa

    if not isinstance(column, list):
        if column.null_count:
            missing = np.flatnonzero(np.asarray(column.is_null())[rows])
            if missing.size:
                fail(source, "is missing", chunk.start + int(rows[missing[0]]), name)
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        keys = [str(value) for value in encoded.dictionary.to_pylist()]
        indices = _plain(encoded.indices, missing=0)
        return keys, indices if len(rows) == len(indices) else indices[rows]
    known: dict[str, int] = {}
    codes = np.empty(len(rows), np.int64)
    first: type | None = None
    for k, i in enumerate(rows.tolist()):
        value = column[i]
        if value is None:
            fail(source, "is missing", chunk.start + i, name)
        first = first or type(value)
        if type(value) is not first:
            fail(source, f"changes from {first.__name__} to {type(value).__name__}", chunk.start + i, name)
        text = (
            str(value)
            if not isinstance(value, list | dict)
            else json.dumps(_without_nulls(value), sort_keys=True, default=str)
        )
        codes[k] = known.setdefault(text, len(known))
    return list(known), codes


def _without_nulls(value: Any) -> Any:
    """A conversation without the fields that Arrow fills in where a message lacks them."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def equal_to(source: Source, name: str, column: Any, wanted: Sequence[str], *, text: bool) -> np.ndarray:
    """Which rows hold one of the values, compared as numbers where the column holds numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, list):
        return np.array([_is_one_of(source, name, v, wanted, text=text) for v in column], dtype=bool)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    out = np.zeros(len(column), dtype=bool)
    for value in wanted:
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            equal = pc.equal(column, _as_number(source, name, value))
        else:
            plain = value.lower() if pa.types.is_boolean(column.type) else value
            equal = pc.equal(pc.cast(column, pa.string()), plain)
        out |= np.asarray(pc.fill_null(equal, False))
    return out


def _as_number(source: Source, name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        fail(source, f"holds numbers, and {value!r} is none", None, name)


def _is_one_of(source: Source, name: str, value: Any, wanted: Sequence[str], *, text: bool) -> bool:
    if isinstance(value, bool):
        return str(value).lower() in [w.lower() for w in wanted]
    if isinstance(value, int | float):
        return any(_as_number(source, name, w) == value for w in wanted)
    if isinstance(value, list | dict):
        fail(source, "cannot be compared, it holds lists or objects", None, name)
    if text and value is not None:
        return str(value) in wanted or any(_same_number(str(value), w) for w in wanted)
    return value in wanted


def _same_number(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return False
