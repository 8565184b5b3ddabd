"""Tables of a comparison, against hand-made episodes."""

from dataclasses import asdict

import numpy as np
import pytest

from safe_diffusion_agent.evaluation.protocol import EpisodeResult
from safe_diffusion_agent.evaluation.tables import (
    Evaluated,
    overall,
    read_episodes,
    summary,
    tidy,
)
from safe_diffusion_agent.storage import csv_of


def episode(ratio, cost, episode_return=1.0, budget=10.0) -> EpisodeResult:
    return EpisodeResult(
        ratio=ratio, budget=budget, episode=0, episode_return=episode_return, cost=cost,
        undiscounted_cost=cost, normalized_cost=cost / budget, over_budget=cost > budget,
        num_steps=5,
    )  # fmt: skip


def test_episodes_survive_their_csv(tmp_path):
    episodes = [episode(0.2, 3.25), episode(1.0, 12.0, -1.5)]
    (tmp_path / "episodes.csv").write_text(csv_of([asdict(e) for e in episodes]))
    assert read_episodes(tmp_path / "episodes.csv") == episodes


def test_summary_by_hand():
    runs = [
        Evaluated(task="t", method="m", seed=seed, episodes=[episode(0.2, cost, value)] * 10)
        for seed, cost, value in ((0, 4.0, 1.0), (1, 14.0, 3.0))
    ]
    (row,) = summary(runs)
    assert (row["num_seeds"], row["num_episodes"], row["num_over"]) == (2, 20, 10)
    assert (row["mean_return"], row["mean_cost"]) == (2.0, 9.0)
    assert row["std_over_seeds"] == pytest.approx(2.0**0.5)
    assert row["share_over"] == 0.5 and row["cvar_overrun"] == 4.0
    assert row["normalized_cost_max"] == pytest.approx(1.4)
    assert len(tidy(runs)) == 20 and tidy(runs)[-1]["training_seed"] == 1


def test_random_budgets_are_summarized_by_fifths():
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
