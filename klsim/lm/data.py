"""Prompts of your own: rows of files and of Hugging Face data sets, with a column of prompts.

====================================================  ==========================================================
``path``                                              what is read
====================================================  ==========================================================
``.jsonl .json .csv .tsv .parquet .arrow``            the file (also compressed), a pattern of files, an address
                                                      of fsspec (``s3://…``); see `klsim.frontier.formats`
a folder that ``save_to_disk`` of datasets wrote      that data set, or one of its splits
any other folder                                      a data folder of `datasets.load_dataset`: splits by file name
``owner/name``                                        a data set of the Hub; its cache is asked first
====================================================  ==========================================================

A prompt is text, or a list of chat messages (`klsim.lm.chat`). Every row keeps its other columns: rewards read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from klsim import _validate
from klsim.frontier.formats import rows as file_rows
from klsim.frontier.formats.sources import Source, fail, find
from klsim.lm.chat import as_prompt, is_chat, problem_of_prompt
from klsim.objectives.registry import near

__all__ = ["Row", "column_of", "read_prompts"]

Row = dict[str, Any]
"""A row of a data set, by column."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TAKEN = ("prompts", "completions", "completion_ids")
"""Names of a reward function's own arguments."""


def read_prompts(
    path: Path | str,
    *,
    prompt: str = "prompt",
    split: str | None = None,
    name: str | None = None,
    chat: bool = False,
    system: str | None = None,
    limit: int | None = None,
    columns: Sequence[str] = (),
) -> list[Row]:
    """The rows behind ``path``, each with its ``prompt`` (text, or messages) and all its columns.

    Args:
        path: see the module. prompt: the column with the prompts; ``a.b`` reaches into a nested one.
        split: of a data set with several; ``train`` if None. name: of a configuration of a data set of the Hub.
        chat: make messages of prompts that are text, behind one of the ``system`` (which implies ``chat``).
        limit: only the first rows. columns: what every row must have beside it; ``a.b`` becomes a column of that name.

    Raises:
        FileNotFoundError: nothing there. ModuleNotFoundError: a library that reads it is not installed.
        ValueError: no such split or column; a missing value in one of ``columns``; a column ``prompt`` that is not the
            one with the prompts; a prompt that is neither text nor messages, or of another kind than the first: which
            file, row and column.
    """
    path = str(path) if isinstance(path, str | Path) else _validate.fail("path", "must be a path or a name", path)
    if limit is not None:
        limit = _validate.integer("limit", limit, low=1)
    out: list[Row] = []
    for where, row_number, row in _rows(path, prompt, split, name):
        if len(out) == limit:
            break
        out.append(row | {"prompt": _prompt(where, row_number, row, prompt, chat=chat, system=system)})
        if is_chat(out[-1]["prompt"]) != is_chat(out[0]["prompt"]):
            fail(where, "text and messages are mixed; the first row has the other kind", row_number, prompt)
    if not out:
        fail(path, "has no rows")
    names = dict.fromkeys(column for row in out for column in row)
    for column in names:
        if column in _TAKEN:
            fail(path, f"rewards have an argument of this name; rename it (as {', '.join(_TAKEN)})", column=column)
    rows = [{column: row.get(column) for column in names} for row in out]
    for column in columns:
        for i, row in enumerate(rows):
            row[column] = _needed(path, i, row, column)
    return rows


def column_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, ``a.b`` inside ``a`` if no column has the whole name.

    Raises:
        KeyError: there is none.
    """
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise KeyError(name)
        value = value[part]
    return value


def _needed(path: str, number: int, row: Row, column: str) -> Any:
    try:
        value = column_of(row, column)
    except KeyError:
        raise ValueError(f"{path}: no column {column!r}{near(column, row)}; it has {', '.join(row)}") from None
    return fail(path, "is missing", number, column) if value is None else value


def _prompt(where: Source | str, number: int, row: Row, column: str, *, chat: bool, system: str | None) -> Any:
    try:
        value = column_of(row, column)
    except KeyError:
        fail(where, f"no column {column!r}{near(column, row)}; it has {', '.join(row)}", number)
    if column != "prompt" and "prompt" in row:
        fail(where, f"has a column 'prompt' beside {column!r}; rename it", number)
    problem = problem_of_prompt(value)
    if problem is not None:
        fail(where, problem, number, column)
    if isinstance(value, str):
        return as_prompt(value, system) if chat or system is not None else value
    if system is not None and value[0]["role"] == "system":
        fail(where, "has a system message of its own, beside the one that was given", number, column)
    return [{"role": "system", "content": system}, *value] if system is not None else list(value)


def _rows(path: str, prompt: str, split: str | None, name: str | None) -> Iterator[tuple[Source | str, int, Row]]:
    """Every row with its file and number."""
    if Path(path).is_dir() or (_HUB_NAME.fullmatch(path) and not Path(path).exists()):
        for i, row in enumerate(_data_set(path, split, name)):
            yield path, i, row
        return
    for key, value in (("split", split), ("name", name)):
        if value is not None:
            raise ValueError(f"{key} = {value!r}: {path} is a file, and has none")
    for source in find([path]):
        yield from ((source, i, row) for i, row in enumerate(_file(source, prompt)))


def _file(source: Source, prompt: str) -> Iterator[Row]:
    """Of CSV, numbers become numbers, except in the column of prompts."""
    import pyarrow as pa

    found = file_rows.layout(source)
    if found.kind not in ("parquet", "arrow", "csv", "tsv"):
        yield from map(dict, file_rows.objects(source, found.kind))
        return
    try:
        chunks = file_rows.fast_chunks(source, found, found.names, (), [prompt] if prompt in found.names else [])
        assert chunks is not None
        for chunk in chunks:
            columns = {name: values.to_pylist() for name, values in chunk.columns.items()}
            yield from (dict(zip(columns, values)) for values in zip(*columns.values(), strict=True))
    except (pa.ArrowException, OSError) as error:
        fail(source, f"is cut off or no {found.kind} file ({file_rows.short(error)})")


def _data_set(path: str, split: str | None, name: str | None) -> Iterator[Row]:
    """A folder or a name of the Hub, through datasets."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path} needs datasets: pip install 'klsim[lm]'", name="datasets") from None
    folder = Path(path)
    try:
        if any((folder / marker).is_file() for marker in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(path)
        else:
            found = datasets.load_dataset(path, name=name)
    except Exception as error:  # broken files, no network, no such name: many types
        problem = "cannot be read" if folder.is_dir() else "is neither a file or folder nor a data set of the Hub"
        kind = FileNotFoundError if not folder.is_dir() else ValueError
        raise kind(f"{path}: {problem} ({' '.join(str(error).split())[:200]})") from error
    return iter(_split(path, found, split))


def _split(path: str, found: Any, split: str | None) -> Any:
    if not isinstance(found, Mapping):
        if split is not None:
            raise ValueError(f"split = {split!r}: {path} has no splits")
        return found
    names = list(found)
    wanted = split or (names[0] if len(names) == 1 else "train")
    if wanted not in found:
        raise ValueError(f"split = {wanted!r}: {path} has {', '.join(map(repr, names))}{near(wanted, names)}")
    return found[wanted]
