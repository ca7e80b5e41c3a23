"""Rollouts from files: the columns that the frontier needs, from every format that `klsim.frontier.formats` reads.

Files are streamed; of every sample only a number for its prompt, its reward and what else is asked for are kept.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from klsim.frontier.formats.columns import equal_to, is_list, numbers, prompt_keys, root_of, samples_of, values
from klsim.frontier.formats.rows import Chunk, Layout, fast_chunks, layout, short, slow_chunks
from klsim.frontier.formats.sources import Source, fail, find

__all__ = ["Rollouts", "conditions", "read_rollouts", "stop_if_pooled", "stop_if_pooled_files"]

REWARDS = (
    "reward", "rewards", "score", "scores", "passed", "correct", "is_correct", "is_solved", "acc", "accs", "accuracy",
)  # fmt: skip
PROMPTS = ("prompt", "prompt_id", "question", "problem", "task_id", "doc_id", "question_id", "problem_id", "input")
TRL = ("step", "completion", "advantage")
"""Columns beside the rewards that TRL's trainers log with ``log_completions=True``."""
POOLED = ("step", "global_step", "training_step", "model", "model_name", "model_id", "checkpoint", "filter")
"""Columns whose values are different policies, or different gradings of one sample: never pooled unasked."""


@dataclass(frozen=True)
class Rollouts:
    """Columns of equal length.

    Attributes:
        prompt: an integer for every distinct prompt, the same in all `Rollouts` read with the same ``known``.
        reward: ``(rows,)``. logps: further columns by the names asked for.
        notes: which columns were chosen where none was named.
        lengths: tokens of each sample, where log-probabilities are lists.
        groups, names: which of the ``names`` of the column ``by`` each sample has.
        origins: ``(source, rows)`` of consecutive samples. watched: values of the columns that must not be pooled.
    """

    prompt: np.ndarray
    reward: np.ndarray
    logps: Mapping[str, np.ndarray]
    notes: tuple[str, ...]
    lengths: np.ndarray | None = None
    groups: np.ndarray | None = None
    names: tuple[str, ...] = ()
    origins: tuple[tuple[str, Sequence[int] | np.ndarray], ...] = field(default=(), repr=False)
    watched: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def row_name(self, sample: int) -> str:
        """``file, row 12`` of a sample."""
        for source, rows in self.origins:
            if sample < len(rows):
                return f"{source}, row {rows[sample] + 1}"
            sample -= len(rows)
        return f"row {sample + 1}"


