"""The runner of the paper's figures at toy size, and its tables against hand-made episodes."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safe_diffusion_agent.cli.display import show_comparison
from safe_diffusion_agent.data.collection import CollectConfig
from safe_diffusion_agent.errors import DatasetError, UnknownNameError
from safe_diffusion_agent.evaluation.protocol import EpisodeResult, EvaluationConfig, to_csv
from safe_diffusion_agent.evaluation.tables import (
    Evaluated,
    overall,
    read_episodes,
    read_table,
    summary,
    tidy,
)
from safe_diffusion_agent.experiments import catalog as paper_figures
from safe_diffusion_agent.experiments import jobs as job_runners
from safe_diffusion_agent.experiments import jobs as reproduction_jobs
from safe_diffusion_agent.experiments import reproduce
from safe_diffusion_agent.experiments.catalog import FIGURES, SCALES, PaperFigure
from safe_diffusion_agent.methods.table import METHODS


def episode(ratio, cost, episode_return=1.0, budget=10.0) -> EpisodeResult:
    return EpisodeResult(
        ratio=ratio, budget=budget, episode=0, episode_return=episode_return, cost=cost,
        undiscounted_cost=cost, normalized_cost=cost / budget, over_budget=cost > budget,
        num_steps=5,
    )  # fmt: skip


def test_episodes_survive_their_csv(tmp_path):
    episodes = [episode(0.2, 3.25), episode(1.0, 12.0, -1.5)]
    (tmp_path / "episodes.csv").write_text(to_csv(episodes))
    assert read_episodes(tmp_path / "episodes.csv") == episodes


def test_summary_by_hand():
    runs = [
        Evaluated(task="t", method="m", seed=seed, episodes=[episode(0.2, cost, value)] * 10)
        for seed, cost, value in ((0, 4.0, 1.0), (1, 14.0, 3.0))
    ]
    (row,) = summary(runs)
    assert (row["num_seeds"], row["num_episodes"], row["num_over"]) == (2, 20, 10)
    assert (row["mean_return"], row["std_over_seeds"], row["mean_cost"]) == (2.0, 1.0, 9.0)
    assert row["share_over"] == 0.5 and row["cvar_overrun"] == 4.0
    assert row["normalized_cost_max"] == pytest.approx(1.4)
    assert len(tidy(runs)) == 20 and tidy(runs)[-1]["training_seed"] == 1


def test_random_budgets_are_summarised_by_fifths():
    ratios = (0.01, 0.2, 0.21, 0.99)
    runs = [Evaluated(task="t", method="m", seed=0, episodes=[episode(r, 1.0) for r in ratios])]
    rows = summary(runs, random_ratios=True)
    assert [(row["ratio"], row["num_episodes"]) for row in rows] == [(0.2, 2), (0.4, 1), (1.0, 1)]


def test_overall_is_the_interquartile_mean_over_seeds_and_budgets():
    runs = [
        Evaluated(
            task="t", method="m", seed=seed,
            episodes=[episode(0.2, 1.0, 10.0 * seed), episode(1.0, 1.0, 10.0 * seed + 1.0)],
        )
        for seed in range(4)
    ]  # fmt: skip
    (row,) = overall(runs, num_resamples=200)
    assert row["interquartile_mean_return"] == np.mean([10.0, 11.0, 20.0, 21.0])
    assert row["return_low"] < 15.5 < row["return_high"]


def test_every_figure_names_methods_and_settings_that_exist():
    for figure in FIGURES.values():
        for method in figure.methods:
            for settings in figure.variants.values():
                for scale in SCALES.values():
                    METHODS[method].config(scale.preset, "safe/Pendulum-v0", **settings)


def test_the_plan_of_the_first_figure(tmp_path):
    jobs = reproduce.plan(
        FIGURES["fig1"], SCALES["paper"], tmp_path, tasks=["safe/Pendulum-v0"], methods=["bc"]
    )
    assert [job.seed for job in jobs] == [0, 1, 2]
    assert {job.dataset_id for job in jobs} == {"safe-envs/pendulum/sac-replay-v0"}
    assert len({job.folder for job in jobs}) == 3
    assert jobs[0].evaluation.ratios == (1.0,) and jobs[0].evaluation.num_episodes == 60
    (job,) = reproduce.plan(
        FIGURES["fig1"], SCALES["small"], tmp_path, tasks=["safe/Pendulum-v0"],
        methods=["trebi:reference"],
    )  # fmt: skip
    assert (job.method, job.preset, job.label) == ("trebi", "reference", "trebi:reference")
    jobs = reproduce.plan(FIGURES["fig7"], SCALES["small"], tmp_path)
    assert [job.label for job in jobs] == ["every 1", "every 2", "every 3", "every 4"]
    assert len({job.folder for job in jobs}) == 1 and len({job.results for job in jobs}) == 4
    with pytest.raises(ValueError, match="none of these datasets. It has: safe/CarCircle"):
        reproduce.plan(FIGURES["fig3"], SCALES["small"], tmp_path, tasks=["safe/Pendulum-v0"])
    with pytest.raises(UnknownNameError, match="figure 'fig13'"):
        reproduce.reproduce("fig13")


def test_planner_variants_share_a_training_and_methods_a_figure(tmp_path):
    jobs = reproduce.plan(
        FIGURES["fig4b"], SCALES["small"], tmp_path, methods=["trebi:small", "trebi"]
    )
    assert [job.label for job in jobs][:2] == ["trebi:small, n = 10", "trebi:small, n = 100"]
    assert len({job.label for job in jobs}) == len({job.results for job in jobs}) == 8
    assert len({job.folder for job in jobs}) == 2
    jobs = reproduce.plan(FIGURES["fig4a"], SCALES["small"], tmp_path)
    assert jobs[0].label == "H = 8" and len({job.folder for job in jobs}) == 5


def small_job(dataset_id, folder, **changes) -> reproduction_jobs.Job:
    fields = {
        "collect": CollectConfig(env_id="safe/Pendulum-v0"), "dataset_id": dataset_id,
        "method": "bc", "label": "", "preset": "quick", "settings": {"num_steps": 4}, "planner": {},
        "seed": 0, "evaluation": EvaluationConfig(num_episodes=1, ratios=(1.0,)), "folder": folder,
    }  # fmt: skip
    return reproduction_jobs.Job(**fields | changes)


def test_jobs_that_share_a_training_run_one_after_the_other(tiny_dataset, tmp_path):
    settings = {"num_steps": 2, "batch_size": 4, "horizon": 8}
    jobs = [
        small_job(tiny_dataset, tmp_path, method="trebi", settings=settings, planner=planner)
        for planner in ({}, {"penalty": 7.0}, {"num_candidates": 2})
    ]
    job_runners.run_all(jobs, workers=2, device="cpu")
    assert all(job.done for job in jobs)
    for job in jobs:
        document = json.loads((job.results / "results.json").read_text())
        assert job.planner.items() <= document["agent"]["config"]["planner"].items()


def test_a_dataset_that_is_cut_has_an_id_of_its_own():
    figure, small = FIGURES["fig2"], replace(SCALES["small"], max_steps=30_000)
    (job, *_) = reproduce.plan(figure, small, Path(), methods=["bc"])
    assert job.dataset_id == "safe-envs/halfcheetah/medium-30000-v0"
    assert (job.collect.num_steps, job.collect.sac_steps) == (30_000, 30_000)
    (job, *others) = reproduce.plan(
        figure, replace(SCALES["paper"], seeds=(0,)), Path(), methods=["bc"], qualities=["medium"]
    )
    assert not others
    assert job.dataset_id == "safe-envs/halfcheetah/medium-v0"


@pytest.mark.parametrize("random_ratios", [False, True])
def test_a_figure_is_made_once(tiny_dataset, tmp_path, monkeypatch, capsys, random_ratios):
    figure = PaperFigure(
        title="toy", datasets=(("safe/Pendulum-v0", "replay"),), methods=("caps", "bc"),
        variants={"": {"num_steps": 4, "batch_size": 16}}, random_ratios=random_ratios,
    )  # fmt: skip
    monkeypatch.setitem(paper_figures.FIGURES, "toy", figure)
    monkeypatch.setattr(
        reproduction_jobs,
        "_dataset",
        lambda *_: (CollectConfig(env_id="safe/Pendulum-v0"), tiny_dataset),
    )
    monkeypatch.setattr(reproduce, "collect", lambda *_, **__: None)
    measured = []
    monkeypatch.setattr(reproduce, "measure_max_budget", measured.append)
    monkeypatch.setattr(reproduction_jobs, "NUM_RANDOM_BUDGETS", 5)
    options = {"out": tmp_path / "out", "runs": tmp_path / "runs", "device": "cpu"}
    folder = reproduce.reproduce("toy", seeds=[0, 1], num_episodes=2, **options)
    assert measured == [tiny_dataset]  # it is not of the paper's size
    about = json.loads((folder / "about.json").read_text())
    assert about["scale"]["seeds"] == [0, 1] and about["versions"]["torch"]
    data = about["datasets"]["safe/Pendulum-v0 replay"]
    assert data["dataset_id"] == tiny_dataset and len(about["evaluated_at_commits"]) == 1
    assert about["methods"] == ["caps:quick", "bc:quick"]
    assert 0 <= data["share_within"]["0.2"] <= data["share_within"]["1"] <= 1
    with (folder / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    per_seed = {"caps": 5, "bc": 5} if random_ratios else {"caps": 10, "bc": 2}
    for method, number in per_seed.items():
        assert len([row for row in rows if row["method"] == method]) == 2 * number
    assert (folder / "toy.png").stat().st_size > 5_000
    assert (folder / "overall.csv").exists() != random_ratios

    show_comparison(read_table(folder / "summary.csv"))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.strip().startswith("caps") and "%" in line for line in lines)

    monkeypatch.setattr(job_runners, "run_job", pytest.fail)
    reproduce.reproduce("toy", seeds=[0, 1], num_episodes=2, **options)


def test_after_an_error_no_further_job_is_begun(tiny_dataset, tmp_path):
    jobs = [
        small_job(dataset_id, tmp_path / str(seed), seed=seed)
        for seed, dataset_id in enumerate(["no/such-v0"] + 9 * [tiny_dataset])
    ]
    with pytest.raises(DatasetError, match="no/such-v0"):
        job_runners.run_all(jobs, workers=2, device="cpu")
    assert not jobs[-1].done


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_jobs_run_on_ray(tiny_dataset, tmp_path):
    pytest.importorskip("ray")
    jobs = [small_job(tiny_dataset, tmp_path / str(seed), seed=seed) for seed in range(3)]
    counts = []
    run_all = job_runners.run_all
    run_all(
        jobs, workers=2, ray_address="local", device="cpu", progress=lambda *n: counts.append(n)
    )
    assert counts == [(0, 3), (1, 3), (2, 3), (3, 3)] and all(job.done for job in jobs)
    run_all(jobs, workers=2, ray_address="local", device="cpu", progress=pytest.fail)
