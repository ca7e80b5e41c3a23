"""Rollouts of a model in a file for `klsim.frontier`, drawn in batches that a killed run does not lose.

One row a completion: ``prompt``, ``completion``, ``reward``, ``tokens``, ``finished``, ``policy_logp``, and
``NAME_logp`` for every other model: natural-log probabilities of the whole completion at the temperature of the
sampling. Rows are in the order of the prompts.

Batches are drawn in the order of the prompts' lengths, which keeps padding short, and each has random numbers of its
own, from the seed and its number: what one draws does not depend on which run drew it. Finished batches lie in the
folder ``.<file>.sample`` beside the file; a run with the same arguments goes on after them. When all are there, the
file is written and they are removed; ``about.json`` stays there and says what the file was made with, and an empty
``lock`` beside it.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from klsim import _validate
from klsim.files import write_atomically
from klsim.lm.generation import Reward, Row, Sampling, draw, graded, seeded, texts_of, without_dropout

__all__ = ["SUFFIXES", "Written", "write_rollouts"]

SUFFIXES = (".jsonl", ".parquet")
"""Formats of the file, by its suffix."""
COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Written:
    """A finished file of rollouts.

    Attributes:
        file: its place. about: the file that says what it was made with, in a folder that stays beside it.
        prompts, rows: how many. reward: mean, None without a reward function. finished: share of completions that end
            before ``max_new_tokens``. tokens: mean length. kept: batches that earlier runs drew.
    """

    file: Path
    about: Path
    prompts: int
    rows: int
    reward: float | None
    finished: float
    tokens: float
    kept: int


def write_rollouts(
    file: Path | str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    reward: Reward | None = None,
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    log_probs_under: Mapping[str, PreTrainedModel] | None = None,
    on_batch: Callable[[int, int], None] = lambda done, batches: None,
) -> Written:
    """Draw ``samples`` completions of every row's prompt, grade them, and write them to ``file``.

    Args:
        file: ``.jsonl`` or ``.parquet``.
        rows: each has a ``prompt``, text or a list of messages (``{"role": …, "content": …}``; they go through the
            tokenizer's chat template), and the columns that ``reward`` reads.
        reward: in TRL's convention, ``reward(prompts, completions, **columns)``; completions of messages are lists of
            one assistant message. Without one, the file has no rewards.
        batch_size: sequences at a time, see `klsim.lm.generation.Sampling`; the samples depend on it.
        log_probs_under: other models over the same vocabulary, by name; ``ref`` gives the column ``ref_logp``.
        on_batch: called with the number of finished batches and that of all, first before any is drawn.

    The same seed gives the same bytes, however often the run was interrupted, on the same machine and versions; a file
    that was written with the same arguments is left as it is.

    Raises:
        ValueError: no rows, rows without prompts or with other columns than the first, prompts that do not fit in the
            model's context, characters without a token, rewards that are not one finite number a completion, arguments
            out of range; a folder that another run left with other arguments. FileExistsError: a file that was not
            written by this function, or was changed since.
    """
    sampling = Sampling(samples, max_new_tokens, temperature, seed, batch_size)
    others = _columns(log_probs_under or {})
    file = _checked_file(file)
    texts = _texts(tokenizer, rows, sampling, model)
    job = _Job(file, sampling, _plan(tokenizer, texts, sampling))
    about = {
        **asdict(sampling),
        "prompts": _digest(json.dumps(list(rows), sort_keys=True, default=str)),
        "model": _weights(model),
        "tokenizer": _digest(json.dumps([tokenizer.get_vocab(), texts], sort_keys=True)),
        "log_probs_under": {name: _weights(other) for name, other in others.items()},
        "reward": None if reward is None else _code(reward),
    }
    with job.alone():
        kept = job.claim(about)
        if kept is None:
            return job.summary(0)
        on_batch(kept, job.batches)
        with without_dropout(model, *others.values()):
            for done, number in enumerate(job.missing(), start=kept + 1):
                job.keep(number, _batch(job, number, model, tokenizer, rows, texts, reward, others))
                on_batch(done, job.batches)
        job.finish(about)
        return job.summary(kept)


@dataclass(frozen=True)
class _Job:
    """The file, its folder of finished batches, and which sequences each batch has (places ``row * samples + i``)."""

    file: Path
    sampling: Sampling
    plan: np.ndarray

    @property
    def folder(self) -> Path:
        return self.file.with_name(f".{self.file.name}.sample")

    @property
    def record(self) -> Path:
        return self.folder / "about.json"

    @property
    def batches(self) -> int:
        return -(-len(self.plan) // self.sampling.batch_size)

    def places(self, number: int) -> np.ndarray:
        size = self.sampling.batch_size
        return self.plan[number * size : (number + 1) * size]

    def part(self, number: int) -> Path:
        return self.folder / f"batch-{number:06d}.jsonl"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process writes this file meanwhile.

        Raises:
            ValueError: one does. FileExistsError: a file that is nobody's is there.
        """
        if self.file.exists() and not self.record.is_file():
            raise FileExistsError(f"{self.file}: exists and was not written by klsim sample; take another file")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", timeout=0):
                yield
        except Timeout:
            raise ValueError(f"{self.file}: another process is writing it") from None

    def claim(self, about: Mapping[str, Any]) -> int | None:
        """How many batches there are already; None if the file is finished.

        Raises:
            ValueError, FileExistsError: what is there was made otherwise.
        """
        found = json.loads(self.record.read_text(encoding="utf-8")) if self.record.is_file() else {}
        if not self.file.exists() and not self.finished():  # nothing to lose
            write_atomically(self.record, _json(about))
            return 0
        if differ := [name for name in about if found.get(name) != about[name]]:
            raise ValueError(
                f"{self.file}: was begun with another {', '.join(differ)}; take another file, or delete it and "
                f"{self.folder}"
            )
        if "written" not in found or not self.file.exists():
            return self.finished()
        if hashlib.sha256(self.file.read_bytes()).hexdigest() != found["written"]:
            raise FileExistsError(f"{self.file}: was changed after it was written; take another file")
        self._remove_parts()
        return None

    def missing(self) -> list[int]:
        return [number for number in range(self.batches) if not self.part(number).is_file()]

    def finished(self) -> int:
        return self.batches - len(self.missing())

    def keep(self, number: int, rows: Sequence[Row]) -> None:
        write_atomically(self.part(number), "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the file from its batches, then say so, then remove them."""
        rows: list[Row] = [{} for _ in self.plan]
        for number in range(self.batches):
            for place, row in zip(self.places(number), _lines(self.part(number)), strict=True):
                rows[place] = row
        content = _encoded(rows, self.file.suffix)
        write_atomically(self.file, content)
        write_atomically(self.record, _json({**about, "written": hashlib.sha256(content).hexdigest()}))
        self._remove_parts()

    def _remove_parts(self) -> None:
        for part in sorted(self.folder.glob("batch-*.jsonl")):
            part.unlink()

    def summary(self, kept: int) -> Written:
        rows = _decoded(self.file)
        rewards = [row["reward"] for row in rows if "reward" in row]
        return Written(
            file=self.file,
            about=self.record,
            prompts=len(rows) // self.sampling.samples,
            rows=len(rows),
            reward=float(np.mean(rewards)) if rewards else None,
            finished=float(np.mean([row["finished"] for row in rows])),
            tokens=float(np.mean([row["tokens"] for row in rows])),
            kept=kept,
        )


def _batch(
    job: _Job,
    number: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    texts: Sequence[str],
    reward: Reward | None,
    others: Mapping[str, PreTrainedModel],
) -> list[Row]:
    """The rows of the file that a batch makes, in the order of its places."""
    which = [int(place) // job.sampling.samples for place in job.places(number)]
    seed = int(np.random.SeedSequence([job.sampling.seed, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    with seeded(model.device, seed):
        drawn = draw(model, tokenizer, [texts[i] for i in which], others, job.sampling)
    chosen = [rows[i] for i in which]
    rewards = None
    if reward is not None:
        rewards = graded(reward, chosen, drawn.completions)
    out = []
    for i, (row, completion) in enumerate(zip(chosen, drawn.completions)):
        out.append(
            {"prompt": row["prompt"], "completion": completion}
            | ({} if rewards is None else {"reward": float(rewards[i])})
            | {
                "tokens": int(drawn.tokens[i]),
                "finished": bool(drawn.finished[i]),
                "policy_logp": float(drawn.log_policy[i]),
            }
            | {f"{name}_logp": float(drawn.log_policy[i] - drawn.log_ratio[name][i]) for name in others}
        )
    return out


def _checked_file(file: Path | str) -> Path:
    file = Path(file)
    if file.suffix not in SUFFIXES:
        _validate.fail("file", f"must end with {' or '.join(SUFFIXES)}", str(file))
    if file.is_dir():
        raise IsADirectoryError(f"{file}: is a folder")
    return file


def _columns(models: Mapping[str, PreTrainedModel]) -> Mapping[str, PreTrainedModel]:
    for name in models:
        if COLUMN.fullmatch(name) is None or name == "policy":
            _validate.fail("log_probs_under", "names are letters, digits and _, and not policy", name)
    return models


def _texts(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], sampling: Sampling, model: PreTrainedModel
) -> list[str]:
    """What the model reads for every row."""
    if not rows:
        raise ValueError("rows: needs at least one prompt")
    texts = texts_of(tokenizer, rows)
    longest = getattr(model.config, "max_position_embeddings", None)
    for i, tokens in enumerate(_lengths(tokenizer, texts)):
        if longest is not None and tokens + sampling.max_new_tokens > longest:
            raise ValueError(
                f"rows[{i}]: its prompt has {tokens} tokens, and with max_new_tokens = {sampling.max_new_tokens} more "
                f"it does not fit in the model's context of {longest}"
            )
    return texts


def _lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def _plan(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], sampling: Sampling) -> np.ndarray:
    """The places of all sequences, in the order in which they are drawn: shortest prompts first."""
    order = np.argsort(_lengths(tokenizer, texts), kind="stable")
    return (order[:, None] * sampling.samples + np.arange(sampling.samples)).ravel()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@torch.no_grad()
def _weights(model: PreTrainedModel) -> str:
    """A hash of the weights, and of what the configuration says of how they are used."""
    config = {k: v for k, v in model.config.to_dict().items() if not k.startswith("_") and k != "transformers_version"}
    made = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, value in model.named_parameters():
        made.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        numbers: Any = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        made.update(numbers)
    return made.hexdigest()


def _code(value: Any) -> str:
    """What a reward does, as far as a text can say: functions by name and a hash of the file that they stand in, with
    what they are bound to; fields of dataclasses, items of lists; other values as they are printed, without addresses.
    """
    if isinstance(value, functools.partial):
        return _code([value.func, value.args, value.keywords])
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_code, value))}]"
    if is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(f"{f.name}={_code(getattr(value, f.name))}" for f in fields(value))
        return f"{type(value).__qualname__}({inner})"
    if not callable(value):
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    inner_function = inspect.unwrap(value)
    owner = getattr(inner_function, "__self__", None)
    try:
        kind = inner_function if hasattr(inner_function, "__code__") or owner is not None else type(inner_function)
        source = hashlib.sha256(Path(inspect.getsourcefile(kind) or "").read_bytes()).hexdigest()[:16]
    except (OSError, TypeError):  # made in a console
        source = "?"
    name = getattr(inner_function, "__qualname__", type(inner_function).__qualname__)
    return f"{name} {source}" + ("" if owner is None else f" of {_code(owner)}")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _encoded(rows: Sequence[Row], suffix: str) -> bytes:
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    import pyarrow as pa
    from pyarrow import parquet

    into = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(rows)), into)
    return into.getvalue()


def _lines(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_bytes().split(b"\n") if line]


def _decoded(file: Path) -> list[Row]:
    """Of every row, what the summary is about."""
    if file.suffix == ".jsonl":
        return _lines(file)
    from pyarrow import parquet

    names = [n for n in parquet.read_schema(file).names if n in ("reward", "tokens", "finished")]
    return list(parquet.read_table(file, columns=names).to_pylist())