def read_rollouts(
    paths: Sequence[Path | str | Source],
    *,
    prompt: str | None = None,
    reward: Sequence[str] = (),
    where: Sequence[str] = (),
    logps: Mapping[str, str] | None = None,
    by: str | None = None,
    known: dict[int, int] | None = None,
    stable: bool = False,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Rollouts:
    """Read the columns that the frontier needs.

    Args:
        paths: files, folders, patterns, ``-`` (standard input) or addresses of fsspec; see `klsim.frontier.formats`.
        prompt: its column; the first of `PROMPTS` that there is if None.
        reward: its column, or several to be added up, each with an optional weight (``0.5*format``); the first of
            `REWARDS` if empty, or the one reward column of TRL's logs. A list holds several samples of the prompt.
        where: ``column=value``: only rows in which it holds. Several values of one column: any of them; several
            columns: all. ``column=*`` pools what would otherwise stop the run (`POOLED`).
        logps: name -> column, of log-probabilities, KLs or further rewards; lists of tokens are summed.
        by: a column whose values are to be told apart (``file`` and ``step`` may be those of the path).
        known: prompts seen before (filled in), so that two calls number prompts alike.
        stable: the keys of ``known`` are the same in every process.
        on_rows: called with the number of rows read so far.

    Raises:
        ValueError: a file, row and column, and what is wrong there. FileNotFoundError.
    """
    made = _Reader(prompt, tuple(reward), conditions(where), dict(logps or {}), by, {} if known is None else known)
    made.key = _stable_hash if stable else hash
    sources = [p for p in paths if isinstance(p, Source)] or find([p for p in paths if not isinstance(p, Source)])
    stop_if_pooled_files(sources, made.where, by)
    skipped: list[ValueError] = []
    read: list[Source] = []
    for source in sources:
        try:
            plan = made.plan(source)
        except _NoColumn as error:
            if not source.found:
                raise
            skipped.append(error)
            continue
        made.read(plan, on_rows)
        read.append(source)
    if not read:
        raise skipped[0]
    if skipped:
        made.notes.append(f"left out {len(skipped)} of {len(sources)} files, the first because {skipped[0]}")
    return made.done(read)


class _NoColumn(ValueError):
    """A file without the columns; in a folder it is another kind of file."""


def conditions(where: Sequence[str]) -> dict[str, list[str]]:
    """``column=value`` texts as ``column -> values``."""
    out: dict[str, list[str]] = {}
    for text in where:
        column, equals, value = text.partition("=")
        if not equals or not column.strip():
            raise ValueError(f"where {text!r}: write column=value")
        out.setdefault(column.strip(), []).append(value.strip())
    return out


def stop_if_pooled_files(sources: Sequence[Source], where: Mapping[str, Any], by: str | None) -> None:
    """Files found together whose names differ by more than numbers are different models, or whatever else."""
    names = [dict(s.implied)["file"] for s in sources if s.found and s.implied]
    if "file" in where or by is not None or len({re.sub(r"\d+", "#", n) for n in names}) < 2:
        return
    kinds = {s.kind for s in sources if s.found} - {"json"}
    data = [n for n, s in zip(names, (s for s in sources if s.found and s.implied)) if s.kind != "json" or not kinds]
    shapes = {re.sub(r"\d+", "#", n) for n in data}
    if len(shapes) > 1:
        some = ", ".join(sorted(data)[:5])
        raise ValueError(
            f"{len(data)} files of different names ({some}{', …' if len(data) > 5 else ''}): samples of different "
            "policies? "
            f"Choose with --where file={sorted(data)[0]}, or --where 'file=*' to pool them, or name the files"
        )


@dataclass(frozen=True)
class _Plan:
    """Which columns of a file are read, and what for."""

    source: Source
    layout: Layout
    prompt: str
    rewards: Mapping[str, float]
    watched: tuple[str, ...]

    @property
    def text(self) -> bool:
        return self.layout.kind in ("csv", "tsv")

    def root(self, name: str) -> str:
        return root_of(name, self.layout.names) or name


class _Reader:
    def __init__(
        self,
        prompt: str | None,
        reward: tuple[str, ...],
        where: dict[str, list[str]],
        logps: dict[str, str],
        by: str | None,
        known: dict[int, int],
    ) -> None:
        self.prompt, self.reward, self.where, self.logps, self.by, self.known = prompt, reward, where, logps, by, known
        self.parts: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.rows = 0
        self.seen: dict[str, dict[str, None]] = {}
        self.names: dict[str, int] = {}
        self.key: Callable[[str], int] = hash

    # -- which columns ------------------------------------------------------------------------------------------------

    def plan(self, source: Source) -> _Plan:
        """Look at a file and choose its columns."""
        found = layout(source)
        names = found.names
        prompt, rewards = self._prompt(source, names), self._rewards(source, found)
        implied = dict(source.implied)
        for name in (*self.where, *self.logps.values(), *([self.by] if self.by else [])):
            if root_of(name, names) is None and name not in implied:
                self._no_column(source, name, names)
        watched = tuple(
            n
            for n in POOLED
            if (n in names or n in implied) and n not in self.where and n != self.by and n not in rewards
        )
        return _Plan(source, found, prompt, rewards, watched)

    def _no_column(self, source: Source, name: str, names: Sequence[str], what: str = "") -> None:
        try:
            fail(source, f"has no column {name!r}{what} (there are {', '.join(names)})")
        except ValueError as error:
            raise _NoColumn(str(error)) from None

    def _prompt(self, source: Source, names: Sequence[str]) -> str:
        if self.prompt is not None:
            if root_of(self.prompt, names) is None:
                self._no_column(source, self.prompt, names, " for the prompt")
            return self.prompt
        found = [n for n in PROMPTS if n in names]
        if not found:
            some = f"has no column {' or '.join(PROMPTS)}; name it with --prompt (there are {', '.join(names)})"
            raise _NoColumn(f"{source.path}: {some}")
        self._note(found[0], PROMPTS[0], "prompts")
        return found[0]

    def _rewards(self, source: Source, layout: Layout) -> dict[str, float]:
        names = layout.names
        if self.reward:
            out: dict[str, float] = {}
            for text in self.reward:
                weight, column = _weighted(text, names)
                if root_of(column, names) is None:
                    self._no_column(source, column, names, " for the reward")
                out[column] = out.get(column, 0.0) + weight
            return out
        found = [n for n in REWARDS if n in names] or self._logged(source, layout)
        if not found:
            some = f"has no column {' or '.join(REWARDS)}; name it with --reward (there are {', '.join(names)})"
            raise _NoColumn(f"{source.path}: {some}")
        self._note(found[0], REWARDS[0], "rewards")
        return {found[0]: 1.0}

    def _logged(self, source: Source, layout: Layout) -> list[str]:
        """The reward columns of TRL's logs, and the metrics of the harness's samples."""
        names, found = layout.names, []
        if set(TRL) <= set(names):
            what = "a log of TRL"
            found = [n for n in names if n.endswith(("reward", "_func")) or n not in (*TRL, *PROMPTS)]
        elif layout.first and isinstance(layout.first[0].get("metrics"), list):
            what = "samples of the evaluation harness"
            found = [n for n in layout.first[0]["metrics"] if n in names]
        if len(found) > 1:
            fail(
                source,
                f"{what} with several columns that may be rewards ({', '.join(found)}); name one with --reward, or "
                "several "
                "to add them up",
            )
        return found

    def _note(self, column: str, usual: str, what: str) -> None:
        text = f"{what} are those of column {column!r}"
        if column != usual and text not in self.notes:
            self.notes.append(text)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, plan: _Plan, on_rows: Callable[[int], None]) -> None:
        """Read a file: by pyarrow, and row by row where that gives up."""
        import pyarrow as pa

        source, kind = plan.source, plan.layout.kind
        wanted = [
            plan.prompt,
            *plan.rewards,
            *self.logps.values(),
            *self.where,
            *plan.watched,
            *([self.by] if self.by else []),
        ]
        needed = list(dict.fromkeys(plan.root(n) for n in wanted if root_of(n, plan.layout.names)))
        counted = [plan.root(n) for n in (*plan.rewards, *self.logps.values()) if root_of(n, plan.layout.names)]
        fast = fast_chunks(source, plan.layout, needed, counted, [plan.root(plan.prompt)])
        kept = len(self.parts), self.rows, {n: dict(v) for n, v in self.seen.items()}
        try:
            rows = self._chunks(plan, fast if fast is not None else slow_chunks(source, kind, needed), on_rows)
        except (pa.ArrowException, OSError, EOFError) as error:
            if kind in ("parquet", "arrow"):
                fail(source, f"is cut off or malformed ({short(error)})")
            del self.parts[kept[0] :]
            self.rows, self.seen = kept[1], kept[2]
            rows = self._chunks(plan, slow_chunks(source, kind, needed), on_rows)
        if rows == 0:
            fail(source, "has no rows")

    def _chunks(self, plan: _Plan, chunks: Any, on_rows: Callable[[int], None]) -> int:
        rows = 0
        for chunk in chunks:
            if chunk.rows:
                self._add(plan, chunk)
            rows += chunk.rows
            self.rows += chunk.rows
            on_rows(self.rows)
        return rows

    def _add(self, plan: _Plan, chunk: Chunk) -> None:
        source, text = plan.source, plan.text
        rows = self._kept(plan, chunk)
        if not rows.size:
            return
        for name in plan.watched:
            self._watch(name, self._texts(plan, chunk, name, rows))
        keys, codes = prompt_keys(source, chunk, plan.prompt, self._column(plan, chunk, plan.prompt), rows)
        # a 64-bit hash stands for the prompt: two of a million prompts collide with probability 3e-8
        numbered = np.array([self.known.setdefault(self.key(key), len(self.known)) for key in keys], dtype=np.int64)
        part: dict[str, Any] = {"prompt": numbered[codes], "reward": 0.0, "origin": (source.path, _places(rows, chunk))}
        lengths = None
        for name, weight in plan.rewards.items():
            column = self._column(plan, chunk, name)
            if is_list(column):
                found, lengths = _listed(source, chunk, name, column, rows, lengths, text=text)
            else:
                found = numbers(source, chunk, name, column, rows, text=text)
            part["reward"] = part["reward"] + weight * found
        for name, column_name in self.logps.items():
            column = self._column(plan, chunk, column_name)
            part[name], tokens = samples_of(source, chunk, column_name, column, rows, lengths, text=text)
            if tokens is not None:
                part["lengths"] = tokens
        if self.by is not None:
            labels = self._texts(plan, chunk, self.by, rows)
            part["groups"] = np.array([self.names.setdefault(t, len(self.names)) for t in labels], dtype=np.int64)
        if lengths is not None:
            for name in ("prompt", "groups"):
                if name in part:
                    part[name] = np.repeat(part[name], lengths)
            part["origin"] = (source.path, np.repeat(part["origin"][1], lengths))
        self.parts.append(part)

    def _column(self, plan: _Plan, chunk: Chunk, name: str) -> Any:
        return values(chunk, name, plan.root(name))

    def _kept(self, plan: _Plan, chunk: Chunk) -> np.ndarray:
        """Rows that satisfy all conditions."""
        keep = np.ones(chunk.rows, dtype=bool)
        implied = dict(plan.source.implied)
        for name, wanted in self.where.items():
            if "*" in wanted:
                continue
            if root_of(name, plan.layout.names) is None:
                keep &= implied[name] in wanted or f"{implied[name]}" in [w.split(".")[0] for w in wanted]
            else:
                keep &= equal_to(plan.source, name, self._column(plan, chunk, name), wanted, text=plan.text)
        return np.flatnonzero(keep)

    def _texts(self, plan: _Plan, chunk: Chunk, name: str, rows: np.ndarray) -> list[str]:
        """The values of a column as text, or the one that the file's place implies."""
        if root_of(name, plan.layout.names) is None:
            return [dict(plan.source.implied)[name]] * len(rows)
        column = self._column(plan, chunk, name)
        found = column if isinstance(column, list) else column.to_pylist()
        return ["" if found[i] is None else str(found[i]) for i in rows.tolist()]

    def _watch(self, name: str, found: Sequence[str]) -> None:
        self.seen.setdefault(name, {}).update(dict.fromkeys(found))

    def done(self, sources: Sequence[Source]) -> Rollouts:
        shown = sources[0].path if len(sources) == 1 else f"{Path(sources[0].path).parent} ({len(sources)} files)"
        stop_if_pooled(shown, self.seen)
        if not self.parts:
            conditions = ", ".join(f"{k}={' or '.join(v)}" for k, v in self.where.items())
            raise ValueError(f"{shown}: no row has {conditions}")
        joined = {n: np.concatenate([p[n] for p in self.parts]) for n in ("prompt", "reward", *self.logps)}
        lengths = groups = None
        if all("lengths" in p for p in self.parts):
            lengths = np.concatenate([p["lengths"] for p in self.parts])
        if self.by is not None:
            groups = np.concatenate([p["groups"] for p in self.parts])
        logps = {name: joined[name] for name in self.logps}
        origins = tuple(p["origin"] for p in self.parts)
        return Rollouts(
            joined["prompt"], joined["reward"], logps, tuple(self.notes), lengths, groups, tuple(self.names), origins,
            {name: tuple(distinct) for name, distinct in self.seen.items()},
        )  # fmt: skip


