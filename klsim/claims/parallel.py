"""Running independent tasks: in this process, in worker processes, or on a Dask cluster.

joblib does the work. A task is a small picklable object with a ``run()`` method; results come back as
they finish, so that the caller can show progress and keep what is done when it is interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from klsim import _validate

__all__ = ["Task", "execute"]


class Task(Protocol):
    """Independent work; ``run`` must not depend on what ran before it or where."""

    def run(self) -> Any: ...


def _numbered(index: int, task: Task) -> tuple[int, Any]:
    return index, task.run()


def execute(tasks: Sequence[Task], *, jobs: int = 1, scheduler: str | None = None) -> Iterator[tuple[int, Any]]:
    """Yield ``(index, result)`` in order of completion.

    Args:
        jobs: worker processes; 1 runs here, -1 uses every core.
        scheduler: address of a Dask scheduler (``tcp://…``), which then overrides ``jobs``.

    Raises:
        ValueError: ``jobs`` is 0 or below -1; the scheduler cannot be reached.
        ModuleNotFoundError: ``scheduler`` is given and ``distributed`` is not installed.
    """
    _validate.integer("jobs", jobs, low=-1)
    if jobs == 0:
        _validate.fail("jobs", "must be -1 (every core) or at least 1", jobs)
    if scheduler is not None:
        yield from _on_dask(tasks, scheduler)
        return
    if jobs == 1 or len(tasks) <= 1:
        for index, task in enumerate(tasks):
            yield index, task.run()
        return
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    yield from pool(delayed(_numbered)(i, task) for i, task in enumerate(tasks))


def _on_dask(tasks: Sequence[Task], scheduler: str) -> Iterator[tuple[int, Any]]:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise ModuleNotFoundError("--scheduler needs Dask: pip install 'klsim[dask]'") from None
    from joblib import Parallel, delayed, parallel_config

    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ValueError(f"scheduler = {scheduler!r}: cannot be reached ({type(error).__name__})") from None
    with client, client.as_current(), parallel_config(backend="dask"):
        pool = Parallel(return_as="generator_unordered", batch_size=1)
        yield from pool(delayed(_numbered)(i, task) for i, task in enumerate(tasks))
