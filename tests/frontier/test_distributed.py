"""Files read on a Dask cluster give the bytes that one process does, also when a worker dies."""

import json
import os
import signal

import numpy as np
import pytest

from klsim.frontier import estimate, read_rollouts
from klsim.frontier.distributed import read_distributed

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

        found = read_distributed([str(folder)], scheduler=cluster.scheduler_address, on_file=kill_once)
    assert killed
    same(found, read_rollouts([folder]))
