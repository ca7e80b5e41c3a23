"""What a stage logs: ``metrics.jsonl``, TensorBoard, progress, and reporters (trackio, Weights & Biases).

A run that was stopped and resumed logs the series of one that was not. It repeats the steps after its last checkpoint
with the same numbers, so what is local is cut back to the checkpoint, and a reporter, whose server cannot be cut back,
is sent nothing twice: ``reported.json`` holds the last step that each has. Windows are whole, because checkpoints are
multiples of ``log_steps``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from klsim.files import write_atomically

__all__ = ["callbacks", "check_reporters"]

OnStep = Callable[[int, str], None]


def check_reporters(names: Sequence[str]) -> None:
    """Every reporter is installed.

    Raises:
        ModuleNotFoundError: one is not.
    """
    import importlib.util

    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"report_to = {name!r}: pip install {name}", name=name)


def callbacks(
    folder: Path, done: int, on_step: OnStep, *, report_to: Sequence[str] = (), project: str = "", run: str = ""
) -> list[TrainerCallback]:
    """Callbacks of the first process for the stage in ``folder``, from step ``done`` on; none in the others.

    Args:
        report_to: of ``tensorboard`` (always written), ``trackio``, ``wandb``; a stage is the ``run`` of ``project``.
    """
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    if not PartialState().is_main_process:
        return []
    _keep_until(folder / "metrics.jsonl", done)
    board = SummaryWriter(log_dir=str(folder / "tensorboard"), purge_step=done + 1)
    to_board = TensorBoardCallback(board)  # type: ignore[no-untyped-call]
    others = [_Once(name, folder, project, run) for name in report_to if name != "tensorboard"]
    return [_Metrics(folder / "metrics.jsonl", on_step), to_board, *others]


class _Metrics(TrainerCallback):
    """Everything that is logged, a JSON object a line; and a few words of it for whoever watches."""

    def __init__(self, file: Path, on_step: OnStep) -> None:
        self.file, self.on_step, self.text = file, on_step, ""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs:
            with self.file.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"step": state.global_step} | logs) + "\n")
            shown = (k for k in ("loss", "reward", "kl_to_ref", "kl_to_teacher") if k in logs)
            self.text = ", ".join(f"{k} {logs[k]:.3g}" for k in shown)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.on_step(state.global_step, self.text)


class _Once(TrainerCallback):
    """A reporter of transformers, which is sent every step once, in one run, however often the stage is resumed."""

    def __init__(self, name: str, folder: Path, project: str, run: str) -> None:
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        check_reporters([name])
        self.name, self.file, self.project, self.run = name, folder / "reported.json", project, run
        self.inner = INTEGRATION_TO_CALLBACK[name]()

    def _last(self) -> int:
        """The last step that was reported."""
        return int(self._all().get(self.name, -1))

    def _all(self) -> dict[str, int]:
        return dict(json.loads(self.file.read_text(encoding="utf-8"))) if self.file.is_file() else {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        args.project, args.run_name = self.project, self.run
        if self.name == "wandb":  # its callback goes on in the run that is open
            import wandb

            self._finish()
            wandb.init(project=self.project, name=self.run, id=_identifier(self.project, self.run), resume="allow")
        self.inner.on_train_begin(args, state, control, **others)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        key = state.global_step * 2 + (
            "train_runtime" in (logs or {})
        )  # the summary at the end is of the last step, too
        if key <= self._last():
            return
        self.inner.on_log(args, state, control, logs=dict(logs or {}), **others)
        write_atomically(self.file, json.dumps(self._all() | {self.name: key}) + "\n")

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.inner.on_train_end(args, state, control, **others)
        self._finish()

    def _finish(self) -> None:
        """Close W&B's run, this stage's or that of an interrupted one."""
        if self.name == "wandb":
            import wandb

            if wandb.run is not None:
                wandb.finish()


def _identifier(project: str, run: str) -> str:
    """Of a W&B run: the same for the same stage of the same project."""
    import hashlib

    return hashlib.sha256(f"{project}\n{run}".encode()).hexdigest()[:16]


def _keep_until(file: Path, step: int) -> None:
    """Drop lines that are repeated from a checkpoint on, and one that a kill cut off."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    write_atomically(file, "".join(kept))
