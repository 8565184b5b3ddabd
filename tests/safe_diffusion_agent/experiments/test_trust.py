"""What is measured of an agent's promises, at toy size."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch

from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.evaluation.rollout import rollout, start_seed
from safe_diffusion_agent.experiments import trust, trust_measures
from safe_diffusion_agent.experiments.jobs import run_all
from safe_diffusion_agent.experiments.pages.trust import by_risk, pooled, trust_page
from safe_diffusion_agent.experiments.reproduce import jobs_of
from safe_diffusion_agent.experiments.rows import Row, RowRun
from safe_diffusion_agent.experiments.shifts import SHIFTS, START_SEED, Shifted, play, shifts_of
from safe_diffusion_agent.experiments.study_results import write_measured
from safe_diffusion_agent.experiments.trust_measures import disagreement, guard

ENV_ID = "safe/Pendulum-v0"
TOY = {"num_steps": 10, "batch_size": 16, "horizon": 4, "diffusion_steps": 2, "num_candidates": 2}


@pytest.fixture(scope="module")
def measured(tiny_dataset, tmp_path_factory):
    """A run of all parts that need no one-step models."""
    folder = tmp_path_factory.mktemp("trust")
    parts = ("risk", "forecasts", "behavior", "moving", "adaptive", "cuts")
    row = Row(
        label="toy", dataset=CollectConfig(env_id=ENV_ID), preset="quick", settings=TOY, seed=0,
        load_settings={"risk": None, "budget_margin": 0.0}, evaluation={"num_episodes": 1},
        parts=parts,
    )  # fmt: skip
    run = RowRun(
        row=row, dataset_id=tiny_dataset, folder=folder, out=folder / "measured", device="cpu"
    )
    jobs = jobs_of(run)
    assert len(jobs) == len(parts) and not any(job.is_done() for job in jobs)
    run_all(jobs)
    assert all(job.is_done() for job in jobs)
    write_measured(folder / "study", [run], {"scale": {"num_episodes": 1}})
    return run, json.loads((folder / "study" / "pendulum.json").read_text())


def test_parts_are_measured_once_and_written_together(measured, monkeypatch):
    run, document = measured
    (agent,) = document["agents"]
    assert set(run.row.parts) < agent.keys() and agent["preset"] == "quick"
    monkeypatch.setattr(trust, "_measure", pytest.fail)
    run_all(jobs_of(run))


def test_more_is_held_back_for_smaller_risks(measured):
    _, document = measured
    groups = by_risk(document["agents"][0]["risk"])
    margins = [rows[0]["margin"] for risk, rows in groups.items() if risk is not None]
    assert margins == sorted(margins, reverse=True) and groups[None][0]["margin"] == 0.0
    assert pooled(groups[None])["num_episodes"] == 6


def test_the_page_has_every_part(measured):
    _, document = measured
    text = trust_page(document, "pendulum.png")
    for words in (
        "requested risk",
        "keep_probability",
        "cut, 0.8 to 0.2",
        "cut at step",
        "corrected",
    ):
        assert words in text, words
    assert "Worlds that it was not trained for" not in text


def test_cuts_are_kept_if_little_is_spent_after_them(measured):
    run, document = measured
    agent, cut = run.train(), document["agents"][0]["cuts"][3]
    generator = agent.new_generator()
    played = rollout(
        lambda *states: agent.act(*states, generator=generator), ENV_ID, [60.0],
        [start_seed(START_SEED, 0)], budget_changes={80: 8.0},
    )  # fmt: skip
    assert cut["step"] == 80
    assert cut["median_later_cost"] == pytest.approx(played.costs[80:].sum())
    assert cut["num_kept"] == (cut["median_later_cost"] <= 8.0)


def test_agents_are_left_as_they_are(measured):
    agent = measured[0].train()
    before = agent.generator.get_state()
    first, again = (play(agent, np.full(2, 30.0), None, np.arange(2)) for _ in range(2))
    assert torch.equal(agent.generator.get_state(), before)
    np.testing.assert_array_equal(first[0], again[0])


def test_worlds_are_shifted():
    shifts = {shift.name: shift for shift in SHIFTS}
    names = {shift.name for shift in shifts_of(ENV_ID)}
    assert "mass x 1.5" in names and "friction x 1.6" not in names
    assert len(shifts_of("safe/HalfCheetah-v0")) == len(SHIFTS)
    heavy = Shifted(gym.make(ENV_ID), shifts["mass x 1.5"], np.zeros(3))
    assert heavy.unwrapped.m == 1.5 * gym.make(ENV_ID).unwrapped.m
    noisy = Shifted(gym.make(ENV_ID), shifts["noise 0.15"], np.ones(3))
    (first, _), (again, _) = noisy.reset(seed=1), noisy.reset(seed=1)
    np.testing.assert_array_equal(first, again)
    exact, _ = gym.make(ENV_ID).reset(seed=1)
    assert 0.1 < np.abs(first - exact).mean() < 5.0


def test_models_that_are_the_same_do_not_disagree(tiny_episodes, monkeypatch):
    from safe_diffusion_agent.methods.table import METHODS

    settings = {
        "num_steps": 2, "model_steps": 4, "critic_steps": 2, "imitation_steps": 2,
        "num_branches": 4, "horizon": 4,
        "calibration_episodes": 0, "risk": None, "num_candidates": 2, "model_tolerance": 1e9,
    }  # fmt: skip
    config = METHODS["trebi"].config("frontier", **settings)
    agent, _ = METHODS["trebi"].fit(tiny_episodes, config, device="cpu")
    states = np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 2.0]]), np.full(2, 30.0), np.full(2, 100)
    plan = agent.plan(*states)
    assert disagreement(agent, plan).shape == (2,) and (disagreement(agent, plan) > 0.0).all()
    for parameter in agent.networks.dynamics.parameters():
        parameter[:] = parameter[:1].clone()
    np.testing.assert_allclose(disagreement(agent, plan), 0.0, atol=1e-6)

    monkeypatch.setattr(trust_measures, "FEW_RATIOS", (0.5,))
    monkeypatch.setattr(trust_measures, "RISK", None)
    rows = guard(agent, 1)
    assert [row["variant"] for row in rows[:3]] == ["no guard", "disagreement", "constant"]
    assert rows[0]["mean_return"] == pytest.approx(rows[2]["mean_return"])
