"""Running independent tasks: in this process, in worker processes, or on a Dask cluster.

A task is a small picklable object with a ``run()`` method. Results come back as they finish, so that the caller can
show progress and keep what is done when it is interrupted. A worker that dies (killed for memory, say) never takes
the run with it: what it was working on is tried once more, alone, and if that worker dies too the result is `Died`.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from klsim import _validate

__all__ = ["Died", "Task", "execute"]


class Task(Protocol):
    """Independent work; ``run`` must not depend on what ran before it or where.

    Tasks may have a ``group``. Those of one group use the same compiled code: two workers that begin them at the same
    time would both compile it, so that a worker takes one of another group while there is any.
    """

    def run(self) -> Any: ...


@dataclass(frozen=True)
class Died:
    """The result of a task whose worker died twice."""

    reason: str = "the worker process died, twice (killed for memory?)"


def execute(tasks: Sequence[Task], *, jobs: int = 1, scheduler: str | None = None) -> Iterator[tuple[int, Any]]:
    """Yield ``(index, result)`` in order of completion; the result of a task that kills its worker is a `Died`.

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
    elif jobs == 1 or len(tasks) <= 1:
        for index, task in enumerate(tasks):
            yield index, task.run()
    else:
        yield from _in_processes(tasks, jobs)


_loaded: set[Any] = set()
"""Groups of which this worker has run a task."""


def _run(task: Task) -> Any:
    """Run a task in a worker; what the first of a group has loaded is frozen, and no collection walks over it again.

    Loky collects garbage every second in its workers: an eighth of a second each time, once all papers are loaded.
    """
    result = task.run()
    if _group(task) not in _loaded:
        _loaded.add(_group(task))
        gc.collect()
        gc.freeze()
    return result


def _pool(workers: int) -> Any:
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(max_workers=workers, initializer=_end_with, initargs=(os.getpid(),))


def _end_with(parent: int) -> None:
    """End this worker when its parent has ended, however that was killed: nobody else would."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)  # os._exit raises while a check runs (`klsim.claims.search.no_exit`)

    if os.name == "posix":  # the parent may be gone already, killed while this worker started
        threading.Thread(target=watch, name="end with the parent", daemon=True).start()


def _in_processes(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Any]]:
    import joblib

    workers = min(joblib.cpu_count() if jobs == -1 else jobs, len(tasks))
    waiting = deque(range(len(tasks)))
    while waiting:
        suspects: list[int] = []
        yield from _until_broken(tasks, waiting, workers, suspects)
        for index in suspects:
            yield index, _alone(tasks[index])


def _until_broken(
    tasks: Sequence[Task], waiting: deque[int], workers: int, suspects: list[int]
) -> Iterator[tuple[int, Any]]:
    """Run ``waiting`` until it is empty or a worker dies; then ``suspects`` holds what was in the workers' hands."""
    running: dict[Future[Any], int] = {}
    pool = _pool(workers)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index = _next(tasks, waiting, {_group(tasks[i]) for i in running.values()} - {None})
                running[pool.submit(_run, tasks[index])] = index
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                index = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    suspects += [index, *running.values()]
                    return
                yield index, result
    except BrokenProcessPool:  # on submit
        suspects += [index, *running.values()]
    finally:
        pool.shutdown(wait=False, kill_workers=True)


def _group(task: Task) -> Any:
    return getattr(task, "group", None)


def _next(tasks: Sequence[Task], waiting: deque[int], busy: set[Any]) -> int:
    """Take the first task of no busy group, else the first."""
    index = next((i for i in waiting if _group(tasks[i]) not in busy), waiting[0])
    waiting.remove(index)
    return index


def _alone(task: Task) -> Any:
    with _pool(1) as pool:
        try:
            return pool.submit(_run, task).result()
        except BrokenProcessPool:
            return Died()


def _numbered(index: int, task: Task) -> tuple[int, Any]:
    return index, task.run()


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
