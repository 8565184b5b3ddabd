"""The one runner, with jobs of its own and with the stages at toy size."""

import multiprocessing
import os
from functools import partial

import numpy as np
import pytest

from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.writing import update_metadata
from safe_diffusion_agent.errors import CheckpointError, DatasetError
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.experiments.jobs import (
    Job,
    collect_job,
    evaluate_job,
    run_all,
    train_job,
)

ENV_ID = "safe/Pendulum-v0"


def write(path, text, progress):
    progress(1, 2, loss=0.5)
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"{text} {os.getpid()} {multiprocessing.current_process().name}\n")


def note(path, text, device="cpu", done=False) -> Job:
    return Job(
        name=text, group=str(path), device=device, is_done=partial(bool, done),
        run=partial(write, path, text),
    )  # fmt: skip


def training(dataset_id, folder, seed=0):
    return train_job(
        dataset_id, folder, method="bc", preset="quick", seed=seed, settings={"num_steps": 4},
        device="cpu",
    )  # fmt: skip


def no_cost(observations, actions, next_observations, infos):
    return np.zeros(len(actions))


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_of_a_group_run_one_after_the_other(tmp_path, workers):
    jobs = [note(tmp_path / f"{k % 2}", f"job {k}", done=k == 4) for k in range(6)]
    seen = []
    run_all(
        jobs, workers=workers, progress=lambda name, done, total, **_: seen.append((name, done))
    )
    for k in range(2):
        lines = [line.split() for line in (tmp_path / f"{k}").read_text().splitlines()]
        assert [line[1] for line in lines] == [str(n) for n in range(k, 6, 2) if n != 4]
        assert len({line[2] for line in lines}) == 1, "in one process"
        assert (int(lines[0][2]) == os.getpid()) == (workers == 1)
    counts = [done for name, done in seen if name == "jobs"]
    assert counts[0] == 1 and counts[-1] == 6 and counts == sorted(counts)
    assert {name for name, _ in seen} - {"jobs"} == {f"job {k}" for k in range(6) if k != 4}


def test_a_job_that_is_alone_is_not_counted(tmp_path):
    seen = []
    run_all([note(tmp_path / "file", "alone")], progress=lambda name, *_, **__: seen.append(name))
    assert set(seen) == {"alone"}
    with pytest.raises(ValueError, match="jobs should be positive"):
        run_all([], workers=0)


def test_after_an_error_no_further_job_is_begun(tiny_dataset, tmp_path):
    jobs = [
        training(dataset_id, tmp_path / str(seed), seed=seed)
        for seed, dataset_id in enumerate(["no/such-v0"] + 9 * [tiny_dataset])
    ]
    with pytest.raises(DatasetError, match="no/such-v0"):
        run_all(jobs, workers=2)
    assert not jobs[-1].is_done()


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_jobs_run_on_ray(tiny_dataset, tmp_path):
    pytest.importorskip("ray")
    jobs = [training(tiny_dataset, tmp_path / str(seed), seed=seed) for seed in range(3)]
    counts = []
    run_all(
        jobs, workers=2, ray_address="local",
        progress=lambda name, done, total: counts.append((name, done, total)),
    )  # fmt: skip
    assert counts == [("jobs", done, 3) for done in range(4)]
    assert all(job.is_done() for job in jobs)
    run_all(jobs, workers=2, ray_address="local", progress=pytest.fail)


def test_a_training_is_done_if_its_settings_are_the_same(tiny_dataset, tmp_path):
    job = training(tiny_dataset, tmp_path)
    assert not job.is_done()
    run_all([job])
    assert job.is_done()
    assert not training(tiny_dataset, tmp_path, seed=1).is_done()
    assert not training("another/one-v0", tmp_path).is_done()
    options = {"method": "bc", "preset": "quick", "seed": 0, "settings": {"num_steps": 4}}
    free = train_job(tiny_dataset, tmp_path, cost_fn=no_cost, device="cpu", **options)
    assert not free.is_done(), "other costs are other data"


def test_a_training_for_another_maximum_budget_is_not_done(tiny_dataset, tmp_path):
    """What the runner takes for done, `train` takes, too: budgets are part of the task."""
    job = training(tiny_dataset, tmp_path)
    run_all([job])
    update_metadata(tiny_dataset, {"max_budget": 7.0})
    try:
        assert not job.is_done()
        with pytest.raises(CheckpointError, match="task.max_budget is 60.0, not 7.0"):
            job.run(progress=None)
    finally:
        update_metadata(tiny_dataset, {"max_budget": 60.0})
    assert job.is_done()


def test_an_evaluation_is_done_if_agent_and_budgets_are_the_same(tiny_dataset, tmp_path):
    run_all([training(tiny_dataset, tmp_path)])

    def job(**changes):
        config = EvaluationConfig(num_episodes=1, ratios=(1.0,), **changes)
        return evaluate_job(str(tmp_path), tmp_path / "evaluation", config, device="cpu")

    assert not job().is_done()
    run_all([job()])
    assert job().is_done() and not job(seed=1).is_done()


def test_several_are_collected_side_by_side(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs = [CollectConfig(env_id=ENV_ID, num_steps=400, seed=8)]
    configs.append(CollectConfig(env_id=ENV_ID, quality="expert", num_steps=400, seed=8))
    ids = ["safe-envs/pendulum/sac-replay-v0", "safe-envs/pendulum/expert-v0"]
    jobs = [collect_job(c, name, overwrite=True) for c, name in zip(configs, ids, strict=True)]
    seen = {}
    run_all(jobs, workers=2, progress=lambda name, *_, **__: seen.setdefault(name))
    assert set(seen) == {*ids, "jobs"}
    assert len(list((tmp_path / "runs" / "collections").iterdir())) == 1, "they share a training"
    for dataset_id in ids:
        assert len(load_episodes(dataset_id).rewards) == 400
    assert all(job.is_done() for job in jobs)