def _places(rows: np.ndarray, chunk: Chunk) -> Sequence[int] | np.ndarray:
    """Where rows of a chunk are in their file; all of them without an array."""
    if len(rows) == chunk.rows:
        return range(chunk.start, chunk.start + chunk.rows)
    return rows + chunk.start


def _listed(
    source: Source,
    chunk: Chunk,
    name: str,
    column: list[Any],
    rows: np.ndarray,
    lengths: np.ndarray | None,
    *,
    text: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of several samples in a row, one after the other, and how many each row has."""
    for i in rows.tolist():
        if not isinstance(column[i], list) or not column[i]:
            rule = "is missing" if column[i] is None else f"needs a list of rewards, got {str(column[i])[:60]}"
            fail(source, rule, chunk.start + i, name)
    counts = np.array([len(column[i]) for i in rows.tolist()], dtype=np.int64)
    if lengths is not None and not np.array_equal(counts, lengths):
        at = int(np.flatnonzero(counts != lengths)[0])
        fail(
            source, f"has {counts[at]} values where another reward has {lengths[at]}", chunk.start + int(rows[at]), name
        )
    return samples_of(source, chunk, name, column, rows, counts, text=text)[0], counts


def _stable_hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def stop_if_pooled(shown: str, seen: Mapping[str, Collection[str]]) -> None:
    """Refuse samples of several policies: ``seen`` has the values of every column of `POOLED`.

    Raises:
        ValueError: with what to choose.
    """
    for name, distinct in seen.items():
        if len(distinct) > 1:
            raise ValueError(_pooled(shown, name, list(distinct)))


def _pooled(shown: str, name: str, distinct: list[str]) -> str:
    """Why samples of several policies are not pooled, and what to say instead."""
    try:
        ordered = sorted(distinct, key=float)
        some = f"goes from {ordered[0]} to {ordered[-1]}"
        hint = " (the policy before training)" if "step" in name else ""
    except ValueError:
        ordered = sorted(distinct)
        some, hint = f"holds {', '.join(ordered[:5])}{', …' if len(ordered) > 5 else ''}", ""
    return (
        f"{shown}: column {name!r} {some}: samples of different policies. Choose one with --where "
        f"{name}={ordered[0]}{hint}, "
        f"or --where '{name}=*' if it never changed"
    )


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
