"""Files read, and prompts summed up, on a Dask cluster give the bytes that one process does, also when a worker dies."""

import json
import os
import signal
import threading

import numpy as np
import pytest

from klsim.frontier import estimate, read_rollouts
from klsim.frontier.distributed import read_distributed
from klsim.frontier.partition import spread_over
from klsim.parallel import Died

distributed = pytest.importorskip("distributed")


def write(folder, files=6, rows=400):
    rng = np.random.default_rng(0)
    for k in range(files):
        lines = (json.dumps({"prompt": f"p{rng.integers(50)}", "reward": float(rng.normal())}) for _ in range(rows))
        (folder / f"part-{k}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def same(one, other):
    assert np.array_equal(one.prompt, other.prompt)
    assert np.array_equal(one.reward, other.reward)
    assert estimate(one.prompt, one.reward, resamples=200) == estimate(other.prompt, other.reward, resamples=200)


def test_a_task_a_file_is_the_same(tmp_path):
    folder = write(tmp_path)
    same(read_distributed([str(folder)], scheduler=None), read_rollouts([folder]))


def test_steps_of_several_files_are_not_pooled(tmp_path):
    for step in (1, 2):
        (tmp_path / f"{step}.jsonl").write_text(json.dumps({"prompt": "a", "reward": 1, "step": step}) + "\n")
    with pytest.raises(ValueError, match="--where step=1"):
        read_distributed([str(tmp_path)], scheduler=None)
    assert len(read_distributed([str(tmp_path)], scheduler=None, where=["step=2"]).reward) == 1


def killing(spread, client):
    """The same, with a worker killed while the sums of the first kernel are made."""
    left = [1]

    def spread_and_kill(*arguments):
        if left:
            left.pop()
            pids = list(client.run(os.getpid).values())
            threading.Timer(0.2, os.kill, (pids[0], signal.SIGKILL)).start()
        return spread(*arguments)

    return spread_and_kill


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_workers_one_killed(tmp_path):
    folder = write(tmp_path)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        killed = []

        def kill_once(name):
            if not killed:
                killed.append(name)
                os.kill(next(iter(pids.values())), signal.SIGKILL)

        address = cluster.scheduler_address
        found = read_distributed([str(folder)], scheduler=address, on_file=kill_once)
        spread = spread_over(4, scheduler=address)
        partitioned = estimate(found.prompt, found.reward, resamples=200, spread=killing(spread, client))
    assert killed
    one = read_rollouts([folder])
    same(found, one)
    assert partitioned == estimate(one.prompt, one.reward, resamples=200)


@pytest.mark.parametrize("kind", ["normal", "ties"])
def test_the_estimate_by_parts_of_the_prompts_is_the_same(kind):
    """Every block's sum is its own: tasks that hold whole blocks give the bytes that one process gives."""
    rng = np.random.default_rng(1)
    prompt = rng.integers(0, 60, 2000)
    reward = rng.normal(size=2000) if kind == "normal" else rng.integers(0, 4, 2000)
    one = estimate(prompt, reward, resamples=200)
    for parts in (1, 7, 1000):
        assert estimate(prompt, reward, resamples=200, spread=spread_over(parts)) == one


def test_a_part_that_dies_is_named(monkeypatch):
    monkeypatch.setattr("klsim.frontier.partition.execute", lambda tasks, **where: iter([(0, Died()), (1, None)]))
    with pytest.raises(ValueError, match="part 1 of 2 of the prompts: the worker"):
        estimate([0, 0, 1, 1], [0.0, 1.0, 2.0, 0.5], spread=spread_over(2))
