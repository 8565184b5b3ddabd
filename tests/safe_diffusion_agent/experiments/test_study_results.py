"""What a study leaves, by numbers that are made up."""

import pytest

from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.evaluation.protocol import EpisodeResult
from safe_diffusion_agent.evaluation.tables import Evaluated
from safe_diffusion_agent.experiments.rows import Row
from safe_diffusion_agent.experiments.study_results import _panel


def finished(method, seed, data_seed, episode_return, of_data):
    """A row with one episode of a return, and what its document says of the data's policy."""
    dataset = CollectConfig(env_id="safe/Hopper-v0", num_steps=1_000, seed=data_seed)
    row = Row(label=method, dataset=dataset, method=method, seed=seed)
    episode = EpisodeResult(
        ratio=1.0, budget=10.0, episode=0, episode_return=episode_return, cost=1.0,
        undiscounted_cost=1.0, normalized_cost=0.1, over_budget=False, num_steps=5,
    )  # fmt: skip
    evaluated = Evaluated(task=row.task, method=method, seed=seed, episodes=[episode])
    return row, evaluated, {"behavior_policy": {"mean_return": of_data}}


def test_lines_are_means_over_the_seeds_of_trainings_and_data():
    panel = _panel(
        [
            finished("bc", 0, 0, 100.0, 10.0),
            finished("bc", 1, 0, 200.0, 10.0),
            finished("bc", 0, 1, 600.0, 40.0),
            finished("caps", 0, 0, 5.0, 10.0),
        ]
    )
    assert panel["lines"] == {"the data's policy": pytest.approx(25.0), "bc": pytest.approx(300.0)}
    assert {name: len(episodes) for name, episodes in panel["episodes"].items()} == {"caps": 1}
